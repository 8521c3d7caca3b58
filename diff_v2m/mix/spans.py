"""Spans of seconds, and the hops of a loudness meter that lie in them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from diff_v2m.media.metering import POWER_HOP


class Span(NamedTuple):
    """Seconds [start, stop)."""

    start: float
    stop: float


def hops_inside(spans: Iterable[Span], count: int) -> np.ndarray:
    """(count,) bool: which hops of a meter lie in a span; of a span that holds none, the one in its middle."""
    inside = np.zeros(count, bool)
    for start, stop in spans:
        first, last = math.ceil(start / POWER_HOP - 1e-6), math.floor(stop / POWER_HOP + 1e-6)
        if first >= last:
            first = int((start + stop) / 2 / POWER_HOP)
            last = first + 1
        inside[first:last] = True
    return inside


def seconds_of(spans: Iterable[Span]) -> float:
    return sum(stop - start for start, stop in spans)
