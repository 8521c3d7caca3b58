"""Features of the shot that a moment lies in: its mean motion, and the distances to its cuts.

In the released model a cut reaches the network only through the predicted rhythm.
"""

import numpy as np

LEVELS = np.linspace(0, 1, 6)  # of motion; a value lies between two of them
DECAYS = np.array([0.25, 1.0, 4.0])  # seconds


def find_shots(cut_times: np.ndarray, motion_level: np.ndarray, rate: int, duration: float) -> np.ndarray:
    """Cuts (n,) in seconds and the level of motion (R,) at `rate` rows a second → (k, 3): begin and end of each shot in
    seconds, in whole rows, and its mean level of motion.
    """
    count = min(len(motion_level), int(np.ceil(duration * rate - 1e-6)))
    starts = np.unique([0, *(int(row) for row in np.floor(cut_times * rate + 1e-6) if 0 < row < count)])
    ends = np.append(starts[1:], count)
    levels = [motion_level[first:last].mean() for first, last in zip(starts, ends, strict=True)]
    return np.stack([starts / rate, ends / rate, levels], axis=1)


def shot_rows(shots: np.ndarray, rate: int, rows: int) -> np.ndarray:
    """Shots (k, 3) → (rows, 12) float32, `rate` rows a second.

    The values of a row are the mean motion of its shot, as the weights of the two nearest LEVELS (6), and
    exp(-seconds / DECAYS) since the shot began (3) and until it ends (3), counted in rows.
    """
    starts, ends = np.round(shots[:, :2].T * rate).astype(int)
    row = np.arange(rows)
    place = np.clip(np.searchsorted(starts, row, side="right") - 1, 0, None)
    spread = np.clip(1 - np.abs(shots[place, 2, None] - LEVELS) * (len(LEVELS) - 1), 0, None)  # (rows, 6)
    distances = (row - starts[place], np.maximum(ends[place] - 1 - row, 0))
    near = [np.exp(-distance[:, None] / (DECAYS * rate)) for distance in distances]
    return np.concatenate([spread, *near], axis=1).astype(np.float32)
