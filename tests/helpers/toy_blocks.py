"""Attention, blocks and streams of toy size with random weights, for the tests of the parts of the network."""

import torch

from diff_v2m.model.blocks import CrossAttention, HierarchicalBlock, HierarchicalTransformer
from diff_v2m.model.fusion import FUSIONS
from diff_v2m.model.rotary import Rotary, RotaryEmbedding
from diff_v2m.model.streams import Stream, Streams

DIM, HEAD, WIDTH = 64, 32, 32  # of the model, of a head, of condition tokens
TOKENS, SECONDS = 10, 6  # of latents, of conditions


def opened(module: torch.nn.Module) -> torch.nn.Module:
    """The module with random values where it starts at zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return module


def stream(tokens: torch.Tensor, mask: torch.Tensor | None = None, rotary: Rotary | None = None) -> Stream:
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
    return Stream(tokens, mask, torch.arange(tokens.shape[1]) + 0.5, rotary)


def streams(count: int = 2, *, color: bool = True) -> Streams:
    semantic, rhythm, third = (stream(torch.randn(count, SECONDS, WIDTH)) for _ in range(3))
    return Streams(semantic, rhythm, third if color else None)


def block(fusion: str = "FiLM", **options) -> HierarchicalBlock:
    options = {"pre_norm": False, "fusion_switch_t": 0.2} | options
    return opened(HierarchicalBlock(DIM, HEAD, WIDTH, FUSIONS[fusion], **options))


def run(module: HierarchicalBlock, x: torch.Tensor, t: torch.Tensor, given: Streams) -> torch.Tensor:
    keys_values = module.keys_values(module.fusion.modulate(module, module.fusion.select(given), t))
    return module(x, t, keys_values, RotaryEmbedding(HEAD)(x.shape[1]))


def attend(module: CrossAttention, x: torch.Tensor, given: Stream, rotary: Rotary | None = None) -> torch.Tensor:
    return module(x, module.keys_values(given), rotary)


def stack(fusion: str, depth: int = 3) -> HierarchicalTransformer:
    return opened(
        HierarchicalTransformer(8, DIM, depth, DIM // HEAD, WIDTH, FUSIONS[fusion], pre_norm=True, fusion_switch_t=0.2)
    )
