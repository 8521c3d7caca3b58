"""Cuts and motion peaks at their exact times, for metrics. Detection is the same as for the per-second features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diff_v2m import media
from diff_v2m.common.versions import FEATURE_VERSION
from diff_v2m.features.motion import MOTION_SIZE, CutFinder, MotionMeter, motion_peaks
from diff_v2m.features.video_features import seconds_of

IDENTITY = f"picture events 1, features {FEATURE_VERSION}"


@dataclass(frozen=True)
class PictureEvents:
    """Times in seconds from the first frame. Motion is sampled at 8 Hz: pseudo beats are exact to ± 0.06 s."""

    cuts: np.ndarray  # (k,)
    pseudo_beats: np.ndarray  # (m,)
    duration: float


def picture_events(video: Path) -> PictureEvents:
    """Decode the whole video in chunks. Raises InputError if it is not a video."""
    info = media.probe(video)
    meter, cutter = MotionMeter(info.fps), CutFinder()
    for _, times, frames in media.iter_views(video, [media.View(size=MOTION_SIZE)]):
        meter.watch(times, frames)
        cutter.watch(times, frames)
    times, motion = np.array(meter.times), np.array(meter.motion)
    peaks, _ = motion_peaks(times, motion, seconds_of(info.duration))
    return PictureEvents(np.array(cutter.cuts, dtype=float), times[peaks], info.duration)
