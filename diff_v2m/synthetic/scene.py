"""The score that picture and music share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

INSTRUMENTS = ("pluck", "organ", "strings", "bell")
TEMPI = (80, 90, 100, 120, 140)  # beats per minute
TONICS = (48, 50, 52, 53, 55, 57)  # MIDI notes C3 D3 E3 F3 G3 A3
HELD_OUT = 1_000_000  # seeds from here on are never trained on


@dataclass(frozen=True)
class Segment:
    """A shot: whole seconds ``[start, stop)`` with one motion level, 0 (still) to 3 (busy)."""

    start: int
    stop: int
    level: int


@dataclass(frozen=True)
class Scene:
    """One clip. The beat grid restarts at every cut, as an editor cuts on the bar."""

    seed: int
    duration: int  # seconds
    bpm: int
    tonic: int  # MIDI note
    minor: bool
    instrument: int  # index into INSTRUMENTS
    segments: tuple[Segment, ...]

    @property
    def cuts(self) -> list[int]:
        """Seconds at which the picture cuts, the start of the clip not among them."""
        return [segment.start for segment in self.segments[1:]]

    @property
    def beat(self) -> float:
        """Seconds from one beat to the next."""
        return 60.0 / self.bpm


def plan(seed: int, duration: int = 30) -> Scene:
    """Draw the scene of ``seed``: shots of 3–8 s whose motion level changes at every cut."""
    rng = np.random.default_rng([seed, 1])
    segments, start, level = [], 0, -1
    while start < duration:
        stop = start + int(rng.integers(3, 9))
        if duration - stop < 3:
            stop = duration
        level = int(rng.choice([candidate for candidate in range(4) if candidate != level]))
        segments.append(Segment(start, stop, level))
        start = stop
    return Scene(
        seed=seed,
        duration=duration,
        bpm=int(rng.choice(TEMPI)),
        tonic=int(rng.choice(TONICS)),
        minor=bool(rng.integers(2)),
        instrument=int(rng.integers(len(INSTRUMENTS))),
        segments=tuple(segments),
    )
