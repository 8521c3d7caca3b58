"""Small frames spread evenly over a video, for the picture beside a result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diff_v2m.media.container import SAME_TIME
from diff_v2m.media.video import View, iter_views

RATE = 2.0  # frames per second
MOST = 240  # frames of a long video
SIDE = 200  # pixels, the longer side at most


@dataclass(frozen=True)
class Thumbnails:
    """times (n,) in seconds, frames (n, H, W, 3) uint8 RGB."""

    times: np.ndarray
    frames: np.ndarray


def thumbnail_view(duration: float) -> View:
    """The frames of a video of this length that become its thumbnails."""
    fps = min(RATE, MOST / max(duration, 1e-3))
    times = np.arange(max(1, math.ceil((duration - SAME_TIME) * fps))) / fps
    return View(times, SIDE)


def read_thumbnails(video: str | Path, duration: float) -> Thumbnails:
    """Read a video for its thumbnails alone. Raises InputError."""
    view = thumbnail_view(duration)
    return Thumbnails(view.times, np.concatenate([frames for _, _, frames in iter_views(video, [view])]))
