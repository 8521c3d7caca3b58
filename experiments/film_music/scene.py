"""What a video shows, as far as the music depends on it: cuts, motion, mood and family of scene."""

from dataclasses import dataclass

import numpy as np

from diff_v2m.features.imagenet import FAMILIES

MOTION_RATE = 4  # values a second of a motion curve
WORLD_VERSION = 3  # raised whenever a seed gives another scene, picture or score
HELD_OUT = 2_000_000  # seeds from here on are never trained on


@dataclass(frozen=True)
class ScenePlan:
    """One clip. `motion` holds MOTION_RATE values a second from 0 (still) to 1 (busy); `mood` is a key of MOODS."""

    seed: int
    duration: float  # seconds
    cuts: tuple[float, ...]  # seconds, rising, the start not among them
    motion: np.ndarray
    mood: str
    family: str
    ends: bool = True  # the music ends with the clip; otherwise the clip is a part of something longer

    def motion_at(self, seconds: np.ndarray | float) -> np.ndarray:
        return np.interp(seconds, (np.arange(len(self.motion)) + 0.5) / MOTION_RATE, self.motion)


def draw_scene(seed: int, duration: float = 30.0, family: str | None = None, mood: str | None = None) -> ScenePlan:
    """The scene of a seed: shots of 1.5 to 9 s, each with its own level of motion, some of which rise or fall."""
    rng = np.random.default_rng([seed, 1])
    drawn_family, drawn_mood = FAMILIES[rng.integers(len(FAMILIES))], str(rng.choice(("major", "minor", "modal")))
    busy = rng.beta(1.6, 1.6)  # of the whole clip
    longest = float(rng.uniform(4.0, 9.0))
    starts, start = [0.0], 0.0
    while (start := start + float(rng.uniform(1.5, longest))) < duration - 1.5:
        starts.append(start)
    if rng.random() < 0.06:  # a clip in one take
        starts = [0.0]
    seconds = (np.arange(int(np.ceil(duration * MOTION_RATE))) + 0.5) / MOTION_RATE
    motion = np.empty(len(seconds))
    for number, first in enumerate(starts):
        last = starts[number + 1] if number + 1 < len(starts) else duration
        inside = (seconds >= first) & (seconds < last)
        level = np.clip(busy + 0.3 * rng.standard_normal(), 0.02, 0.98)
        slope = 0.25 * rng.standard_normal() if rng.random() < 0.5 else 0.0
        motion[inside] = level + slope * ((seconds[inside] - first) / (last - first) - 0.5)
    motion = np.clip(motion + 0.03 * rng.standard_normal(len(motion)), 0, 1)
    return ScenePlan(
        seed=seed,
        duration=duration,
        cuts=tuple(starts[1:]),
        motion=motion,
        mood=mood or drawn_mood,
        family=family or drawn_family,
        ends=bool(rng.random() < 0.85),
    )
