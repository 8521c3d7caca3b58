"""Attention, feed-forward, and the two stacks built of them.

`HierarchicalTransformer` is the generator's stack: self-attention, cross-attention to colour, semantics and rhythm.
`Encoder` is the plain stack of the rhythm predictor.

Shape legend: B batch, T tokens, D model width, C context width, H heads.
Attribute names are the released checkpoint's; `HierarchicalBlock` explains those that do not say what they hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from diff_v2m.model.fusion import Fusion
from diff_v2m.model.rotary import Rotary, RotaryEmbedding
from diff_v2m.model.streams import Stream, Streams

# --- parts -------------------------------------------------------------------------------------------------------


class LayerNorm(nn.Module):
    """Layer normalisation with a learned gain; the bias is a stored zero, as released."""

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.register_buffer("beta", torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weight=self.gamma, bias=self.beta, eps=1e-5)


class SelfAttention(nn.Module):
    """Every token attends to every token: (B, T, D) → (B, T, D). The output projection starts at zero."""

    def __init__(self, dim: int, head_dim: int):
        super().__init__()
        self.head_dim = head_dim
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = zero_linear(dim, dim, bias=False)

    def forward(self, x: Tensor, rotary: Rotary, mask: Tensor | None = None) -> Tensor:
        qkv = _split_heads(self.to_qkv(x), self.head_dim)  # (B, 3 H, T, head)
        qk, v = qkv.tensor_split((2 * qkv.shape[1] // 3,), dim=1)
        q, k = rotary(qk).chunk(2, dim=1)  # (B, H, T, head) each, like v
        return self.to_out(_attend(q, k, v, mask[:, None, None] if mask is not None else None))


class KeysValues(NamedTuple):
    """A stream as one cross-attention attends to it: computed once per clip, used at every step."""

    keys: Tensor  # (B, H, T, head)
    values: Tensor  # (B, H, T, head)
    mask: Tensor  # (B, 1, 1, T) bool


class CrossAttention(nn.Module):
    """Latent tokens (B, T, D) attend to a stream → (B, T, D).

    Keys and values keep the stream's width C; each of their heads serves D / C heads of queries. There is no bias
    anywhere, so attention to zero tokens is exactly zero.
    """

    def __init__(self, dim: int, context_dim: int, head_dim: int):
        super().__init__()
        self.head_dim = head_dim
        self.groups = dim // context_dim
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(context_dim, 2 * context_dim, bias=False)
        self.to_out = zero_linear(dim, dim, bias=False)

    def keys_values(self, stream: Stream) -> KeysValues:
        k, v = (_split_heads(part, self.head_dim) for part in self.to_kv(stream.tokens).chunk(2, dim=-1))
        k = stream.rotary(k) if stream.rotary is not None else k  # (B, C / head, T, head)
        k, v = (part.repeat_interleave(self.groups, dim=1) for part in (k, v))  # (B, H, T, head)
        return KeysValues(k, v, stream.mask[:, None, None])

    def forward(self, x: Tensor, stream: KeysValues, rotary: Rotary | None = None) -> Tensor:
        """Clips of x beyond those of the stream are unconditional: their output is zero and is not computed."""
        conditional = len(stream.keys)
        q = _split_heads(self.to_q(x[:conditional]), self.head_dim)  # (B, H, T, head)
        q = rotary(q) if rotary is not None else q
        out = self.to_out(_attend(q, *stream))  # (B, T, D)
        return F.pad(out, (0, 0, 0, 0, 0, len(x) - conditional)) if conditional < len(x) else out


class FeedForward(nn.Module):
    """SwiGLU, four times as wide inside: (B, T, D) → (B, T, D). The second projection starts at zero."""

    def __init__(self, dim: int):
        super().__init__()
        self.ff = nn.Sequential(SwiGLU(dim, 4 * dim), nn.Identity(), zero_linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.ff(x)


class SwiGLU(nn.Module):
    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.proj = nn.Linear(dim, 2 * dim_out)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        if torch.is_grad_enabled():
            return value * F.silu(gate)
        return value.mul_(F.silu(gate, inplace=True))  # in place: halves the memory of the widest tensor


class FourierFeatures(nn.Module):
    """t (B,) → cosines and sines at random frequencies, (B, dim) float32."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim // 2, 1))

    def forward(self, t: Tensor) -> Tensor:
        phases = 2 * math.pi * t.float()[:, None] @ self.weight.float().T
        return torch.cat([phases.cos(), phases.sin()], dim=-1)


def zero_linear(dim: int, dim_out: int, bias: bool = True) -> nn.Linear:
    linear = nn.Linear(dim, dim_out, bias=bias)
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
    return linear


