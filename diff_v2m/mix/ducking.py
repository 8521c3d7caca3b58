"""The gain of music that goes down under speech and comes back in the gaps.

The gain is a curve in dB that moves by at most 6 dB a second, and never while somebody speaks: it is down .3 s before
the first word and stays there for .5 s after the last. The way down begins as early as it has to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from diff_v2m.mix.spans import Span

LOOK_AHEAD = 0.3  # s before speech
HOLD = 0.5  # s after speech
RELEASE = 1.0  # s that the way up takes at least
SLOPE = 6.0  # dB a second at most
PLATEAU = 1.0  # s for which the gain stays up in a gap; anything shorter is heard as pumping
_GRID = 0.01  # s


@dataclass(frozen=True)
class GainCurve:
    """Gain over time: straight lines in dB between knots, level before the first and after the last."""

    times: tuple[float, ...]  # s
    decibels: tuple[float, ...]

    def __call__(self, start: int, stop: int, sample_rate: int) -> np.ndarray:
        """(stop - start,) float64: ratios for the samples [start, stop)."""
        if len(self.times) == 1:
            return np.full(stop - start, 10 ** (self.decibels[0] / 20))
        return np.power(10.0, np.interp(np.arange(start, stop) / sample_rate, self.times, self.decibels) / 20)


@dataclass(frozen=True)
class Region:
    """Seconds [start, stop) with one gain, and the speech in them."""

    start: float
    stop: float
    speech: tuple[Span, ...]
    level: float  # dB


def regions_of(spans: Sequence[Span], level_of: Callable[[Sequence[Span]], float]) -> list[Region]:
    """Speech with look-ahead and hold, each region at the gain in dB that `level_of` gives for its speech.

    Regions that touch become one. So do regions between which the gain has no time to get from one to the other.
    """
    regions: list[Region] = []
    for span in spans:
        region = Region(max(0.0, span.start - LOOK_AHEAD), span.stop + HOLD, (span,), level_of([span]))
        while regions and _too_close(regions[-1], region):
            before = regions.pop()
            speech = before.speech + region.speech
            region = Region(before.start, max(before.stop, region.stop), speech, level_of(speech))
        regions.append(region)
    return regions


def _too_close(before: Region, after: Region) -> bool:
    return abs(after.level - before.level) >= SLOPE * (after.start - before.stop - 2 * _GRID)


def duck(regions: Sequence[Region], top: float, duration: float) -> GainCurve:
    """The curve that has each region's level in it, and between regions rises as far as time allows, up to `top` dB."""
    count = math.ceil(duration / _GRID) + 1
    wanted = np.full(count, float(top))
    rise, fall = np.full(count, SLOPE * _GRID), np.full(count, SLOPE * _GRID)  # dB at most, from the point before
    end, levels = 0, [min(region.level, top) for region in regions]
    for number, region in enumerate(regions):
        start, stop = math.floor(region.start / _GRID), min(math.ceil(region.stop / _GRID) + 1, count)
        beside = levels[max(0, number - 1) : number + 1]
        wanted[end:start] = _highest(beside, top, (start - end) * _GRID)
        wanted[start:stop] = levels[number]
        if number and levels[number] > levels[number - 1]:  # the next speech may not leave the whole release
            rise[end : start + 1] = np.maximum(rise[end], (levels[number] - levels[number - 1]) / (start + 1 - end))
        rise[start + 1 : stop] = fall[start + 1 : stop] = 0
        rise[stop:] = min(SLOPE, (top - levels[number]) / RELEASE) * _GRID
        end = stop
    if regions:
        wanted[end:] = _highest(levels[-1:], top, (count - end) * _GRID)
    backwards = _lower_envelope(wanted[::-1], np.append(0.0, fall[:0:-1]))
    return _with_few_knots(np.arange(count) * _GRID, _lower_envelope(backwards[::-1], rise))


def _highest(beside: Sequence[float], top: float, seconds: float) -> float:
    """How high the gain may rise in a gap, next to one or two regions, so that it stays up for a while."""
    return min(top, max(beside) + SLOPE * max(0.0, seconds - PLATEAU) / len(beside))


def _lower_envelope(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The largest curve at or below the values that rises by at most `steps[i]` from point i - 1 to point i."""
    climbed = np.cumsum(steps)
    return np.minimum.accumulate(values - climbed) + climbed


def _with_few_knots(times: np.ndarray, gain: np.ndarray) -> GainCurve:
    """Only the points at which the curve bends."""
    bends = np.abs(np.diff(gain, n=2)) > 1e-9
    kept = np.flatnonzero(np.concatenate([[True], bends, [True]])) if bends.any() else np.array([0, len(gain) - 1])
    return GainCurve(tuple(times[kept].tolist()), tuple(gain[kept].tolist()))
