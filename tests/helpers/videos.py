"""Short videos for tests, made with the ffmpeg that media uses. A frame's number is its grey level / 4."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from diff_v2m import media

LEVELS = 4  # grey levels from a frame to the next: coding noise is far below
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "10")


def ffmpeg(*arguments) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def numbered(count: int, width: int = 128, height: int = 96) -> np.ndarray:
    """(count, height, width, 3) uint8: frame n is flat grey of level 4 n (mod 256)."""
    levels = np.arange(count) * LEVELS % 256
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).astype(np.uint8)


def numbers(frames: np.ndarray) -> list[int]:
    """Which frames of `numbered` these are."""
    return np.round(frames.mean(axis=(1, 2, 3)) / LEVELS).astype(int).tolist()


def write_video(path: Path, frames: np.ndarray, fps: float = 25, *options, inputs=(), codec=X264) -> Path:
    """Encode frames (n, H, W, 3); `inputs` are further ffmpeg inputs (sound), `options` come before the output."""
    height, width = frames.shape[1:3]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *raw, *inputs, *codec, "-pix_fmt", "yuv420p"]
    command += [*map(str, options), str(path)]
    subprocess.run(command, input=np.ascontiguousarray(frames).tobytes(), check=True, capture_output=True)
    return path


def tone(seconds: float) -> list[str]:
    """ffmpeg input: a sine of 440 Hz."""
    return ["-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=44100:duration={seconds}"]


def read_frames(
    path: Path, fps: float | None, *, size: int | None = None, start: float = 0.0, stop: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(times, frames) at start, start + 1/fps, … < stop; fps None: every frame."""
    duration = media.probe(path).duration
    end = duration if stop is None else min(stop, duration)
    times = None if fps is None else start + np.arange(np.ceil((end - start - media.SAME_TIME) * fps)) / fps
    pieces = list(media.iter_views(path, [media.View(times, size)], start=start, stop=stop))
    return np.concatenate([times for _, times, _ in pieces]), np.concatenate([frames for _, _, frames in pieces])
