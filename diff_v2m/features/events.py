"""What happens in the picture, and when: cuts and pseudo beats at their own times, not per second as the model sees
them. Found as features.py finds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diff_v2m import media
from diff_v2m.common.versions import FEATURE_VERSION
from diff_v2m.features.motion import MOTION_SIZE, CutFinder, MotionMeter, motion_peaks
from diff_v2m.features.video_features import rows

IDENTITY = f"picture events 1, features {FEATURE_VERSION}"


@dataclass(frozen=True)
class PictureEvents:
    """Seconds from the first frame. Motion is looked at 8 times a second, so a pseudo beat is known to ± 0.06 s."""

    cuts: np.ndarray  # (k,)
    pseudo_beats: np.ndarray  # (m,)
    duration: float


def picture_events(video: Path) -> PictureEvents:
    """Decodes the whole film, in pieces. Raises InputError for what is no video."""
    info = media.probe(video)
    meter, cutter = MotionMeter(info.fps), CutFinder()
    for _, times, frames in media.iter_views(video, [media.View(size=MOTION_SIZE)]):
        meter.watch(times, frames)
        cutter.watch(times, frames)
    times, motion = np.array(meter.times), np.array(meter.motion)
    peaks, _ = motion_peaks(times, motion, rows(info.duration))
    return PictureEvents(np.array(cutter.cuts, dtype=float), times[peaks], info.duration)
