"""Bootstrap intervals: the spread of a metric over resamples of the clips, drawn with replacement."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

LEVEL = 0.95


def interval(
    compute: Callable[..., float], sizes: Sequence[int], value: float, draws: int, seed: int, *, label: str = ""
) -> tuple[float, float] | None:
    """95 % interval around `value` = compute(arange(sizes[0]), arange(sizes[1]), …). None for fewer than 2 clips or
    draws.

    Every set is resampled. The draws give the width and `value` gives the centre. A resample holds about two thirds of
    the distinct clips. Distances between distributions grow with fewer clips, so the draws are biased upwards.
    """
    if min(sizes) < 2 or draws < 2:
        return None
    rng = np.random.default_rng(seed)
    found = [
        compute(*(rng.integers(0, size, size) for size in sizes))
        for _ in tqdm(range(draws), desc=f"bootstrap {label}", disable=None if label else True, leave=False)
    ]
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - np.mean(found) + value
    return float(low), float(high)


def mean_interval(values: Sequence[float], draws: int, seed: int) -> tuple[float, float] | None:
    """95 % percentile interval of the mean of one value a clip. The draws are unbiased for a mean, and keep a share
    between 0 and 1.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2 or draws < 2:
        return None
    found = values[np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
