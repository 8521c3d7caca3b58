"""The result of a metric: its value, interval, real value and chance level."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal


class NotComputed(Exception):
    """A metric cannot be computed here. The message says why and what to do; the report shows it instead of a value."""


@dataclass(frozen=True)
class SetStatistic:
    """How a metric of whole sets is computed from a resample of the clips; comparisons of two systems use it.

    compute         indices into `clips` and, where `reference_size` > 0, indices into the reference → value
    reference_size  number of reference clips; 0 where the metric takes none
    """

    clips: Sequence[str]
    compute: Callable[..., float]
    reference_size: int = 0


@dataclass(frozen=True)
class MetricResult:
    """A metric: `value`, or None where `not_computed` gives a reason.

    interval   95 % bootstrap interval over clips; None for fewer than two clips
    real       value of real music, and `real_is`: how it was obtained
    chance     value of a meaningless pairing, and `chance_is`: which one
    per_clip   one value a clip: of the reference clips for coverage and recall, else of the generated ones. None where
               the metric is undefined for a clip; such a clip does not count in n
    statistic  for a value that is not a mean over clips: computes it for a resample. Not written to the report
    """

    id: str
    name: str
    value: float | None = None
    unit: str = ""
    better: Literal["lower", "higher", ""] = ""
    n: int = 0
    interval: tuple[float, float] | None = None
    real: float | None = None
    real_is: str = ""
    chance: float | None = None
    chance_is: str = ""
    per_clip: Mapping[str, float | None] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    not_computed: str = ""
    statistic: SetStatistic | None = None

    def as_json(self) -> dict[str, Any]:
        return rounded({f.name: getattr(self, f.name) for f in fields(self) if f.name != "statistic"})


def not_computed(id: str, name: str, reason: object) -> MetricResult:
    return MetricResult(id, name, not_computed=str(reason))


def rounded(value: Any) -> Any:
    """Round floats to six significant digits, at any depth. NaN and infinity become None, which JSON can hold."""
    match value:
        case float():
            return float(f"{value:.6g}") if math.isfinite(value) else None
        case Mapping():
            return {str(key): rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [rounded(item) for item in value]
        case _:
            return value
