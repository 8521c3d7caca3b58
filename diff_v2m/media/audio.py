"""Read audio: wav, flac, ogg, mp3 and aiff with libsndfile, which seeks fast; all other files with PyAV.

PyAV also reads files of more than two channels, because libsndfile does not tell which channel is which.
"""

import os
from io import BytesIO
from pathlib import Path

import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.media.container import existing_file, open_container
from diff_v2m.media.isolation import isolated_call
from diff_v2m.media.soundtrack import mixed, read_tracks, resampled, stereo_of
from diff_v2m.media.tracks import channel_names, sounds

SLICEABLE = {".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"}  # read by libsndfile


def read_audio(
    path: str | Path, sample_rate: int, channels: int, start: float = 0.0, duration: float | None = None
) -> np.ndarray:
    """(channels, n) float32 of the sound that is meant (see tracks.py), resampled. Mono is the mean of both sides.

    More channels than two are mixed down to stereo, unless as many are asked for. start, duration: seconds; only this
    part is read. n is duration · sample_rate, less where the stream ends earlier. Silence fills the time until a video
    file's audio begins. Raises InputError.
    """
    path = existing_file(path)
    if path.suffix.lower() in SLICEABLE:
        audio, rate = _read_sndfile(os.fsencode(path), str(path), start, duration)
        if len(audio) <= 2:
            return _converted(audio, rate, sample_rate, channels, duration)
    tracks = read_tracks(path, start, duration)
    length = None if duration is None else round(duration * sample_rate)
    if len(tracks) > 1:
        sides = [mixed(pieces, start, sample_rate, ("FC",), length) for pieces in tracks]
        shortest = min(side.shape[1] for side in sides)
        audio = np.concatenate([side[:, :shortest] for side in sides])
    else:
        names = max((piece.names for piece in tracks[0]), key=len, default=("FC",))
        names = ("FL", "FR") if len(names) > 2 and len(names) != channels else names
        audio = mixed(tracks[0], start, sample_rate, names, length)
    return _with_channels(audio, channels)


def decode_audio(
    content: bytes, name: str, sample_rate: int, channels: int, start: float = 0.0, duration: float | None = None
) -> np.ndarray:
    """`read_audio` of a wav, flac, ogg or mp3 file in memory; errors call it `name`."""
    return _converted(*_read_sndfile(BytesIO(content), name, start, duration), sample_rate, channels, duration)


def _converted(audio: np.ndarray, rate: int, sample_rate: int, channels: int, duration: float | None) -> np.ndarray:
    audio = _with_channels(resampled(audio, rate, sample_rate), channels)
    return audio[:, : None if duration is None else round(duration * sample_rate)]


def _with_channels(audio: np.ndarray, channels: int) -> np.ndarray:
    if len(audio) != channels:
        audio = stereo_of(audio, channel_names(len(audio)))
        audio = audio if channels == 2 else np.repeat(audio.mean(axis=0, keepdims=True), channels, axis=0)
    return np.ascontiguousarray(audio, dtype=np.float32)


def audio_duration(path: str | Path) -> float:
    """Seconds of audio, from the header where the format has them, else by decoding. Raises InputError."""
    path = existing_file(path)
    if path.suffix.lower() in SLICEABLE:
        info = _sndfile_info(path)
        return info.frames / info.samplerate
    return max((piece.end for pieces in read_tracks(path, 0.0, None, keep=False) for piece in pieces), default=0.0)


def audio_format(path: str | Path) -> tuple[int, int]:
    """(sample rate, channels) of the file, from its header. Raises InputError."""
    path = existing_file(path)
    if path.suffix.lower() in SLICEABLE:
        info = _sndfile_info(path)
        return info.samplerate, info.channels
    return isolated_call(path, lambda: _container_format(path))


def _container_format(path: Path) -> tuple[int, int]:
    with open_container(path) as container:
        streams = sounds(path, container)
        return streams[0].rate, sum(stream.channels for stream in streams)


def _sndfile_info(path: Path):
    import soundfile

    try:
        return soundfile.info(os.fsencode(path))  # as text, soundfile takes names in UTF-8 only
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: not a readable {path.suffix[1:]} file ({error.error_string})") from error


def _read_sndfile(source: bytes | BytesIO, name: str, start: float, duration: float | None) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        with soundfile.SoundFile(source) as file:
            file.seek(min(round(start * file.samplerate), file.frames))
            n = -1 if duration is None else int(np.ceil(duration * file.samplerate)) + 1
            return file.read(n, dtype="float32", always_2d=True).T, file.samplerate
    except soundfile.LibsndfileError as error:
        raise InputError(f"{name}: not a readable {name.rpartition('.')[2]} file ({error.error_string})") from error
