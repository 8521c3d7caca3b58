"""How semantics and rhythm come together in a block: one entry of `FUSIONS` for each `attention_weight_type`.

s and r are what cross-attention brought from semantics and from rhythm, (B, T, D); t (B,) is the diffusion time,
1 = noise. FiLM scales and shifts either s and r, or ("preFiLM") the contexts before they are attended to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diff_v2m.model.blocks import Contexts, HierarchicalBlock

Combine = Callable[["HierarchicalBlock", Tensor, Tensor, Tensor], Tensor]  # (block, s, r, t) → (B, T, D)


@dataclass(frozen=True)
class Fusion:
    """What a block needs for one fusion: its extra layers, its formula, and which contexts it listens to at all."""

    combine: Combine
    film: str | None = None  # "outputs" or "contexts": what FiLM modulates
    gate: bool = False
    semantic: bool = True
    rhythm: bool = True
    color: bool = True
    sides: tuple[Fusion, Fusion] | None = None  # what a hard choice comes to where t ≤ rhythm_t_max, and above

    def add_layers(self, block: HierarchicalBlock, dim: int, context_dim: int) -> None:
        """Give the block the released layers of this fusion, under their released names."""
        if self.film is not None:
            width = dim if self.film == "outputs" else context_dim
            block.t_linear = nn.Linear(1, 64)
            for stream in ("sem", "rhy"):
                setattr(block, f"FiLM_gamma_{stream}", nn.Sequential(*_mlp(width), nn.Sigmoid()))
                setattr(block, f"FiLM_beta_{stream}", nn.Sequential(*_mlp(width)))
        if self.gate:
            block.gate = nn.Sequential(nn.Linear(1, context_dim), nn.SiLU(), nn.Linear(context_dim, 1))

    @property
    def modulates_contexts(self) -> bool:
        """Whether what is attended to depends on t; and, FiLM having a shift, is not silent without conditions."""
        return self.film == "contexts"

    def modulate(self, block: HierarchicalBlock, contexts: Contexts, t: Tensor | None) -> Contexts:
        """The contexts this block attends to. They are handed on: preFiLM compounds over the layers, as released."""
        if not self.modulates_contexts:
            return contexts
        semantic, rhythm = film(block, contexts.semantic.tokens, contexts.rhythm.tokens, t)
        return contexts._replace(
            semantic=contexts.semantic._replace(tokens=semantic), rhythm=contexts.rhythm._replace(tokens=rhythm)
        )


def _mlp(width: int) -> list[nn.Module]:
    return [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, width)]


def film(block: HierarchicalBlock, s: Tensor, r: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """γ(t) · x + β(t) for both streams, with γ in 0..1."""
    return film_semantic(block, s, r, t), film_rhythm(block, s, r, t)


def film_semantic(block: HierarchicalBlock, s: Tensor, r: Tensor | None, t: Tensor) -> Tensor:
    te = embed_time(block, t, s.dtype)
    return block.FiLM_gamma_sem(te) * s + block.FiLM_beta_sem(te)


def film_rhythm(block: HierarchicalBlock, s: Tensor | None, r: Tensor, t: Tensor) -> Tensor:
    te = embed_time(block, t, r.dtype)
    return block.FiLM_gamma_rhy(te) * r + block.FiLM_beta_rhy(te)


def embed_time(block: HierarchicalBlock, t: Tensor, dtype: torch.dtype) -> Tensor:
    return block.t_linear(t[:, None].to(dtype))[:, None]  # (B, 1, 64)


def semantic_only(block: HierarchicalBlock, s: Tensor, r: Tensor | None, t: Tensor) -> Tensor:
    return s


def rhythm_only(block: HierarchicalBlock, s: Tensor | None, r: Tensor, t: Tensor) -> Tensor:
    return r


def average(block: HierarchicalBlock, s: Tensor, r: Tensor, t: Tensor) -> Tensor:
    return 0.5 * s + 0.5 * r


def choose(block: HierarchicalBlock, s: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """Semantics while the outline forms, rhythm for the last stretch. t is float32: the step at 0.2 is rhythm's."""
    return torch.where((t > block.rhythm_t_max)[:, None, None], s, r)


def gate(block: HierarchicalBlock, s: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """The paper's weighted fusion: a(t) s + (1 − a(t)) r."""
    a = block.gate(t[:, None].to(s.dtype)).sigmoid()[:, None]  # (B, 1, 1)
    return a * s + (1 - a) * r


def film_sum(block: HierarchicalBlock, s: Tensor, r: Tensor, t: Tensor) -> Tensor:
    return sum(film(block, s, r, t))


def film_choose(block: HierarchicalBlock, s: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """The paper's best, and the released model."""
    return choose(block, *film(block, s, r, t), t)


FUSIONS: dict[str, Fusion] = {
    "FiLM_choose": Fusion(
        film_choose, film="outputs", sides=(Fusion(film_rhythm, semantic=False), Fusion(film_semantic, rhythm=False))
    ),
    "FiLM": Fusion(film_sum, film="outputs"),
    "choose": Fusion(choose, sides=(Fusion(rhythm_only, semantic=False), Fusion(semantic_only, rhythm=False))),
    "gate": Fusion(gate, gate=True),
    "preFiLM": Fusion(average, film="contexts"),
    "preFiLM_gate": Fusion(gate, film="contexts", gate=True),
    "none": Fusion(semantic_only, rhythm=False),
    "only_clip": Fusion(semantic_only, rhythm=False, color=False),
    # The published code takes any other name for a plain average, the default "sigmoid" among them, and any other
    # name with "gate" in it for the gate. These are the ones its configurations can be expected to hold; names on
    # which it crashes are left out.
    "sigmoid": Fusion(average),
    "linear": Fusion(average),
    "preFiLM_choose": Fusion(average, film="contexts"),
    "preFiLM_none": Fusion(average, film="contexts"),
    "choose_gate": Fusion(gate, gate=True),
    "gate_choose": Fusion(gate, gate=True),
}
