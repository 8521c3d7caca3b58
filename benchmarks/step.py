"""One guided denoising step, ours against others at equal sizes, with random weights and conditions."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from benchmarks import published
from benchmarks.rounds import in_turn
from diff_v2m.common.errors import InputError
from diff_v2m.config import parse_model_config
from diff_v2m.model.autoencoder import stand_ins
from diff_v2m.model.compiling import compile_blocks
from diff_v2m.model.conditioners import Conditions
from diff_v2m.model.dit import GuidedDiT
from diff_v2m.model.precision import set_precision
from diff_v2m.model.streams import Stream, Streams

log = logging.getLogger(__name__)

RELEASED = Path(__file__).resolve().parents[1] / "configs" / "model" / "diff_v2m.json"
SCALE, TIME = 3.0, 0.5
PREPARING = "conditions meet the weights"
VARIANTS = {  # precision, and whether compiled: what is timed beside float32
    "cpu": [("int8", False), ("float32", True)],
    "cuda": [("bf16", False), ("bf16", True), ("int8", True), ("fp8", True)],
}


class Size(NamedTuple):
    """width and depth of the network; latent frames, to which one token is added."""

    width: int
    depth: int
    heads: int
    frames: int


SIZES = {
    "toy": Size(64, 2, 2, 40),  # for the test of this program
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
        network = GuidedDiT(config.model.diffusion.config, latent_rate=config.latent_rate, color=True)
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
    """Records the shapes of all matrix products that are made inside: [(batch, m, k, n)]."""

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
        """The same products and nothing else: no step that needs them can be faster."""
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
    """Seconds of every round, by contender, and what they had to compute."""

    seconds: dict[str, np.ndarray]  # each (rounds,)
    gflop: float  # of our step's matrix products
    preparing: float  # seconds, once a clip, before our first step
    differences: dict[str, float]  # largest between an output and the published one, over the latter's largest value


@torch.inference_mode()
def compare(name: str, rounds: int, device: str, compiling: bool = False) -> Timing:
    """Every contender once a round, in turn, after one round that does not count; compiled ones only if asked for."""
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
            log.warning("left out: %s", error)
            continue
        if compiled:
            compile_blocks(other)
        others[f"ours, {dtype}{', compiled' if compiled else ''}"] = step_of(other)
    with Multiplications() as products:
        ours()
    contenders = {
        "published arrangement": baseline,
        "ours": ours,
        PREPARING: lambda: network.precompute(conditions, size.frames),
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
    preparing = float(np.median(seconds.pop(PREPARING)))
    return Timing(seconds, products.flops() / 1e9, preparing, differences)


def _stable_audio(size: Size, device: str) -> Callable[[], Tensor]:
    """stable-audio-tools' own stack: one cross-attention a layer, to all tokens at once, in both halves."""
    with stand_ins():
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


def timed(step: Callable[[], object], device: str) -> float:
    """Seconds on the clock, or of CPU time where one thread does it all: then other programs hardly matter."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    wait()
    start = clock()
    step()
    wait()
    return clock() - start
