"""The beat grid and key of a piece as features of each latent frame: what the network's condition `grid` is.

A row has 17 numbers: sine and cosine of the phase in the beat and in the bar, the tonic one-hot, 1 for a minor third.
"""

import numpy as np

from diff_v2m.config import GRID_DIM
from diff_v2m.score.score import BeatGrid, Key


def grid_rows(grid: BeatGrid, key: Key, *, frames: int, rate: float, start: float = 0.0) -> np.ndarray:
    """(frames, 17) float32: at the middle of each of the frames, `rate` a second, from `start` seconds on."""
    beats = grid.position(start + (np.arange(frames) + 0.5) / rate)
    angles = 2 * np.pi * np.stack([beats, beats / grid.beats_per_bar], axis=1)
    rows = np.zeros((frames, GRID_DIM), np.float32)
    rows[:, 0:4:2], rows[:, 1:4:2] = np.sin(angles), np.cos(angles)
    rows[:, 4 + key.tonic] = 1
    rows[:, 16] = key.minor_third
    return rows