def _split_heads(x: Tensor, head_dim: int) -> Tensor:
    """(B, T, H·head) → (B, H, T, head)."""
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention over (B, H, T, head), mask (B, 1, 1, T) over the keys → (B, T, H·head)."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


# --- stacks ------------------------------------------------------------------------------------------------------


class LayerKeysValues(NamedTuple):
    """Keys and values of the streams in one layer. None: the layer does not attend to the stream."""

    semantic: KeysValues
    rhythm: KeysValues | None
    color: KeysValues | None


class HierarchicalBlock(nn.Module):
    """One layer of the generator: x (B, T, D), time t (B,), keys and values of the streams → x.

    As released, where the norms between self-attention and fusion overwrite the residual stream:

        x ─┬─ pre_norm ─ self_attn ─(+)─ cross_attend_norm ─┬─ cross_attn0 ─(+)─ color_norm ─┬─ FUSION ─(+)─ … ff
           └─────────────────────────┘                      └────────────────┘               └───────────┘

    Corrected (`pre_norm: true`), as the paper draws it; with every branch at zero the block is the identity:

        x ─┬─ pre_norm ─ self_attn ─(+)─┬─ color_norm ─ cross_attn0 ─(+)─┬─ cross_attend_norm ─ FUSION ─(+)─ … ff
           └─────────────────────────┘  └─────────────────────────────┘  └──────────────────────────────┘

    and in both    … ─┬─ ff_norm ─ ff ─(+)─ x        FUSION = fuse(cross_attn1 → s, cross_attn2 → r, t), see fusion.py.
                      └─────────────────┘

    Released names: cross_attn0 attends to the colour slot, cross_attn1 to semantics, cross_attn2 to rhythm.
    FiLM_{gamma,beta}_{sem,rhy} scale and shift the outputs of cross_attn1 and cross_attn2; t_linear embeds t for them.
    gate weighs the two in the gated fusions.
    """

    def __init__(
        self, dim: int, head_dim: int, context_dim: int, fusion: Fusion, *, pre_norm: bool, fusion_switch_t: float
    ):
        super().__init__()
        self.fusion = fusion
        self.fusion_switch_t = fusion_switch_t
        self.cross_attend = self._cross_attend_pre_norm if pre_norm else self._cross_attend_as_released

        self.pre_norm = LayerNorm(dim)
        self.self_attn = SelfAttention(dim, head_dim)
        self.cross_attend_norm = LayerNorm(dim)
        self.cross_attn0 = CrossAttention(dim, context_dim, head_dim)
        self.cross_attn1 = CrossAttention(dim, context_dim, head_dim)
        self.cross_attn2 = CrossAttention(dim, context_dim, head_dim)
        self.color_norm = LayerNorm(dim)
        self.ff_norm = LayerNorm(dim)
        self.ff = FeedForward(dim)
        for name, layer in fusion.layers(dim, context_dim).items():
            self.add_module(name, layer)

    def keys_values(self, streams: Streams) -> LayerKeysValues:
        return LayerKeysValues(
            self.cross_attn1.keys_values(streams.semantic),
            self.cross_attn2.keys_values(streams.rhythm) if streams.rhythm is not None else None,
            self.cross_attn0.keys_values(streams.color) if streams.color is not None else None,
        )

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        streams: LayerKeysValues,
        rotary: Rotary,
        time_rotary: Rotary | None = None,
        fusion: Fusion | None = None,
    ) -> Tensor:
        """rotary: token numbers, for self-attention. time_rotary: seconds, for the queries of time-aligned
        cross-attention. fusion: fusion to use instead of the configured one, already resolved for this t.
        """
        x = x + self.self_attn(self.pre_norm(x), rotary)  # (B, T, D)
        x = self.cross_attend(x, t, streams, time_rotary, fusion or self.fusion)  # (B, T, D)
        return x + self.ff(self.ff_norm(x))  # (B, T, D)

    def _cross_attend_as_released(
        self, x: Tensor, t: Tensor, streams: LayerKeysValues, time_rotary: Rotary | None, fusion: Fusion
    ) -> Tensor:
        x = self.cross_attend_norm(x)
        if streams.color is not None:
            x = self.color_norm(x + self.cross_attn0(x, streams.color, time_rotary))
        return x + self.fuse(x, t, streams, time_rotary, fusion)

    def _cross_attend_pre_norm(
        self, x: Tensor, t: Tensor, streams: LayerKeysValues, time_rotary: Rotary | None, fusion: Fusion
    ) -> Tensor:
        if streams.color is not None:
            x = x + self.cross_attn0(self.color_norm(x), streams.color, time_rotary)
        return x + self.fuse(self.cross_attend_norm(x), t, streams, time_rotary, fusion)

    def fuse(
        self, x: Tensor, t: Tensor, streams: LayerKeysValues, time_rotary: Rotary | None, fusion: Fusion
    ) -> Tensor:
        """The fused contribution of semantics and rhythm to the residual stream, (B, T, D)."""
        s = self.cross_attn1(x, streams.semantic, time_rotary) if fusion.semantic else None
        r = self.cross_attn2(x, streams.rhythm, time_rotary) if fusion.rhythm else None
        return fusion.combine(self, s, r, t)


