"""Write wav and mp4 files, atomically."""

import logging
import os
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic
from diff_v2m.media.container import OPEN_OPTIONS, SAME_TIME, existing_file, open_container
from diff_v2m.media.encoding import encode_picture
from diff_v2m.media.isolation import isolated
from diff_v2m.media.metering import Waveform, blocks
from diff_v2m.media.multitrack import AudioTrack, track_options
from diff_v2m.media.tracks import sounds
from diff_v2m.media.video import VideoInfo, probe, timed_frames

log = logging.getLogger(__name__)

# ffmpeg opens no other file or address than the one it is given.
ONLY_THIS = [part for name, value in OPEN_OPTIONS.items() for part in (f"-{name}", value)]
ORDER_FRAMES = 250  # decoded to see whether a copy shows its frames in order
PCM_24_STEPS = 1 << 23  # of a 24-bit wav, from 0 to full scale
WAV_BYTES = (1 << 32) - (1 << 16)  # that a wav's header can count, less room for itself


def write_wav(path: str | Path, audio: Waveform, sample_rate: int) -> None:
    """Write audio (channels, n) in [-1, 1] as a 24-bit wav, atomically and block by block; beyond ±1 it is clipped.

    A file of more than 4 GB is an RF64, which has the same content behind a longer header.
    """
    import soundfile

    form = "WAV" if audio.shape[0] * audio.shape[1] * 3 < WAV_BYTES else "RF64"
    with atomic(path) as part:
        try:
            name = os.fsencode(part)  # as text, soundfile takes names in UTF-8 only
            with soundfile.SoundFile(name, "w", sample_rate, audio.shape[0], subtype="PCM_24", format=form) as file:
                for block in blocks(audio):
                    if not np.isfinite(block).all():
                        raise ValueError(f"{path}: audio holds NaN or infinity")
                    file.write(np.clip(block, -1, 1).T)
        except soundfile.LibsndfileError as error:
            raise OSError(error.error_string) from error


def pcm_24(audio: np.ndarray) -> np.ndarray:
    """Audio in [-1, 1] → the nearest steps of a 24-bit wav: whole numbers, in float64."""
    return np.rint(audio.astype(np.float64) * PCM_24_STEPS)


def mux(
    video: str | Path,
    wav: str | Path,
    output: str | Path,
    duration: float | None = None,
    *,
    tracks: Sequence[AudioTrack] = (),
) -> None:
    """Write an mp4 of the video's picture, copied bit for bit, and the wav as its audio (AAC 192 kbit/s).

    tracks: its audio tracks instead, the wav first; they need not be as long as each other.
    It is as long as the picture, or `duration` seconds if that is less; silence follows a shorter wav. A picture that
    mp4 cannot hold with all its frames at their times is encoded again. Raises InputError.
    """
    video, wav, info = existing_file(video), existing_file(wav), probe(video)
    length = info.duration if duration is None else min(duration, info.duration)
    with open_container(wav) as container:
        rate = 48000 if sounds(wav, container)[0].rate % 48000 == 0 else 44100
    inputs, options = track_options(tracks or [AudioTrack(wav)], rate, length, _input)
    _write_mp4(video, info, 0.0, length, output, inputs, options)


def cut_clip(video: str | Path, start: float, stop: float, output: str | Path) -> None:
    """Write the seconds [start, stop) of a video's picture, exact to the frame, as an mp4 without audio."""
    video, info = existing_file(video), probe(video)
    _write_mp4(video, info, max(0.0, start), min(stop, info.duration), output, [], ["-an"])


def _write_mp4(
    video: Path,
    info: VideoInfo,
    start: float,
    stop: float,
    output: str | Path,
    inputs: list[str],
    options: list[str],
) -> None:
    """Copy the picture if mp4 then shows the same frames at the same times, else encode it."""
    end = ["-map_chapters", "-1", "-movflags", "+faststart", "-f", "mp4"]
    expected = info.times[(info.times > start - SAME_TIME) & (info.times < stop - SAME_TIME)] - start
    with atomic(output) as part:
        if start <= 0:
            # ffmpeg's time starts with the file's earliest stream, which may be audio that begins before the picture.
            source = ["-itsoffset", f"{-info.lead:.6f}", *ONLY_THIS, "-i", _name(video), *inputs]
            cut = [] if stop >= info.duration else ["-t", f"{stop:.6f}"]
            tag = ["-tag:v", "hvc1"] if info.codec == "hevc" else []  # the only tag that Apple's players take
            picture = ["-map", f"0:{info.stream}", "-c:v", "copy", *tag]
            reason = _ffmpeg([*source, *picture, *options, *cut, *end, _name(part)])
            if "No space left" in reason:
                raise InputError(f"{output}: cannot be written (No space left on device); check the folder and disk")
            if not reason and not (reason := _difference(part, expected, in_order=not info.by_order)):
                return
            log.warning("%s: mp4 cannot hold this picture as it is (%s); encoding it again as H.264", video, reason)
        with tempfile.TemporaryDirectory(dir=part.parent, prefix=f".{part.stem}.") as folder:
            encoded = Path(folder) / "picture.mp4"
            encode_picture(video, info, start, stop, encoded)
            picture = ["-map", "0:v:0", "-c:v", "copy"]
            if reason := _ffmpeg(["-i", _name(encoded), *inputs, *picture, *options, *end, _name(part)]):
                raise InputError(f"{video}: ffmpeg cannot write {output} from it ({reason})")
        if reason := _difference(part, expected):
            log.warning("%s: %s has %s, because the video is damaged", video, output, reason)


def _difference(written: Path, expected: np.ndarray, *, in_order: bool = True) -> str:
    """How the frames of an mp4 differ from those that it should show; "" if in nothing.

    in_order: False where a container without presentation times may have given the right times to the wrong frames.
    """
    try:
        info = probe(written)
        found = info.times
        if not in_order:
            first = isolated(written, lambda: (time for time, _ in islice(timed_frames(written, info), ORDER_FRAMES)))
            if (np.diff(list(first)) <= 0).any():
                return "frames in another order"
    except InputError:
        return "no frame that can be decoded"
    if len(found) != len(expected):
        return f"{len(found)} instead of {len(expected)} frames"
    if not len(expected):
        return ""
    step = np.median(np.diff(expected)) if len(expected) > 1 else 1.0
    latest = float(np.abs(found - (expected - expected[0])).max())
    return f"frames up to {latest:.2f} s from their times" if latest > max(step / 2, 2e-3) else ""


def _input(path: Path) -> list[str]:
    """A file as an input of ffmpeg."""
    return [*ONLY_THIS, "-i", _name(path)]


def _name(path: Path) -> str:
    """A path as an argument of ffmpeg. Absolute, so that it looks like no option; `file:`, so like no protocol."""
    return f"file:{os.path.abspath(path)}"


def _ffmpeg(arguments: list[str]) -> str:
    """Run the ffmpeg of imageio-ffmpeg. Returns "", or the first line of its error output when it fails.

    Raises InputError when a signal ended it.
    """
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-loglevel", "error", "-y", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode == 0:
        return ""
    lines = [line.split("] ", 1)[-1].strip() for line in done.stderr.splitlines() if line.strip()]
    reason = lines[0] if lines else f"exit status {done.returncode}"
    if done.returncode == 255 or done.returncode < 0:  # a signal ended it
        raise InputError(f"{arguments[-1]}: ffmpeg was stopped ({reason})")
    return reason
