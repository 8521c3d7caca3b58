"""`VideoFeatures`: the per-second features of a video that the model is conditioned on.

Index s describes the second [s, s + 1). S follows the length of the picture; the last second may be shorter. Cuts and
motion peaks are also kept at their times, from which `rows` makes more than one row a second. Pseudo beats are scaled
by the motion of their window, so a slice computes them again from its own motion.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic
from diff_v2m.features.motion import motion_peaks
from diff_v2m.features.shots import find_shots, shot_rows
from diff_v2m.media import SAME_TIME

SEMANTIC_DIM = 512
COLOR_BINS = 32
COLOR_DIM = 3 * COLOR_BINS**2
MOTION_ROWS = 8  # rows of `motion` a second
BUSY = 100.0  # grey levels a second: the motion whose level is 1
SLIVER = 0.1  # seconds: a shorter remainder is dropped, since it comes from the container's rounding (29.97 fps · 900)


def seconds_of(duration: float) -> int:
    """S, the number of per-second features of a video of `duration` seconds: rounded up, without a last sliver."""
    return max(1, int(np.ceil(duration - SLIVER)))


@dataclass(frozen=True)
class Rows:
    """Features of S seconds at r rows a second; row i describes [i / r, (i + 1) / r)."""

    scene_cut: np.ndarray  # (S · r,) int64, 1 where the row contains a cut
    pseudo_beats: np.ndarray  # (S · r,) float32 in [0, 1]
    motion: np.ndarray | None  # (S · r,) float32 in [0, 1]; None at one row a second
    shots: np.ndarray | None  # (S · r, 12) float32: features of the shot; None likewise


@dataclass(frozen=True)
class VideoFeatures:
    """Per-second features of a video of S seconds."""

    semantic: np.ndarray  # (S, 512) float32, raw (not normalised) embeddings
    color: np.ndarray | None  # (S, 3072) float32, sums to 1 in each second; None if its folder has no colour
    scene_cut: np.ndarray  # (S,) int64, 1 where the second contains a cut
    pseudo_beats: np.ndarray  # (S,) float32 in [0, 1]
    duration: float  # seconds of picture
    cut_times: np.ndarray | None = None  # (k,) float64: seconds of the cuts; None in files without them
    motion_peaks: np.ndarray | None = None  # (m, 2) float64: seconds and heights of the pseudo beats; None likewise
    motion: np.ndarray | None = None  # (S · 8,) float32: motion around each eighth of a second, in grey levels a second
    shots: np.ndarray | None = None  # (k, 3): of a slice, `find_shots` of the whole, in seconds of the slice
    wanted_beats: np.ndarray | None = None  # (m, 2) float64: `motion_peaks` where a person chose them, not `motion`
    wanted_rhythm: np.ndarray | None = None  # (S,) float32: rhythm instead of the predicted one; NaN: as predicted
    accents: np.ndarray | None = None  # (k, 2) float64: seconds and strengths, 0 to 1, of moments to accent

    def __len__(self) -> int:
        return len(self.semantic)

    def slice(self, start: int, stop: int) -> "VideoFeatures":
        """The features of the seconds [start, stop), as of a separate video.

        Without `motion` (released files) its pseudo beats stay as they are, as do those that a person wants.
        """
        stop = min(stop, len(self))
        part = replace(
            self,
            semantic=self.semantic[start:stop],
            color=None if self.color is None else self.color[start:stop],
            scene_cut=self.scene_cut[start:stop],
            duration=(self.duration if stop == len(self) else stop) - start,
            cut_times=_between(self.cut_times, start, stop, last=stop == len(self)),
            wanted_rhythm=None if self.wanted_rhythm is None else self.wanted_rhythm[start:stop],
            accents=_between(self.accents, start, stop, last=stop == len(self)),
        )
        motion = None if self.motion is None else self.motion[start * MOTION_ROWS : stop * MOTION_ROWS]
        if motion is not None and self.cut_times is not None:
            part = replace(part, shots=self._shots() - [start, start, 0])
        if motion is None or self.wanted_beats is not None:
            peaks = _between(self.motion_peaks, start, stop, last=stop == len(self))
            wanted = None if self.wanted_beats is None else peaks
            beats = self.pseudo_beats[start:stop]
            return replace(part, pseudo_beats=beats, motion_peaks=peaks, motion=motion, wanted_beats=wanted)
        return replace(part, **motion_features(motion))

    def rows(self, rate: int) -> "Rows":
        """Cuts, pseudo beats and motion at `rate` rows a second. Raises InputError if the files lack exact times."""
        if rate == 1:
            return Rows(self.scene_cut, self.pseudo_beats, None, None)
        if self.cut_times is None or self.motion_peaks is None or self.motion is None:
            raise InputError(
                f"the model needs {rate} rows of cuts and motion a second, the features have 1; extract them again"
            )
        count = len(self) * rate
        scene_cut, pseudo_beats = np.zeros(count, np.int64), np.zeros(count, np.float32)
        scene_cut[row_of(self.cut_times, rate, count)] = 1
        np.maximum.at(pseudo_beats, row_of(self.motion_peaks[:, 0], rate, count), self.motion_peaks[:, 1])
        motion = np.interp((np.arange(count) + 0.5) / rate, _middles(len(self)), self.motion)
        return Rows(scene_cut, pseudo_beats, motion_level(motion), shot_rows(self._shots(), rate, count))

    def _shots(self) -> np.ndarray:
        """`find_shots` of the video, also beyond the ends of a slice."""
        if self.shots is not None:
            return self.shots
        return find_shots(self.cut_times, motion_level(self.motion), MOTION_ROWS, self.duration)

    def accent_rows(self, rate: int) -> np.ndarray:
        """(S · rate,) float32: strength of the strongest accent in each row, 0 where there is none."""
        rows = np.zeros(len(self) * rate, np.float32)
        if self.accents is not None:
            np.maximum.at(rows, row_of(self.accents[:, 0], rate, len(rows)), self.accents[:, 1])
        return rows

    def info(self) -> dict:
        """The clip's entry in videoInfo_30.json. The released files have neither "duration" nor exact times."""
        entry = {
            "scene_cut": self.scene_cut.tolist(),
            "pseudo_beats": [round(float(value), 6) for value in self.pseudo_beats],
            "duration": round(self.duration, 6),
        }
        if self.cut_times is not None and self.motion_peaks is not None and self.motion is not None:
            entry["cut_times"] = self.cut_times.round(4).tolist()
            entry["motion_peaks"] = self.motion_peaks.round(4).tolist()
            entry["motion"] = [round(float(value), 1) for value in self.motion]
        return entry

    def save(self, directory: str | Path, name: str) -> dict:
        """Write DIR/clip/NAME.npy and DIR/color/NAME.npy atomically. Returns the entry for DIR/videoInfo_30.json."""
        for folder, array in (("clip", self.semantic), ("color", self.color)):
            if array is not None:
                with atomic(Path(directory) / folder / f"{name}.npy") as part:
                    np.save(part, array.astype(np.float32))
        return self.info()


