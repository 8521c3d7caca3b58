"""Condition streams: the tokens that the latent frames cross-attend to.

Shape legend: B batch, T tokens, C token width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from diff_v2m.model.rotary import Rotary


class Stream(NamedTuple):
    """Tokens of one kind of condition, and the time at which each of them applies."""

    tokens: Tensor  # (B, T, C)
    mask: Tensor  # (B, T) bool, True = attend
    times: Tensor  # (T,) float32, seconds from the window's start; NaN: timeless
    rotary: Rotary | None = None  # of `times`, in time-aligned attention; None: the order is ignored, as released
    rate: float = 1.0  # timed tokens a second

    def drop(self, clips: Tensor) -> Stream:
        """Zero the tokens of these clips, (B,) bool."""
        return self._replace(tokens=self.tokens.masked_fill(clips[:, None, None], 0))

    def with_unconditional(self) -> Stream:
        """(B, …) → (2 B, …): the second half has zero tokens under the same mask, as released."""
        tokens = F.pad(self.tokens, (0, 0, 0, 0, 0, len(self.tokens)))  # (2 B, T, C)
        return self._replace(tokens=tokens, mask=self.mask.repeat(2, 1))


class Streams(NamedTuple):
    """The streams by name. None: the model has no such stream, or its fusion does not attend to it."""

    semantic: Stream
    rhythm: Stream | None
    color: Stream | None

    def present(self) -> list[Stream]:
        return [stream for stream in self if stream is not None]

    def map(self, change: Callable[[Stream], Stream]) -> Streams:
        """Change each present stream, in the order of the fields."""
        return Streams(*(None if stream is None else change(stream) for stream in self))


class Moments(NamedTuple):
    """Features of each moment, added to the latent frames of that time. None: not among the `aligned_cond_ids`."""

    grid: Tensor | None = None  # (B, N, 13) float32: rows of the beat grid at each latent frame
    motion: Stream | None = None  # tokens (B, R, 1): the level of motion, 0..1
    shots: Stream | None = None  # tokens (B, R, 12): features of the shot, see `shot_rows`

    def drop(self, clips: Tensor) -> Moments:
        """Zero everything of these clips, (B,) bool."""
        return Moments(
            None if self.grid is None else self.grid.masked_fill(clips[:, None, None], 0),
            None if self.motion is None else self.motion.drop(clips),
            None if self.shots is None else self.shots.drop(clips),
        )


NO_MOMENTS = Moments()


def drop_streams(streams: Streams, each: float, joint: float) -> tuple[Streams, Tensor | None]:
    """Condition dropout: drop each stream for a share `each` of the clips, then all streams for a share `joint`.

    The first is as released, drawn independently in the order semantic, rhythm, colour. The second is the state in
    which classifier-free guidance uses the network. Returns the clips (B,) bool that lost all streams, None for none.
    """
    tokens = streams.semantic.tokens

    def draw(share: float) -> Tensor:  # (B,) bool
        return torch.bernoulli(tokens.new_full((len(tokens),), share)).bool()

    if each > 0:
        streams = streams.map(lambda stream: stream.drop(draw(each)))
    if joint == 0:
        return streams, None
    clips = draw(joint)
    return streams.map(lambda stream: stream.drop(clips)), clips


def at_times(stream: Stream, times: Tensor) -> Tensor:
    """Tokens (B, T, C) of a stream, interpolated linearly at `times` (n,) seconds → (B, n, C).

    The first and last valid tokens are held outward as far as tokens are apart (one second, as released); beyond, the
    result is zero.
    Timeless and masked tokens have no effect.
    """
    distance = (times[:, None] - stream.times.nan_to_num(nan=math.inf)).abs()  # (n, T)
    weight = (1 - distance * stream.rate).clamp(min=0) * stream.mask[:, None]  # (B, n, T)
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1e-6)
    return weight.to(stream.tokens.dtype) @ stream.tokens