class HierarchicalTransformer(nn.Module):
    """The generator's stack: latent tokens (B, T, latent) → (B, T, latent). A global token goes in front."""

    def __init__(
        self,
        dim_in: int,
        dim: int,
        depth: int,
        heads: int,
        context_dim: int,
        fusion: Fusion,
        *,
        pre_norm: bool,
        fusion_switch_t: float,
    ):
        super().__init__()
        self.head_dim = dim // heads
        self.gradient_checkpointing = False  # recompute layers in the backward pass: less memory, a third slower
        self.fusion = fusion
        self.fusion_switch_t = fusion_switch_t
        self.project_in = nn.Linear(dim_in, dim, bias=False)
        self.rotary_pos_emb = RotaryEmbedding(self.head_dim)
        options: dict[str, Any] = {"pre_norm": pre_norm, "fusion_switch_t": fusion_switch_t}
        self.layers = nn.ModuleList(
            HierarchicalBlock(dim, self.head_dim, context_dim, fusion, **options) for _ in range(depth)
        )
        self.project_out = nn.Linear(dim, dim_in, bias=False)

    def keys_values(self, streams: Streams, t: Tensor | None = None) -> list[LayerKeysValues]:
        """Keys and values of every layer. They depend on t (B,) only where FiLM modulates the streams."""
        layers = []
        for layer in self.layers:
            streams = self.fusion.modulate(layer, streams, t)
            layers.append(layer.keys_values(streams))
        return layers

    def fusion_at(self, t: Tensor) -> Fusion:
        """The branch of a hard fusion if all of t (B,), on the CPU, select the same; otherwise the fusion itself."""
        above = set((t > self.fusion_switch_t).tolist())
        return self.fusion.sides[above.pop()] if self.fusion.sides and len(above) == 1 else self.fusion

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        global_token: Tensor,
        layers: Sequence[LayerKeysValues],
        *,
        rotary: Rotary,
        time_rotary: Rotary | None = None,
        aligned: Tensor | None = None,
        fusion: Fusion | None = None,
    ) -> Tensor:
        """x (B, T, latent), t (B,), global_token (B, D), keys and values by layer, rotary tables of 1 + T tokens,
        aligned (B, T, D) → (B, T, latent). Clips beyond those of `layers` and `aligned` are unconditional.
        """
        x = self.project_in(x)  # (B, T, D)
        if aligned is not None:
            x = x + F.pad(aligned, (0, 0, 0, 0, 0, len(x) - len(aligned)))
        x = torch.cat([global_token[:, None], x], dim=1)  # (B, 1 + T, D)
        for layer, streams in zip(self.layers, layers, strict=True):
            if self.gradient_checkpointing and self.training:
                x = checkpoint(layer, x, t, streams, rotary, time_rotary, fusion, use_reentrant=False)
            else:
                x = layer(x, t, streams, rotary, time_rotary, fusion)
        return self.project_out(x[:, 1:])  # (B, T, latent)


class EncoderBlock(nn.Module):
    """x + self_attn(pre_norm(x)), then x + ff(ff_norm(x))."""

    def __init__(self, dim: int, head_dim: int):
        super().__init__()
        self.pre_norm = LayerNorm(dim)
        self.self_attn = SelfAttention(dim, head_dim)
        self.ff_norm = LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, x: Tensor, rotary: Rotary, mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.pre_norm(x), rotary, mask)
        return x + self.ff(self.ff_norm(x))


class Encoder(nn.Module):
    """A bidirectional transformer: (B, T, dim_in) → (B, T, dim_out); masked keys are not attended to."""

    def __init__(self, dim_in: int, dim: int, dim_out: int, depth: int, heads: int):
        super().__init__()
        self.project_in = nn.Linear(dim_in, dim, bias=False)
        self.rotary_pos_emb = RotaryEmbedding(dim // heads)
        self.layers = nn.ModuleList(EncoderBlock(dim, dim // heads) for _ in range(depth))
        self.project_out = nn.Linear(dim, dim_out, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.project_in(x)  # (B, T, D)
        rotary = self.rotary_pos_emb(x.shape[1])
        for layer in self.layers:
            x = layer(x, rotary, mask)
        return self.project_out(x)
