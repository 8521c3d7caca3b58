"""Shot cuts and pseudo beats, from all frames of a video, read in chunks.

[P]: stated by the paper; [I]: inferred from the paper, its data and its sources.
"""

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
            found = self.detector.process_frame(timecode, np.ascontiguousarray(frame[:, :, ::-1]))
            self.cuts += [cut.seconds for cut in found]


def pseudo_beats(times: np.ndarray, motion: np.ndarray, seconds: int) -> np.ndarray:
    """(S,) float32 in [0, 1]: height of the largest of the `motion_peaks` in each second, else 0."""
    beats = np.zeros(seconds, np.float32)
    peaks, heights = motion_peaks(times, motion, seconds)
    np.maximum.at(beats, second_of(times[peaks], seconds), heights)
    return beats


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


class MotionMeter:
    """Collects `motion`: mean |difference| of every step-th frame to the one before, in grey levels per second.

    The step is a whole number of frames: at 25 fps, 8 frames per second would be 3, 3, 3, 4 … frames apart, and steady
    motion would show beats. Division by the time between frames does the same for variable frame rates.
    """

    def __init__(self, fps: float):
        self.step = max(1, round(fps / MOTION_RATE))
        self.seen = 0
        self.last: tuple[float, np.ndarray] | None = None
        self.times: list[float] = []
        self.motion: list[float] = []

    def watch(self, times: np.ndarray, frames: np.ndarray) -> None:
        """Add the next frames (n, H, W, 3) uint8, at times (n,)."""
        first = -self.seen % self.step
        for time, frame in zip(times[first :: self.step], frames[first :: self.step], strict=True):
            if self.last is not None and time > self.last[0]:
                self.times.append(time)
                self.motion.append(cv2.absdiff(frame, self.last[1]).mean() / (time - self.last[0]))
            self.last = (time, frame.copy())  # a view would keep the whole chunk in memory
        self.seen += len(frames)
