"""Rotary positions: by token number in self-attention, by time in seconds in cross-attention.

Shape legend: B batch, H heads, T tokens, R rotated dimensions of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

SLOWEST_PERIOD = 120.0  # seconds, of time-aligned attention


class Rotary(NamedTuple):
    """Rotation of the first R dimensions of each head, by token."""

    cos: Tensor  # (T, R/2)
    sin: Tensor  # (T, R/2)

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate x (B, H, T, head) in float32, dimension i with i + R/2; dimensions from R on pass through."""
        half = self.cos.shape[-1]
        first, second, rest = x.float().split([half, half, x.shape[-1] - 2 * half], dim=-1)
        turned = first * self.cos - second * self.sin, second * self.cos + first * self.sin
        return torch.cat([*turned, rest], dim=-1).to(x.dtype)


class RotaryEmbedding(nn.Module):
    """Positions 0, 1, 2, … for self-attention: half of each head (at least 32 dimensions) rotates, base 10000."""

    def __init__(self, head_dim: int):
        super().__init__()
        dims = min(max(head_dim // 2, 32), head_dim)
        self.register_buffer("inv_freq", 1.0 / 10000.0 ** (torch.arange(0, dims, 2).float() / dims))

    def forward(self, tokens: int) -> Rotary:
        positions = torch.arange(tokens, device=self.inv_freq.device, dtype=torch.float32)
        angles = positions[:, None] * self.inv_freq.float()
        return Rotary(angles.cos(), angles.sin())


def time_rotary(seconds: Tensor, head_dim: int, fastest: float) -> Rotary:
    """Positions in seconds, common to queries and keys, for time-aligned cross-attention.

    Corrected: the released condition tokens carry no time. `seconds` (T,) are token times; NaN is a timeless token.
    Half of each head rotates, with periods spaced geometrically from `fastest` (so that neighbouring seconds differ)
    to SLOWEST_PERIOD. The rotated half of a timeless token is zero: it attends and is attended to through the
    other half, at all times alike.
    """
    pairs = max(head_dim // 4, 1)
    periods = fastest * (SLOWEST_PERIOD / fastest) ** torch.linspace(0, 1, pairs, device=seconds.device)
    angles = seconds.float().nan_to_num()[:, None] * (2 * torch.pi / periods)
    timed = (~seconds.isnan())[:, None]  # (T, 1)
    return Rotary(angles.cos() * timed, angles.sin() * timed)
