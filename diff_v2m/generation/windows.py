"""Windows of the model's length on the latents of a long video, and the weights that blend their predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from diff_v2m.config import ModelConfig

OVERLAP = 3  # seconds that neighbouring windows share, at least
SLACK = 0.5  # seconds by which a video may exceed its features; it gets that many more latent frames
STRETCH = 0.1  # share of a window by which a video in one window may exceed it, with features for all its seconds


@dataclass(frozen=True)
class Window:
    """Seconds [start, stop) of a clip."""

    start: int
    stop: float

    @property
    def duration(self) -> float:
        return self.stop - self.start


@dataclass(frozen=True)
class Layout:
    """Where the windows of a clip lie on its latents."""

    windows: tuple[Window, ...]
    seconds: tuple[int, ...]  # seconds of features of each window
    starts: tuple[int, ...]  # first latent frame of each
    frames: int  # latent frames of each

    @classmethod
    def of(cls, duration: float, config: ModelConfig) -> Layout:
        """Full windows, as in training; a longer single one gets the frames it needs."""
        windows = plan_windows(duration, config.window_seconds)
        length = max(1, int(config.window_seconds))
        beyond = math.ceil(duration - SLACK) if len(windows) == 1 else 0
        seconds = tuple(max(1, min(math.ceil(window.duration), length), beyond) for window in windows)
        needed = config.latent_length(max(1, math.ceil(duration * config.sample_rate)))
        full = config.latent_length()
        if len(windows) == 1:
            return cls(windows, seconds, (0,), max(full, needed))
        starts = [round(window.start * config.latent_rate) for window in windows]
        starts[-1] = max(starts[-1], needed - full)
        return cls(windows, seconds, tuple(starts), full)

    @property
    def total(self) -> int:
        """Latent frames of the clip."""
        return self.starts[-1] + self.frames

    def weights(self) -> np.ndarray:
        """(windows, frames) float32: weight of each window in each of its frames. At any frame they add up to one.

        A weight rises over the overlap with the window before and falls over that with the window after.
        """
        weights = np.ones((len(self.starts), self.frames))
        ends = [start + self.frames for start in self.starts]
        for number, (start, end) in enumerate(zip(self.starts, ends, strict=True)):
            if number:
                weights[number] = np.minimum(weights[number], _ramp(ends[number - 1] - start, self.frames))
            if number + 1 < len(self.starts):
                falling = _ramp(end - self.starts[number + 1], self.frames)[::-1]
                weights[number] = np.minimum(weights[number], falling)
        total = np.zeros(self.total)
        for start, weight in zip(self.starts, weights, strict=True):
            total[start : start + self.frames] += weight
        shares = [
            weight / total[start : start + self.frames] for start, weight in zip(self.starts, weights, strict=True)
        ]
        return np.stack(shares).astype(np.float32)


def plan_windows(duration: float, window_seconds: float, overlap: int = OVERLAP) -> tuple[Window, ...]:
    """Windows that cover [0, duration): one if the clip fits, else several that start on whole seconds.

    All are full and spread evenly, so none is a short remainder. The last one ends with the clip.
    """
    if duration <= window_seconds + max(STRETCH * window_seconds, min(SLACK, window_seconds / 4)):
        return (Window(0, duration),)
    length = max(1, int(window_seconds))
    overlap = min(overlap, length // 2)
    seconds = math.ceil(duration)
    count = math.ceil((seconds - overlap) / (length - overlap))
    starts = [i * (seconds - length) // (count - 1) for i in range(count)]
    return tuple(Window(start, min(start + length, duration)) for start in starts)


def join_rhythm(windows: Sequence[Window], rhythms: Sequence[np.ndarray], seconds: int) -> np.ndarray:
    """(seconds,) float32: rhythm of a clip from that of its windows, changing over in the middle of each overlap.

    rhythms: (n,) of each window, from its start. Seconds that SLACK adds repeat the last value.
    """
    joined = np.zeros(seconds, np.float32)
    middles = [math.floor((after.start + before.stop) / 2) for before, after in pairwise(windows)]
    last = 0
    for window, rhythm, first in zip(windows, rhythms, [0, *middles], strict=True):
        last = min(window.start + len(rhythm), seconds)
        joined[first:last] = rhythm[first - window.start : last - window.start]
    joined[last:] = joined[last - 1]
    return joined


def _ramp(overlap: int, frames: int) -> np.ndarray:
    """(frames,) rising linearly over the first `overlap` frames, then 1."""
    return np.minimum((np.arange(frames) + 0.5) / max(overlap, 1), 1.0)
