"""`VideoFeatures`: the per-second features of a video that the model is conditioned on.

Index s describes the second [s, s + 1). S follows the length of the picture; the last second may be shorter.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diff_v2m.common.files import atomic

SEMANTIC_DIM = 512
COLOR_BINS = 32
COLOR_DIM = 3 * COLOR_BINS**2
SLIVER = 0.1  # seconds: a shorter remainder is dropped, since it comes from the container's rounding (29.97 fps · 900)


def seconds_of(duration: float) -> int:
    """S, the number of per-second features of a video of `duration` seconds: rounded up, without a last sliver."""
    return max(1, int(np.ceil(duration - SLIVER)))


@dataclass(frozen=True)
class VideoFeatures:
    """Per-second features of a video of S seconds."""

    semantic: np.ndarray  # (S, 512) float32, raw (not normalised) embeddings
    color: np.ndarray | None  # (S, 3072) float32, sums to 1 in each second; None if its folder has no colour
    scene_cut: np.ndarray  # (S,) int64, 1 where the second contains a cut
    pseudo_beats: np.ndarray  # (S,) float32 in [0, 1]
    duration: float  # seconds of picture

    def __len__(self) -> int:
        return len(self.semantic)

    def slice(self, start: int, stop: int) -> "VideoFeatures":
        """The features of the seconds [start, stop), as of a separate video."""
        stop = min(stop, len(self))
        return VideoFeatures(
            self.semantic[start:stop],
            None if self.color is None else self.color[start:stop],
            self.scene_cut[start:stop],
            self.pseudo_beats[start:stop],
            (self.duration if stop == len(self) else stop) - start,
        )

    def info(self) -> dict:
        """The clip's entry in videoInfo_30.json. The released files have no "duration"."""
        return {
            "scene_cut": self.scene_cut.tolist(),
            "pseudo_beats": [round(float(value), 6) for value in self.pseudo_beats],
            "duration": round(self.duration, 6),
        }

    def save(self, directory: str | Path, name: str) -> dict:
        """Write DIR/clip/NAME.npy and DIR/color/NAME.npy atomically. Returns the entry for DIR/videoInfo_30.json."""
        for folder, array in (("clip", self.semantic), ("color", self.color)):
            if array is not None:
                with atomic(Path(directory) / folder / f"{name}.npy") as part:
                    np.save(part, array.astype(np.float32))
        return self.info()
