"""Beat grid and key of a video, for models that receive them: tempo from motion, beats at cuts, mode from colour."""

import numpy as np

from diff_v2m.features.video_features import COLOR_BINS, VideoFeatures, motion_level
from diff_v2m.score.planner import Plan, plan

ENDING = 3.0  # seconds of fade at the end of a video that no single window covers; from a bar line on, 2 to 6
LONGEST_ENDING = 6.0
HIT_WEIGHT = 0.5  # of a wanted accent, of a cut 1: hits off the beat are met by a warp or an added accent
WARM = 0.3  # warmth from which a palette is warm, and below whose negative it is cool


def plan_of(features: VideoFeatures, seed: int) -> Plan:
    """The plan of a whole video, whose beats meet its cuts and the accents that a person wants.

    Features without exact times give cuts at whole seconds, and medium motion.
    """
    motion = 0.5 if features.motion is None else float(motion_level(features.motion).mean())
    times, weights = targets(features)
    return plan(features.duration, times, seed, motion=motion, mood=mood_of(features.color), weights=weights)


def targets(features: VideoFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Seconds that beats should meet, rising, and how much each counts: cuts and wanted accents."""
    cuts = np.flatnonzero(features.scene_cut).astype(float) if features.cut_times is None else features.cut_times
    hits = np.zeros(0) if features.accents is None else features.accents[:, 0]
    times = np.union1d(cuts, hits)
    return times, np.where(np.isin(times, cuts), 1.0, HIT_WEIGHT)


def ending_seconds(duration: float, plan: Plan | None) -> float:
    """Length of the fade at the end of a long video: from a bar line of the plan on, if one is near."""
    before_end = np.array([]) if plan is None else duration - plan.grid.bars  # (bars,) falling
    fitting = before_end[(before_end >= ENDING - 1) & (before_end <= LONGEST_ENDING)]
    return float(fitting[-1]) if len(fitting) else ENDING


def mood_of(color: np.ndarray | None) -> str:
    """A key of MOODS by palette (S, 3072): major if it is warm, minor if it is cool, else modal, as without colour."""
    if color is None:
        return "modal"
    heat = warmth(color)
    return "major" if heat > WARM else "minor" if heat < -WARM else "modal"


def warmth(color: np.ndarray) -> float:
    """Mean log(red / blue) of the pixels of RGB-uv histograms (S, 3072), weighted by their intensity.

    It is the mean of the second axis of the red histogram, whose bins are log(red / blue) from −3 to 3.
    """
    red = color.reshape(-1, 3, COLOR_BINS, COLOR_BINS)[:, 0].sum(axis=(0, 1))  # (bins,)
    return float(red @ np.linspace(-3, 3, COLOR_BINS) / max(red.sum(), 1e-9))
