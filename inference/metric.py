"""One figure of a report: a number with everything that is needed to believe it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal


class NotComputed(Exception):
    """A metric cannot be had here; the message says why and what to do. It is reported in place of a number."""


@dataclass(frozen=True)
class Sample:
    """How a figure of whole sets is found again from other clips of them, for comparing two systems.

    statistic  indices into `clips` and, where there are `others`, indices into the other set → the figure's value
    """

    clips: Sequence[str]
    statistic: Callable[..., float]
    others: int = 0  # size of the other set; 0: there is none


@dataclass(frozen=True)
class Figure:
    """`value` is None exactly where `not_computed` says why.

    interval  95 % bootstrap interval over clips; None for fewer than two
    real      what real music gets by the same measure, and `real_is` how that was found
    chance    what a pairing without meaning gets, and `chance_is` which one
    per_clip  the clips' own values (the reference's for coverage and recall, else those of the generated); None where
              the measure is undefined for a clip, which then does not count in n
    sample    where the value is no mean of independent clips: how to find it again; not written into the report
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
    sample: Sample | None = None

    def as_json(self) -> dict[str, Any]:
        return rounded({f.name: getattr(self, f.name) for f in fields(self) if f.name != "sample"})


def not_computed(id: str, name: str, reason: object) -> Figure:
    return Figure(id, name, not_computed=str(reason))


def rounded(value: Any) -> Any:
    """Floats to six significant digits, not a number and infinity to None, so that JSON can hold them; at any depth."""
    match value:
        case float():
            return float(f"{value:.6g}") if math.isfinite(value) else None
        case Mapping():
            return {str(key): rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [rounded(item) for item in value]
        case _:
            return value
