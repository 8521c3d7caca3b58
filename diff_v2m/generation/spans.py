"""Spans of a clip that are composed again: how they are written, which latents they free, where their sound joins."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from diff_v2m.common.errors import InputError
from diff_v2m.features import rhythm

SHORTEST = 1.0  # seconds of a span
SOFT = 0.5  # seconds at either edge over which latents pass from kept to new
REACH = 0.25  # seconds inside a span in which its sound joins the rest, on the strongest onset
FADE = 0.01  # seconds of the crossfade, which ends with the onset
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


def free_share(spans: Sequence[Span], frames: int, rate: float, duration: float) -> torch.Tensor:
    """(frames,) float32: 1 inside the spans, 0 outside, a line of SOFT seconds inside each edge.

    An edge at the start or at the end of the clip is not soft, and a span that reaches the end frees what follows.
    """
    middle = (np.arange(frames) + 0.5) / rate
    share = np.zeros(frames)
    for span in spans:
        stop = np.inf if span.stop >= duration else span.stop
        start = -np.inf if span.start <= 0 else span.start
        share = np.maximum(share, np.clip(np.minimum(middle - start, stop - middle) / SOFT, 0, 1))
    return torch.from_numpy(share.astype(np.float32))


def splice_share(
    spans: Sequence[Span], new: np.ndarray, old: np.ndarray, sample_rate: int, duration: float
) -> tuple[np.ndarray, list[float]]:
    """(samples,) float32, 1 where the new music sounds, and the seconds of the joins.

    A join lies inside the span, at most REACH from its edge, on the strongest onset there of what sounds after it: the
    new music (channels, samples) at the start of a span, the old music at its end.
    """
    share, joins = np.zeros(new.shape[1], np.float32), []
    length = max(1, round(FADE * sample_rate))
    for span in spans:
        first, last = 0, new.shape[1]
        if span.start > 0:
            first = _onset(new, sample_rate, span.start + FADE, span.start + REACH)
            joins.append(first / sample_rate)
        if span.stop < duration:
            last = _onset(old, sample_rate, span.stop - REACH + FADE, span.stop)
            joins.append(last / sample_rate)
        share[first:last] = 1
        if span.start > 0:
            share[first - length : first] = np.linspace(0, 1, length + 2)[1:-1]
        if span.stop < duration:
            share[last - length : last] = np.linspace(1, 0, length + 2)[1:-1]
    return share, joins


def _onset(audio: np.ndarray, sample_rate: int, first: float, last: float) -> int:
    """The sample at which the strongest onset between two times begins; the middle if there is none."""
    margin = 0.5  # seconds of sound before, so that the curve's own start is not an onset
    begin = max(0, round((first - margin) * sample_rate))
    piece = torch.from_numpy(np.ascontiguousarray(audio[:, begin : round((last + margin) * sample_rate)].mean(axis=0)))
    curve = rhythm.onset_strength(piece, sample_rate).numpy()
    hop = rhythm.scaled_hop(rhythm.HOP, sample_rate)
    times = (begin + np.arange(len(curve)) * hop) / sample_rate
    inside = np.flatnonzero((times >= first) & (times <= last))
    if not len(inside) or curve[inside].max() <= 0:
        return round((first + last) / 2 * sample_rate)
    return round(times[inside[curve[inside].argmax()]] * sample_rate)
