"""Spans of a clip that are composed again: how they are written and checked. No torch is imported here."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from diff_v2m.common.errors import InputError

SHORTEST = 1.0  # seconds of a span
_TIME = re.compile(r"(?:(\d+):)?(?:(\d+):)?(\d+(?:\.\d+)?)")


class Span(NamedTuple):
    """Seconds [start, stop) of a clip."""

    start: float
    stop: float

    def __str__(self) -> str:
        return f"{clock(self.start)}-{clock(self.stop)}"


def clock(seconds: float) -> str:
    """Format 75.5 as 1:15.5, and an hour as 1:00:00."""
    whole, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(whole), 60)
    end = f"{rest:06.3f}".rstrip("0").rstrip(".")
    return f"{hours}:{minutes:02d}:{end}" if hours else f"{minutes}:{end}"


def parse_spans(text: str) -> tuple[Span, ...]:
    """Read "12-20", "0:12-0:20.5" or "1:02:00-1:02:30,1:10:00-1:10:12". Raises ValueError with the reason."""
    spans = []
    for part in text.split(","):
        ends = part.strip().split("-")
        if len(ends) != 2:
            raise ValueError(f"{part.strip()!r}: expected START-STOP, as in 0:12-0:20")
        spans.append(Span(*(_seconds(end.strip()) for end in ends)))
    return tuple(spans)


def _seconds(text: str) -> float:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r}: expected a time such as 72, 1:12.5 or 1:01:12")
    first, second, rest = found.groups()
    hours, minutes = (first, second) if second is not None else (0, first)
    if first is not None and float(rest) >= 60 or second is not None and int(second) >= 60:
        raise ValueError(f"{text!r}: minutes and seconds go up to 59")
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(rest)


def check_spans(spans: Sequence[Span], duration: float, name: str) -> tuple[Span, ...]:
    """The spans in order, the last one cut at the end of the clip. InputError if one is empty, outside or overlaps."""
    if not spans:
        raise InputError(f"{name}: no span to compose again; give one such as 0:12-0:20")
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, span.stop)):
        if not (math.isfinite(span.start) and math.isfinite(span.stop)):
            raise InputError(f"{name}: span {span.start:g}-{span.stop:g}: expected two times in seconds")
        if span.start < 0 or span.stop > math.ceil(duration) or span.start >= duration:
            raise InputError(f"{name}: span {span} is outside the video, which lasts {clock(duration)}")
        span = Span(span.start, min(span.stop, duration))
        if span.stop - span.start < SHORTEST:
            raise InputError(f"{name}: span {span} is too short; expected at least {SHORTEST:g} s, its start first")
        if kept and span.start < kept[-1].stop:
            raise InputError(f"{name}: spans {kept[-1]} and {span} overlap; join them or move one")
        kept.append(span)
    return tuple(kept)
