"""The sound of a video as consecutive blocks, so that memory does not grow with its length."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diff_v2m.media.container import audio_stream, decode, existing_file, open_container
from diff_v2m.media.video import probe

GAP = 0.05  # seconds between where a frame should begin and its timestamp, from which the timestamp counts
SILENCE = 1 << 18  # samples of silence given at once


@dataclass(frozen=True)
class SoundStream:
    """The sound of a video file. channels: names as in ffmpeg's layouts: FL, FR, FC, LFE, BL, …."""

    path: Path
    sample_rate: int
    channels: tuple[str, ...]

    def blocks(self, sample_rate: int) -> Iterator[np.ndarray]:
        """Consecutive blocks (channels, n) float32, full scale ±1, from the first frame of the picture on.

        Silence fills gaps, and the time until the sound begins. It ends where the sound does. Raises InputError.
        """
        return _joined(_frames(self.path), sample_rate, len(self.channels))


def open_sound(path: str | Path) -> SoundStream | None:
    """The sound of a video; None if it has no audio stream. Raises InputError."""
    path = existing_file(path)
    if not probe(path).has_audio:
        return None
    with open_container(path) as container:
        stream = audio_stream(path, container)
        return SoundStream(path, stream.rate, tuple(channel.name for channel in stream.layout.channels))


def _frames(path: Path) -> Iterator[tuple[float, int, np.ndarray]]:
    """(second, sample rate, samples) of each frame."""
    origin = probe(path).origin
    with open_container(path) as container:
        stream, time = audio_stream(path, container), 0.0
        for frame in decode(path, container, stream):
            time = time if frame.time is None else frame.time - origin
            yield time, frame.sample_rate, _samples(frame)
            time += frame.samples / frame.sample_rate


def _samples(frame) -> np.ndarray:
    """(channels, n) float32 in ±1."""
    values = frame.to_ndarray()
    values = values if frame.format.is_planar else values.reshape(-1, len(frame.layout.channels)).T
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.float32) * np.float32(2.0 ** (1 - 8 * values.dtype.itemsize))
    return values.astype(np.float32, copy=False)


@dataclass
class _Piece:
    """Frames without a gap, resampled as they come. skip: samples of the result that come too early."""

    rate: int
    end: float  # s, of the last frame
    skip: int
    target: int
    channels: int
    _resampler: Any = field(init=False)

    def __post_init__(self):
        import soxr

        self._resampler = soxr.ResampleStream(self.rate, self.target, self.channels, dtype="float32")

    def add(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        self.end += samples.shape[1] / self.rate
        if self.rate != self.target:
            samples = (
                self._resampler.resample_chunk(np.ascontiguousarray(samples.T), last=last).reshape(-1, self.channels).T
            )
        kept = samples[:, self.skip :]
        self.skip = max(0, self.skip - samples.shape[1])
        return kept


def _joined(frames: Iterator[tuple[float, int, np.ndarray]], target: int, channels: int) -> Iterator[np.ndarray]:
    """Frames with their times → consecutive blocks from second 0 on."""
    at, piece = 0, None
    for time, rate, samples in frames:
        if piece is None or rate != piece.rate or abs(time - piece.end) > GAP:
            if piece is not None:
                block = piece.add(np.zeros((channels, 0), np.float32), last=True)
                at += block.shape[1]
                yield block
            begin = round(time * target)
            for start in range(at, begin, SILENCE):
                yield np.zeros((channels, min(SILENCE, begin - start)), np.float32)
            piece = _Piece(rate, time, max(0, at - begin), target, channels)
            at = max(at, begin)
        block = piece.add(samples)
        at += block.shape[1]
        yield block
    if piece is not None:
        yield piece.add(np.zeros((channels, 0), np.float32), last=True)
