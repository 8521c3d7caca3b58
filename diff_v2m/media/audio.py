"""Read audio: wav, flac, ogg, mp3 and aiff with libsndfile, which seeks fast; all other files with PyAV."""

from io import BytesIO
from pathlib import Path

import av
import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.media.container import audio_stream, decode, existing_file, moving_pictures, open_container
from diff_v2m.media.video import probe

SLICEABLE = {".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"}  # read by libsndfile


def read_audio(
    path: str | Path, sample_rate: int, channels: int, start: float = 0.0, duration: float | None = None
) -> np.ndarray:
    """(channels, n) float32 of the first audio stream, resampled. Mono is the mean of the channels.

    start, duration: seconds; only this part is read. n is duration · sample_rate, less where the stream ends earlier.
    Silence fills the time until a video file's audio begins. Raises InputError.
    """
    path = existing_file(path)
    if path.suffix.lower() in SLICEABLE:
        audio, rate = _read_sndfile(path, str(path), start, duration)
    else:
        audio, rate = _read_av_audio(path, start, duration)
    return _converted(audio, rate, sample_rate, channels, duration)


def decode_audio(
    content: bytes, name: str, sample_rate: int, channels: int, start: float = 0.0, duration: float | None = None
) -> np.ndarray:
    """`read_audio` of a wav, flac, ogg or mp3 file in memory; errors call it `name`."""
    return _converted(*_read_sndfile(BytesIO(content), name, start, duration), sample_rate, channels, duration)


def _converted(audio: np.ndarray, rate: int, sample_rate: int, channels: int, duration: float | None) -> np.ndarray:
    if rate != sample_rate:
        import soxr

        audio = soxr.resample(audio.T, rate, sample_rate).T
    if len(audio) != channels:
        audio = np.repeat(audio.mean(axis=0, keepdims=True), channels, axis=0)
    n = audio.shape[1] if duration is None else round(duration * sample_rate)
    return np.ascontiguousarray(audio[:, :n], dtype=np.float32)


def audio_duration(path: str | Path) -> float:
    """Seconds of audio, from the header where the format has them, else by decoding. Raises InputError."""
    path = existing_file(path)
    if path.suffix.lower() in SLICEABLE:
        info = _sndfile_info(path)
        return info.frames / info.samplerate
    audio, rate = _read_av_audio(path, 0.0, None)
    return audio.shape[1] / rate


def audio_format(path: str | Path) -> tuple[int, int]:
    """(sample rate, channels) of the file, from its header. Raises InputError."""
    path = existing_file(path)
    if path.suffix.lower() in SLICEABLE:
        info = _sndfile_info(path)
        return info.samplerate, info.channels
    with open_container(path) as container:
        stream = audio_stream(path, container)
        return stream.rate, stream.channels


def _sndfile_info(path: Path):
    import soundfile

    try:
        return soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: not a readable {path.suffix[1:]} file ({error.error_string})") from error


def _read_sndfile(source: Path | BytesIO, name: str, start: float, duration: float | None) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        with soundfile.SoundFile(source) as file:
            file.seek(min(round(start * file.samplerate), file.frames))
            n = -1 if duration is None else int(np.ceil(duration * file.samplerate)) + 1
            return file.read(n, dtype="float32", always_2d=True).T, file.samplerate
    except soundfile.LibsndfileError as error:
        raise InputError(f"{name}: not a readable {name.rpartition('.')[2]} file ({error.error_string})") from error


def _read_av_audio(path: Path, start: float, duration: float | None) -> tuple[np.ndarray, int]:
    """(1 or 2 channels, n) and the stream's sample rate; more channels are mixed down to stereo."""
    with open_container(path) as container:
        stream = audio_stream(path, container)
        origin = probe(path).origin if moving_pictures(container) else 0.0
        stop = np.inf if duration is None else start + duration
        if start > 2:
            container.seek(int((origin + start - 1) / stream.time_base), stream=stream)
        rate = stream.rate
        # Mixed down as floats, more than two channels add up beyond ±1; as integers ffmpeg scales the sum.
        form, unit = ("s32p", 2.0**-31) if stream.channels > 2 else ("fltp", 1.0)
        resampler = av.AudioResampler(form, "mono" if stream.channels == 1 else "stereo", rate)
        blocks: list[np.ndarray] = []
        begins = 0.0
        for frame in decode(path, container, stream):
            time = (frame.time or 0.0) - origin
            begins = begins if blocks else time
            blocks += [block.to_ndarray() for block in resampler.resample(frame)]
            if time > stop:
                break
        blocks += [block.to_ndarray() for block in resampler.resample(None)]
    audio = np.concatenate(blocks, axis=1) * np.float32(unit)
    skip = round((start - begins) * rate)  # negative: the audio begins after `start`
    audio = audio[:, skip:] if skip >= 0 else np.pad(audio, ((0, 0), (-skip, 0)))
    return audio[:, : None if duration is None else int(np.ceil(duration * rate)) + 1], rate
