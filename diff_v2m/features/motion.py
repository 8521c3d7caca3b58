"""Shot cuts and pseudo beats, from all frames of a video, read in chunks.

[P]: stated by the paper; [I]: inferred from the paper, its data and its sources.
"""

import math
from collections import deque
from fractions import Fraction

import cv2
import numpy as np

from diff_v2m.config import MAX_SECONDS
from diff_v2m.media import SAME_TIME

MOTION_SIZE = 256  # pixels, longer side of the frames for cuts and motion; PySceneDetect's default
CUT_THRESHOLD = 27.0  # PySceneDetect's ContentDetector
CUT_DISTANCE = 0.6  # seconds, minimum between cuts: PySceneDetect's default of 15 frames at 25 fps
MOTION_RATE = 8.0  # frames per second compared for pseudo beats; the paper says 6 or more
PEAK_PROMINENCE = 0.3
STILL = 2.0  # grey levels per second: motion that varies less is coding noise


class CutFinder:
    """Collects `cuts`, in seconds, with PySceneDetect's ContentDetector [P] at threshold 27 [I]."""

    def __init__(self):
        from scenedetect import ContentDetector

        self.detector = ContentDetector(threshold=CUT_THRESHOLD, min_scene_len=CUT_DISTANCE)
        self.cuts: list[float] = []

    def watch(self, times: np.ndarray, frames: np.ndarray) -> None:
        """Add the next frames (n, H, W, 3) uint8 RGB, at times (n,)."""
        from scenedetect import FrameTimecode
        from scenedetect.common import Timecode

        for time, frame in zip(times, frames, strict=True):
            timecode = FrameTimecode(Timecode(round(time * 1e6), Fraction(1, 10**6)), fps=25.0)  # fps has no effect
            found = self.detector.process_frame(timecode, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            self.cuts += [cut.seconds for cut in found]


def motion_peaks(times: np.ndarray, motion: np.ndarray, seconds: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (k,) and heights (k,) in [0, 1] of the peaks of the motion curve (n,) at times (n,).

    Each window of 30 s is min-max scaled by itself, so a video's features equal those of its clips. A peak has a
    prominence of at least 0.3 [I]. A window whose motion hardly changes has no peaks.
    """
    from scipy.signal import find_peaks  # takes a second to import

    found, heights = [np.zeros(0, int)], [np.zeros(0)]
    second = second_of(times, seconds)
    for begin in range(0, seconds, MAX_SECONDS):  # one window at a time, as in training
        inside = np.flatnonzero((second >= begin) & (second < begin + MAX_SECONDS))
        curve = motion[inside]
        if len(curve) < 3 or np.ptp(curve) < STILL:
            continue
        curve = (curve - curve.min()) / np.ptp(curve)
        peaks, _ = find_peaks(curve, prominence=PEAK_PROMINENCE)
        found.append(inside[peaks])
        heights.append(curve[peaks])
    return np.concatenate(found), np.concatenate(heights)


def second_of(times: np.ndarray, seconds: int) -> np.ndarray:
    """(n,) int: the second in which each time lies."""
    return np.clip(np.floor(times + SAME_TIME).astype(int), 0, seconds - 1)


def motion_between(before: np.ndarray, after: np.ndarray, seconds: float) -> float:
    """Mean |difference| of two frames (H, W, 3) uint8, in grey levels per second."""
    return cv2.absdiff(after, before).mean() / seconds


class MotionMeter:
    """Collects `motion`: mean |difference| of a frame to the one `step` frames before, in grey levels per second.

    It is taken of the first frame of each second and of every step-th after it, so that a second has the same values
    wherever a clip of whole seconds begins. The step is a whole number of frames: at 25 fps, 8 frames per second would
    be 3, 3, 3, 4 … frames apart, and steady motion would show beats. Division by the time between frames does the same
    for variable frame rates.
    """

    def __init__(self, fps: float, start: float = 0.0):
        """start: where the clip begins, in seconds."""
        self.step = max(1, round(fps / MOTION_RATE))
        self.start = start
        self.second, self.place = 0, 0  # of the next frame: its second, and its number in it
        self.recent: deque[tuple[float, np.ndarray]] = deque()  # the last `step` frames
        self.times: list[float] = []
        self.motion: list[float] = []

    def watch(self, times: np.ndarray, frames: np.ndarray) -> None:
        """Add the next frames (n, H, W, 3) uint8, at times (n,)."""
        for time, frame in zip(times, frames, strict=True):
            second = math.floor(time - self.start + SAME_TIME)
            if second != self.second:
                self.second, self.place = second, 0
            if len(self.recent) == self.step:
                earlier, before = self.recent.popleft()
                if self.place % self.step == 0 and time > earlier:
                    self.times.append(time)
                    self.motion.append(motion_between(before, frame, time - earlier))
            self.recent.append((time, frame.copy()))  # a view would keep the whole chunk in memory
            self.place += 1
