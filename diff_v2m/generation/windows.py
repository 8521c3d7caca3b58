"""Windows of the model's length that cover a long video, and its rhythm, joined from theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from diff_v2m.model.music import Window

CROSSFADE = 2  # seconds between two windows
SLACK = 0.5  # seconds by which a clip in one window may exceed it; it gets that many more latent frames


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


class RhythmTrack:
    """A clip's rhythm (S,), assembled from its windows in any order."""

    def __init__(self, seconds: int, windows: Sequence[Window]):
        """seconds: number of the clip's per-second features."""
        self.windows, self.rhythm = tuple(windows), np.zeros(seconds, np.float32)

    def add(self, number: int, rhythm: np.ndarray) -> None:
        """Add window `number`, rhythm (seconds,) from its start: that of the window that is louder in each second."""
        window = self.windows[number]
        first = window.start if window.fade_in is None else math.floor(sum(window.fade_in) / 2)
        last = len(self.rhythm) if window.fade_out is None else math.floor(sum(window.fade_out) / 2)
        last = min(last, window.start + len(rhythm), len(self.rhythm))
        self.rhythm[first:last] = rhythm[first - window.start : last - window.start]
        if window.fade_out is None:
            self.rhythm[last:] = self.rhythm[last - 1]  # without the frames that SLACK adds