def motion_level(motion: np.ndarray) -> np.ndarray:
    """Grey levels a second → float32 from 0 (still) to 1 (busy)."""
    return np.clip(motion / BUSY, 0, 1).astype(np.float32)


def motion_rows(times: np.ndarray, motion: np.ndarray, seconds: int) -> np.ndarray:
    """Motion (n,) at times (n,) → (seconds · 8,) float32: interpolated at the middle of each eighth of a second.

    A second is interpolated from its own values, if it has any, so that it does not depend on where a clip ends.
    """
    if not len(times):
        return np.zeros(seconds * MOTION_ROWS, np.float32)
    rows = np.interp(_middles(seconds), times, motion)
    edges = np.searchsorted(times, np.arange(seconds + 1) - SAME_TIME)
    for second, (first, last) in enumerate(pairwise(edges)):
        if last > first:
            middles = second + _middles(1)
            rows[second * MOTION_ROWS :][:MOTION_ROWS] = np.interp(middles, times[first:last], motion[first:last])
    return rows.round(1).astype(np.float32)  # as files hold it


def motion_features(motion: np.ndarray) -> dict[str, Any]:
    """`motion` (S · 8,) of a window of whole seconds, with its `motion_peaks` and `pseudo_beats`.

    The motion of the first row reaches into the frames before the window, so it takes part as the second row does.
    """
    seconds = len(motion) // MOTION_ROWS
    curve, times = motion.astype(float), _middles(seconds)
    curve[0] = curve[1]
    places, heights = motion_peaks(times, curve, seconds)
    beats = np.zeros(seconds, np.float32)
    np.maximum.at(beats, places // MOTION_ROWS, heights)
    return {"motion": motion, "motion_peaks": np.stack([times[places], heights], axis=1), "pseudo_beats": beats}


def _middles(seconds: int) -> np.ndarray:
    return (np.arange(seconds * MOTION_ROWS) + 0.5) / MOTION_ROWS


def row_of(times: np.ndarray, rate: int, rows: int) -> np.ndarray:
    """(n,) int: the row in which each time lies, with `rate` rows a second and `rows` in all."""
    return np.clip(np.floor((times + SAME_TIME) * rate).astype(int), 0, rows - 1)


def _between(events: np.ndarray | None, start: int, stop: int, last: bool) -> np.ndarray | None:
    """Events, (n,) times or (n, 2) with times in front, of the seconds [start, stop), as from `start` on.

    The last second also has what a rounded time puts after its end.
    """
    if events is None:
        return None
    second = np.floor((events if events.ndim == 1 else events[:, 0]) + SAME_TIME)
    kept = events[(second >= start) & ((second < stop) | last)].copy()
    if kept.ndim == 1:
        kept -= start
    else:
        kept[:, 0] -= start
    return kept
