"""Fusion of semantics and rhythm in a block: one entry of `FUSIONS` for each `attention_weight_type`.

s and r (B, T, D) are the outputs of the cross-attentions to semantics and to rhythm; t (B,) is the diffusion time,
1 = noise. FiLM scales and shifts either s and r or, in "preFiLM", the streams before they are attended to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from diff_v2m.model.streams import Streams


class FusionLayers(Protocol):
    """Layers of a block that a fusion may use. A block has those that `Fusion.layers` names."""

    fusion_switch_t: float
    t_linear: nn.Module  # t → (B, 64)
    FiLM_gamma_sem: nn.Module  # (B, 1, 64) → (B, 1, D), in 0..1
    FiLM_beta_sem: nn.Module
    FiLM_gamma_rhy: nn.Module
    FiLM_beta_rhy: nn.Module
    gate: nn.Module  # t → (B, 1)


@dataclass(frozen=True)
class Fusion:
    """The layers of one fusion, its formula, and the streams that it attends to."""

    combine: Callable[[FusionLayers, Tensor, Tensor, Tensor], Tensor]  # (block, s, r, t) → (B, T, D)
    film: str | None = None  # what FiLM modulates: "outputs" (s and r) or "contexts" (the streams)
    gated: bool = False
    semantic: bool = True
    rhythm: bool = True
    color: bool = True
    sides: tuple[Fusion, Fusion] | None = None  # a hard choice: the fusion at t ≤ fusion_switch_t, and above

    def layers(self, dim: int, context_dim: int) -> dict[str, nn.Module]:
        """The extra layers of a block, under their released names."""
        layers: dict[str, nn.Module] = {}
        if self.film is not None:
            width = dim if self.film == "outputs" else context_dim
            layers["t_linear"] = nn.Linear(1, 64)
            for stream in ("sem", "rhy"):
                layers[f"FiLM_gamma_{stream}"] = nn.Sequential(*_mlp(width), nn.Sigmoid())
                layers[f"FiLM_beta_{stream}"] = nn.Sequential(*_mlp(width))
        if self.gated:
            layers["gate"] = nn.Sequential(nn.Linear(1, context_dim), nn.SiLU(), nn.Linear(context_dim, 1))
        return layers

    def select(self, streams: Streams) -> Streams:
        """The streams that this fusion attends to; None in place of the others."""
        return streams._replace(
            rhythm=streams.rhythm if self.rhythm else None, color=streams.color if self.color else None
        )

    def stream_count(self, color: bool) -> int:
        """Number of streams that `select` keeps, in a model with or without a colour slot."""
        return 1 + self.rhythm + (self.color and color)

    @property
    def modulates_streams(self) -> bool:
        """Keys and values depend on t. FiLM has a shift, so attention to zero tokens is no longer zero."""
        return self.film == "contexts"

    def modulate(self, block: FusionLayers, streams: Streams, t: Tensor | None) -> Streams:
        """The streams as this block attends to them. The next block modulates these: preFiLM compounds, as released."""
        if not self.modulates_streams:
            return streams
        semantic, rhythm = film(block, streams.semantic.tokens, streams.rhythm.tokens, t)
        return streams._replace(
            semantic=streams.semantic._replace(tokens=semantic), rhythm=streams.rhythm._replace(tokens=rhythm)
        )


def _mlp(width: int) -> list[nn.Module]:
    return [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, width)]


def film(block: FusionLayers, s: Tensor, r: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """γ(t) · x + β(t) for both, with γ in 0..1."""
    return film_semantic(block, s, r, t), film_rhythm(block, s, r, t)


def film_semantic(block: FusionLayers, s: Tensor, r: Tensor | None, t: Tensor) -> Tensor:
    te = embed_time(block, t, s.dtype)  # (B, 1, 64)
    return block.FiLM_gamma_sem(te) * s + block.FiLM_beta_sem(te)


def film_rhythm(block: FusionLayers, s: Tensor | None, r: Tensor, t: Tensor) -> Tensor:
    te = embed_time(block, t, r.dtype)  # (B, 1, 64)
    return block.FiLM_gamma_rhy(te) * r + block.FiLM_beta_rhy(te)


def embed_time(block: FusionLayers, t: Tensor, dtype: torch.dtype) -> Tensor:
    return block.t_linear(t[:, None].to(dtype))[:, None]  # (B, 1, 64)


def semantic_only(block: FusionLayers, s: Tensor, r: Tensor | None, t: Tensor) -> Tensor:
    return s


def rhythm_only(block: FusionLayers, s: Tensor | None, r: Tensor, t: Tensor) -> Tensor:
    return r


def average(block: FusionLayers, s: Tensor, r: Tensor, t: Tensor) -> Tensor:
    return 0.5 * s + 0.5 * r


def choose(block: FusionLayers, s: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """Hard fusion: semantics above fusion_switch_t, rhythm from it down. t is float32: 0.2 belongs to rhythm."""
    return torch.where((t > block.fusion_switch_t)[:, None, None], s, r)


def gate(block: FusionLayers, s: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """The paper's weighted fusion: a(t) s + (1 − a(t)) r."""
    a = block.gate(t[:, None].to(s.dtype)).sigmoid()[:, None]  # (B, 1, 1)
    return a * s + (1 - a) * r


def film_sum(block: FusionLayers, s: Tensor, r: Tensor, t: Tensor) -> Tensor:
    return sum(film(block, s, r, t))


def film_choose(block: FusionLayers, s: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """The paper's best fusion, and the released model's."""
    return choose(block, *film(block, s, r, t), t)


FUSIONS: dict[str, Fusion] = {
    "FiLM_choose": Fusion(
        film_choose, film="outputs", sides=(Fusion(film_rhythm, semantic=False), Fusion(film_semantic, rhythm=False))
    ),
    "FiLM": Fusion(film_sum, film="outputs"),
    "choose": Fusion(choose, sides=(Fusion(rhythm_only, semantic=False), Fusion(semantic_only, rhythm=False))),
    "gate": Fusion(gate, gated=True),
    "preFiLM": Fusion(average, film="contexts"),
    "preFiLM_gate": Fusion(gate, film="contexts", gated=True),
    "none": Fusion(semantic_only, rhythm=False),
    "only_clip": Fusion(semantic_only, rhythm=False, color=False),
    # As released, any other name is a plain average (the default "sigmoid" too), and any other name with "gate" in it
    # is the gate. The other names that configs use follow. Names that crash in the published code are omitted.
    "sigmoid": Fusion(average),
    "linear": Fusion(average),
    "preFiLM_choose": Fusion(average, film="contexts"),
    "preFiLM_none": Fusion(average, film="contexts"),
    "choose_gate": Fusion(gate, gated=True),
    "gate_choose": Fusion(gate, gated=True),
}
