"""Windows of the model's length that cover a long video, and the crossfade of their music into one track."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CROSSFADE = 2  # seconds between two windows
SLACK = 0.5  # seconds by which a clip in one window may exceed it; it gets that many more latent frames


@dataclass(frozen=True)
class Window:
    """Seconds [start, stop) of a clip; fades are (from, to) in seconds of the clip, None at its ends."""

    start: int
    stop: float
    fade_in: tuple[float, float] | None = None
    fade_out: tuple[float, float] | None = None

    @property
    def duration(self) -> float:
        return self.stop - self.start


def plan_windows(duration: float, window_seconds: float, crossfade: int = CROSSFADE) -> tuple[Window, ...]:
    """Windows that cover [0, duration): one if the clip fits, else several that start on whole seconds.

    All are full and spread evenly, so none is a short remainder. Neighbours crossfade in the middle of their overlap.
    """
    if duration <= window_seconds + min(SLACK, window_seconds / 4):
        return (Window(0, duration),)
    length = max(1, int(window_seconds))
    crossfade = min(crossfade, length // 2)
    seconds = math.ceil(duration)
    count = math.ceil((seconds - crossfade) / (length - crossfade))
    starts = [i * (seconds - length) // (count - 1) for i in range(count)]
    stops = [min(start + length, duration) for start in starts]
    middles = [(start + stop) / 2 for start, stop in zip(starts[1:], stops[:-1], strict=True)]
    fades = [None, *((middle - crossfade / 2, middle + crossfade / 2) for middle in middles), None]
    return tuple(Window(*window) for window in zip(starts, stops, fades[:-1], fades[1:], strict=True))


def fade(window: Window, samples: int, sample_rate: int) -> np.ndarray:
    """(samples,) gain of a window from its start; the squares of the gains of neighbours add up to one."""
    gain = np.ones(samples, np.float32)
    seconds = window.start + np.arange(samples) / sample_rate
    for span, rising in ((window.fade_in, True), (window.fade_out, False)):
        if span is not None:
            share = np.clip((seconds - span[0]) / max(span[1] - span[0], 1 / sample_rate), 0, 1)
            gain *= np.sin((share if rising else 1 - share) * math.pi / 2).astype(np.float32)
    return gain


class Track:
    """A clip's audio (channels, samples) and rhythm (S,), assembled from its windows in any order."""

    def __init__(self, duration: float, seconds: int, windows: Sequence[Window], *, sample_rate: int, channels: int):
        """duration: of the clip in seconds. seconds: number of its per-second features."""
        self.windows, self.sample_rate = tuple(windows), sample_rate
        self.audio = np.zeros((channels, max(1, round(duration * sample_rate))), np.float32)
        self.rhythm = np.zeros(seconds, np.float32)

    def add(self, number: int, audio: np.ndarray, rhythm: np.ndarray) -> None:
        """Add window `number`: audio (channels, samples) and rhythm (seconds,) from its start; a surplus is cut off."""
        window = self.windows[number]
        start = window.start * self.sample_rate
        samples = min(audio.shape[1], self.audio.shape[1] - start, round(window.duration * self.sample_rate))
        self.audio[:, start : start + samples] += audio[:, :samples] * fade(window, samples, self.sample_rate)
        # The rhythm of a second is that of the window that is louder in it.
        first = window.start if window.fade_in is None else math.floor(sum(window.fade_in) / 2)
        last = len(self.rhythm) if window.fade_out is None else math.floor(sum(window.fade_out) / 2)
        last = min(last, window.start + len(rhythm), len(self.rhythm))
        self.rhythm[first:last] = rhythm[first - window.start : last - window.start]
        if window.fade_out is None:
            self.rhythm[last:] = self.rhythm[last - 1]  # without the frames that SLACK adds
