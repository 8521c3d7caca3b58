"""What generation makes of a clip: windows of it, decoded one by one, joined into one piece of music."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diff_v2m.score.score import Score


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


class Music:
    """`audio` (channels, samples) float32, and the score that it plays, if there is one."""

    def __init__(self, audio: np.ndarray, score: Score | None = None):
        self.audio, self.score = audio, score

    def stems(self) -> dict[str, np.ndarray]:
        """Audio of each voice, which add up to `audio`; empty where the music has no voices."""
        return {}

    def write_notes(self, folder: Path, name: str) -> list[str]:
        """Write the notes, if there are any, and return the names of the files."""
        return []

    def about(self) -> dict[str, Any]:
        """What the manifest says of the notes."""
        return {}

    def caption(self) -> list[str]:
        """What the picture says of the notes."""
        return []


class AudioTrack:
    """A clip's audio, crossfaded from its windows in any order."""

    def __init__(self, duration: float, windows: Sequence[Window], *, sample_rate: int, channels: int):
        self.windows, self.sample_rate = tuple(windows), sample_rate
        self.audio = np.zeros((channels, max(1, round(duration * sample_rate))), np.float32)

    def add(self, number: int, piece: np.ndarray) -> None:
        """Add window `number`, audio (channels, samples) from its start; a surplus is cut off."""
        window = self.windows[number]
        start = window.start * self.sample_rate
        samples = min(piece.shape[1], self.audio.shape[1] - start, round(window.duration * self.sample_rate))
        self.audio[:, start : start + samples] += piece[:, :samples] * fade(window, samples, self.sample_rate)

    def finish(self) -> Music:
        return Music(self.audio)


def fade(window: Window, samples: int, sample_rate: int) -> np.ndarray:
    """(samples,) gain of a window from its start; the squares of the gains of neighbours add up to one."""
    gain = np.ones(samples, np.float32)
    seconds = window.start + np.arange(samples) / sample_rate
    for span, rising in ((window.fade_in, True), (window.fade_out, False)):
        if span is not None:
            share = np.clip((seconds - span[0]) / max(span[1] - span[0], 1 / sample_rate), 0, 1)
            gain *= np.sin((share if rising else 1 - share) * math.pi / 2).astype(np.float32)
    return gain
