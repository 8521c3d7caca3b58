"""The scene that picture and music are rendered from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

INSTRUMENTS = ("pluck", "organ", "strings", "bell")
BEAT = 0.5  # seconds. One tempo that divides the second, since per-second conditions contain no phase
TONIC = 57  # MIDI note A3. One key, since no picture determines the key
WORLD_VERSION = 2  # raise it whenever a seed gives another clip: folders of other versions are refused
HELD_OUT = 2_000_000  # seeds from here on are never trained on


@dataclass(frozen=True)
class Segment:
    """A shot: whole seconds `[start, stop)` with one motion level, 0 (still) to 3 (busy)."""

    start: int
    stop: int
    level: int


@dataclass(frozen=True)
class Scene:
    """One clip. The beat grid restarts at every cut, as an editor cuts on the bar."""

    seed: int
    duration: int  # seconds
    minor: bool
    instrument: int  # index into INSTRUMENTS
    segments: tuple[Segment, ...]

    @property
    def cuts(self) -> list[int]:
        """Times of the cuts in seconds, without the start of the clip."""
        return [segment.start for segment in self.segments[1:]]


def plan(seed: int, duration: int = 30) -> Scene:
    """Draw the scene of `seed`: shots of 3–8 s whose motion level changes at every cut."""
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
        minor=bool(rng.integers(2)),
        instrument=int(rng.integers(len(INSTRUMENTS))),
        segments=tuple(segments),
    )
