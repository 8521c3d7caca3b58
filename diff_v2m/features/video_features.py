"""`VideoFeatures`: what the model receives of a video, one row a second.

Row s describes the second [s, s + 1). The number of rows follows the picture's real length; the last row may describe
less than a second.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diff_v2m.common.files import atomic

SEMANTIC_DIM = 512
COLOR_BINS = 32
COLOR_DIM = 3 * COLOR_BINS**2
SLIVER = 0.1  # seconds: a shorter remainder is rounding by the container (29.97 fps · 900), not a row of its own


def rows(duration: float) -> int:
    """How many rows a video of so many seconds has: every second begun, but for a last sliver."""
    return max(1, int(np.ceil(duration - SLIVER)))


@dataclass(frozen=True)
class VideoFeatures:
    """What the model sees of a video: S rows, one a second."""

    semantic: np.ndarray  # (S, 512) float32, raw (not normalised) embeddings
    color: np.ndarray | None  # (S, 3072) float32, each row sums to 1; None only when a folder without colour is read
    scene_cut: np.ndarray  # (S,) int64, 1 where the second contains a cut
    pseudo_beats: np.ndarray  # (S,) float32 in [0, 1]
    duration: float  # seconds of picture

    def __len__(self) -> int:
        return len(self.semantic)

    def slice(self, start: int, stop: int) -> "VideoFeatures":
        """The whole seconds [start, stop), as if they were a video of their own."""
        stop = min(stop, len(self))
        return VideoFeatures(
            self.semantic[start:stop],
            None if self.color is None else self.color[start:stop],
            self.scene_cut[start:stop],
            self.pseudo_beats[start:stop],
            (self.duration if stop == len(self) else stop) - start,
        )

    def info(self) -> dict:
        """The clip's entry in videoInfo_30.json ("duration" is ours: the released files have the other two)."""
        return {
            "scene_cut": self.scene_cut.tolist(),
            "pseudo_beats": [round(float(value), 6) for value in self.pseudo_beats],
            "duration": round(self.duration, 6),
        }

    def save(self, directory: str | Path, name: str) -> dict:
        """Write DIR/clip/NAME.npy and DIR/color/NAME.npy atomically; returns the entry for DIR/videoInfo_30.json."""
        for folder, array in (("clip", self.semantic), ("color", self.color)):
            if array is not None:
                with atomic(Path(directory) / folder / f"{name}.npy") as part:
                    np.save(part, array.astype(np.float32))
        return self.info()
