"""Write wav and mp4 files, atomically."""

import logging
import subprocess
from pathlib import Path

import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic
from diff_v2m.media.container import audio_stream, existing_file, open_container
from diff_v2m.media.loudness import Waveform, blocks
from diff_v2m.media.video import probe

log = logging.getLogger(__name__)

# 4:2:0 needs even sides: padding keeps every pixel and adds at most one row and one column.
H264 = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p"]
H264 += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2"]


def write_wav(path: str | Path, audio: Waveform, sample_rate: int) -> None:
    """Write audio (channels, n) in [-1, 1] as a 24-bit wav, atomically and block by block; beyond ±1 it is clipped."""
    import soundfile

    with atomic(path) as part:
        try:
            with soundfile.SoundFile(part, "w", sample_rate, audio.shape[0], subtype="PCM_24", format="WAV") as file:
                for block in blocks(audio):
                    if not np.isfinite(block).all():
                        raise ValueError(f"{path}: audio holds NaN or infinity")
                    file.write(np.clip(block, -1, 1).T)
        except soundfile.LibsndfileError as error:
            raise OSError(error.error_string) from error


def mux(video: str | Path, wav: str | Path, output: str | Path, duration: float | None = None) -> None:
    """Write an mp4 of the video's picture, copied bit for bit, and the wav as its only audio (AAC 192 kbit/s).

    It is as long as the picture, or `duration` seconds if that is less; silence follows a shorter wav. A picture that
    mp4 cannot hold is encoded again. Raises InputError.
    """
    video, wav, info = existing_file(video), existing_file(wav), probe(video)
    length = info.duration if duration is None else min(duration, info.duration)
    with open_container(wav) as container:
        rate = 48000 if audio_stream(wav, container).rate % 48000 == 0 else 44100
    # ffmpeg's time starts with the file's earliest stream, which may be audio that begins before the picture.
    inputs = ["-itsoffset", f"{-info.lead:.6f}", "-i", str(video), "-i", str(wav)]
    sound = ["-map", "1:a:0", "-c:a", "aac", "-b:a", "192k", "-ar", str(rate)]
    sound += ["-af", f"apad=whole_dur={length:.6f},atrim=end={length:.6f}"]
    cut = [] if length == info.duration else ["-t", f"{length:.6f}"]
    _write_mp4(video, inputs, [*sound, *cut], output)


def cut_clip(video: str | Path, start: float, stop: float, output: str | Path) -> None:
    """Write the seconds [start, stop) of a video's picture, exact to the frame, as an mp4 without audio."""
    video, info = existing_file(video), probe(video)
    inputs = ["-ss", f"{start + info.lead:.6f}", "-i", str(video)]
    whole = start <= 0 and stop >= info.duration
    _write_mp4(video, inputs, ["-an", "-t", f"{stop - start:.6f}"], output, copy=whole)


def _write_mp4(video: Path, inputs: list[str], options: list[str], output: str | Path, copy: bool = True) -> None:
    """Run ffmpeg: stream copy where allowed and possible, else H.264."""
    common = ["-map", "0:V:0", *options, "-map_chapters", "-1", "-movflags", "+faststart", "-f", "mp4"]
    with atomic(output) as part:
        if copy and not (reason := _ffmpeg([*inputs, "-c:v", "copy", *common, str(part)])):
            return
        if copy and "No space left" not in reason:
            log.warning("%s: mp4 cannot hold this picture as it is (%s); encoding it again as H.264", video, reason)
        if reason := _ffmpeg([*inputs, *H264, *common, str(part)]):
            raise InputError(f"{video}: ffmpeg cannot write {output} from it ({reason})")


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
