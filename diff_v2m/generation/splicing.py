"""Which latents spans free, and where their new sound joins the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from diff_v2m.common.scratch import TEMPORARY, Scratch
from diff_v2m.features import rhythm
from diff_v2m.generation.spans import Span

SOFT = 0.5  # seconds inside either edge over which latents pass from kept to new
REACH = 0.25  # seconds inside a span in which its sound joins the rest, on the strongest onset
FADE = 0.01  # seconds of the crossfade, which ends with the onset


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
    spans: Sequence[Span],
    new: np.ndarray,
    old: np.ndarray,
    sample_rate: int,
    duration: float,
    scratch: Scratch = TEMPORARY,
) -> tuple[np.ndarray, list[float]]:
    """(samples,) float32, 1 where the new music sounds, and the seconds of the joins. scratch: where it lies if long.

    A join lies inside the span, at most REACH from its edge, on the strongest onset there of what sounds after it: the
    new music (channels, samples) at the start of a span, the old music at its end.
    """
    share, joins = scratch.zeros(new.shape[1]), []
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
