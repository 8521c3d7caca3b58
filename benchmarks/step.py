"""One guided denoising step of ours and of others, at equal size, with random weights and conditions."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from benchmarks import published
from benchmarks.measuring import in_turn, timed
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import ROOT
from diff_v2m.config import parse_model_config
from diff_v2m.model.autoencoder import stub_imports
from diff_v2m.model.compiling import compile_blocks
from diff_v2m.model.conditioners import Conditions
from diff_v2m.model.dit import GuidedDiT
from diff_v2m.model.precision import set_precision
from diff_v2m.model.streams import Stream, Streams

log = logging.getLogger(__name__)

RELEASED = ROOT / "configs" / "model" / "diff_v2m.json"
SCALE, TIME = 3.0, 0.5
PRECOMPUTE = "conditioning cache"
VARIANTS = {  # (dtype, compiled) measured beside float32
    "cpu": [("int8", False), ("float32", True)],
    "cuda": [("bf16", False), ("bf16", True), ("int8", True), ("fp8", True)],
}


class Size(NamedTuple):
    width: int
    depth: int
    heads: int
    frames: int  # latent frames; the network adds one token


SIZES = {
    "toy": Size(64, 2, 2, 40),  # for tests
    "tiny": Size(128, 4, 4, 469),
    "mid": Size(768, 6, 12, 645),
    "released": Size(1536, 24, 24, 645),
}


def network_of(size: Size, device: str) -> GuidedDiT:
    """The released architecture at this size; no weight is zero."""
    raw = json.loads(RELEASED.read_text())
    width = size.width // 2
    raw["model"]["conditioning"]["cond_dim"] = width
    raw["model"]["diffusion"]["config"] |= {
        "embed_dim": size.width,
        "depth": size.depth,
        "num_heads": size.heads,
        "cond_token_dim": width,
        "global_cond_dim": 3 * width,
    }
    config = parse_model_config(raw, "benchmark")
    torch.manual_seed(0)
    with torch.device(device):
        network = GuidedDiT(config.model.diffusion, latent_rate=config.latent_rate)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.5 * parameter.shape[-1] ** -0.5)
    return network.eval().requires_grad_(False)


def conditions_of(size: Size, device: str) -> Conditions:
    """One clip of 30 s."""

    def stream(tokens: int) -> Stream:
        mask = torch.ones(1, tokens, dtype=torch.bool, device=device)
        return Stream(torch.randn(1, tokens, size.width // 2, device=device), mask, torch.zeros(tokens, device=device))

    global_cond = torch.randn(1, 3 * (size.width // 2), device=device)
    return Conditions(Streams(stream(32), stream(32), stream(30)), global_cond, torch.zeros(1, 30, 1, device=device))


class Multiplications(TorchFunctionMode):
    """Record the shapes (batch, m, k, n) of all matrix products inside the context."""

    def __init__(self):
        super().__init__()
        self.shapes: list[tuple[int, int, int, int]] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.linear:
            x, weight = args[:2]
            self.shapes.append((1, x.numel() // x.shape[-1], x.shape[-1], weight.shape[0]))
        elif function is F.scaled_dot_product_attention:
            q, k = args[:2]
            batch, queries, keys, head = q.shape[0] * q.shape[1], q.shape[2], k.shape[2], q.shape[3]
            self.shapes += [(batch, queries, head, keys), (batch, queries, keys, head)]
        return function(*args, **(kwargs or {}))

    def flops(self) -> int:
        return sum(2 * batch * m * k * n for batch, m, k, n in self.shapes)

    def replay(self, device: str) -> Callable[[], None]:
        """The same products alone: a lower bound for any step that needs them."""
        operands = {
            (b, m, k, n): [torch.randn(shape, device=device) for shape in ((b, m, k), (b, k, n), (b, m, n))]
            for b, m, k, n in self.shapes
        }

        def run() -> None:
            for shape in self.shapes:
                left, right, out = operands[shape]
                torch.bmm(left, right, out=out) if shape[0] > 1 else torch.mm(left[0], right[0], out=out[0])

        return run


class Timing(NamedTuple):
    """Seconds of every round by contender, and the size and exactness of the work."""

    seconds: dict[str, np.ndarray]  # each (rounds,)
    gflop: float  # matrix products of our step
    precompute: float  # seconds for the conditioning cache, once per clip
    differences: dict[str, float]  # largest difference from the published output, relative to its largest value


@torch.inference_mode()
def compare(name: str, rounds: int, device: str, compiling: bool = False) -> Timing:
    """Time all contenders in interleaved rounds; the compiled ones only if `compiling`."""
    size = SIZES[name]
    network, conditions = network_of(size, device), conditions_of(size, device)
    x = torch.randn(1, 64, size.frames, generator=torch.Generator().manual_seed(0)).to(device)
    t = torch.full((1,), TIME)
    on_device = t.to(device)

    def step_of(network: GuidedDiT) -> Callable[[], Tensor]:
        cache = network.precompute(conditions, size.frames)
        return lambda: network.denoise(x, t, cache, guidance_scale=SCALE)

    def baseline() -> Tensor:
        return published.denoise(network, x, on_device, conditions, SCALE)

    ours, others = step_of(network), {}
    variants = VARIANTS[torch.device(device).type]
    for dtype, compiled in [(dtype, compiled) for dtype, compiled in variants if compiling or not compiled]:
        other = copy.deepcopy(network)
        try:
            set_precision(other, dtype, torch.device(device))
        except InputError as error:
            log.warning("skipped: %s", error)
            continue
        if compiled:
            compile_blocks(other)
        others[f"ours, {dtype}{', compiled' if compiled else ''}"] = step_of(other)
    with Multiplications() as products:
        ours()
    contenders = {
        "published arrangement": baseline,
        "ours": ours,
        PRECOMPUTE: lambda: network.precompute(conditions, size.frames),
        **others,
        "stable-audio-tools transformer": _stable_audio(size, device),
        "matrix products alone": products.replay(device),
    }
    seconds = in_turn({contender: partial(timed, step, device) for contender, step in contenders.items()}, rounds)
    expected = baseline()
    differences = {
        contender: ((step() - expected).abs().max() / expected.abs().max()).item()
        for contender, step in {"ours": ours, **others}.items()
    }
    seconds = {contender: np.array(values) for contender, values in seconds.items()}
    precompute = float(np.median(seconds.pop(PRECOMPUTE)))
    return Timing(seconds, products.flops() / 1e9, precompute, differences)


def _stable_audio(size: Size, device: str) -> Callable[[], Tensor]:
    """stable-audio-tools' own stack: one cross-attention per layer, to all tokens at once, in both halves."""
    with stub_imports():
        from stable_audio_tools.models.transformer import ContinuousTransformer
    with torch.device(device):
        stack = ContinuousTransformer(
            size.width,
            size.depth,
            dim_in=64,
            dim_out=64,
            dim_heads=size.width // size.heads,
            cross_attend=True,
            cond_token_dim=size.width // 2,
            zero_init_branch_outputs=False,
        ).eval()
    x = torch.randn(2, size.frames + 1, 64, device=device)
    context = torch.randn(2, 94, size.width // 2, device=device)
    return lambda: stack(x, context=context, use_checkpointing=False)
