"""How far a figure may be trusted: intervals from drawing the clips again with replacement."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

LEVEL = 0.95


def interval(
    statistic: Callable[..., float], sizes: Sequence[int], value: float, draws: int, seed: int, *, about: str = ""
) -> tuple[float, float] | None:
    """95 % interval around `value` = statistic(arange(sizes[0]), arange(sizes[1]), …); None where clips or draws < 2.

    Every set is drawn anew. The draws give the spread, `value` gives the place: a sample drawn with replacement holds
    only two thirds of the clips, and distances between distributions grow when there are fewer, so the draws
    themselves lie too high.
    """
    if min(sizes) < 2 or draws < 2:
        return None
    rng = np.random.default_rng(seed)
    found = [
        statistic(*(rng.integers(0, size, size) for size in sizes))
        for _ in tqdm(range(draws), desc=f"bootstrap {about}", disable=None if about else True, leave=False)
    ]
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - np.mean(found) + value
    return float(low), float(high)


def mean_interval(values: Sequence[float], draws: int, seed: int) -> tuple[float, float] | None:
    """95 % interval of the mean of one value a clip: of the draws as they are, which lie right for a mean and keep a
    share between 0 and 1."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2 or draws < 2:
        return None
    found = values[np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
