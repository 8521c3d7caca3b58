"""Check and measure a GPU in one call: `python -m benchmarks.gpu`, or `bash scripts/gpu_check.sh`.

Needs no weights, no data and no network: the released architecture with random weights, and random features. Every
result of the device is compared with float32 on the CPU. `--size toy --device cpu` runs all of it in seconds.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import RESULTS, parse_with_command, timed, write_section
from diff_v2m.common import cli
from diff_v2m.common.errors import InputError

if TYPE_CHECKING:
    from diff_v2m.model.conditioners import Conditions
    from diff_v2m.model.streams import Stream

log = logging.getLogger(__name__)

DENSE_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40": 181e12, "4090": 165e12}  # FLOP/s, by part of name
VARIANTS = (  # dtype, compiled
    ("float32", False),
    ("bf16", False),
    ("fp16", False),
    ("int8", False),
    ("fp8", False),
    ("bf16", True),
)
LARGEST_DIFFERENCE = {"float32": 5e-3, "bf16": 0.1, "fp16": 0.05, "int8": 0.3, "fp8": 0.5}  # of the largest value


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--size", choices=("toy", "tiny", "mid", "released"), default="released")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the script")
    parser.add_argument("--rounds", type=cli.whole_number(1), default=10)
    parser.add_argument("--batches", type=cli.whole_number(1), nargs="+", default=[8, 16, 32], help="of training steps")
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu.md", help="document; a json goes beside it")
    return parse_with_command(parser, arguments)


def run(args: argparse.Namespace) -> None:
    import torch

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            f"--device {args.device}: torch finds no CUDA device; --device cpu --size toy tries the script"
        )
    cuda = args.device.startswith("cuda")
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "size": args.size,
    }
    parts = {
        "steps": partial(measure_steps, args.size, args.device, args.rounds),
        "clip": partial(measure_clip, args.size, args.device),
        "training": partial(measure_training, args.size, args.device, args.batches),
    }
    for name, measure in parts.items():
        start = time.perf_counter()
        found[name] = measure()
        log.info("%s: %.0f s", name, time.perf_counter() - start)
        write(args, found)  # after each: a time limit must not lose what is measured
    failed = [row["name"] for row in found["steps"]["rows"] if not row["within"]]
    if failed:
        raise InputError(f"{', '.join(failed)}: further from float32 on the CPU than allowed; see {args.output}")


def write(args: argparse.Namespace, found: dict[str, Any]) -> None:
    from diff_v2m.common.files import write_json

    write_section(args.output, f"{found['device']}, {args.size}", args.command, report(found))
    write_json(args.output.with_suffix(".json"), found)


def memory(device: str, work: Callable[[], object]) -> tuple[object, float | None]:
    """The result of some work, and the peak of the GPU's memory in GB; None on a CPU."""
    import torch

    if not device.startswith("cuda"):
        return work(), None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    result = work()
    return result, torch.cuda.max_memory_allocated() / 1e9


def measure_steps(size: str, device: str, rounds: int) -> dict[str, Any]:
    """Every precision of one guided step: seconds, tokens, memory, and the distance from float32 on the CPU."""
    import numpy as np
    import torch

    from benchmarks import step
    from diff_v2m.model.compiling import compile_blocks
    from diff_v2m.model.precision import set_precision

    shape = step.SIZES[size]
    plain = step.network_of(shape, "cpu")
    conditions = step.conditions_of(shape, "cpu")
    x, t = torch.randn(1, 64, shape.frames, generator=torch.Generator().manual_seed(0)), torch.full((1,), step.TIME)
    place, rows = torch.device(device), []
    with torch.inference_mode(), step.Multiplications() as products:
        expected = plain.denoise(x, t, plain.precompute(conditions, shape.frames), guidance_scale=step.SCALE)
    on_device, given = on(conditions, device), x.to(device)
    for dtype, compiled in (variant for variant in VARIANTS if size != "toy" or not variant[1]):  # a minute on a CPU
        network = copy.deepcopy(plain)
        try:
            set_precision(network, dtype, place)
            if compiled:
                compile_blocks(network)
        except InputError as error:
            log.warning("skipped: %s", error)
            continue
        network = network.to(device)
        with torch.inference_mode():
            cache = network.precompute(on_device, shape.frames)
            denoise = partial(network.denoise, given, t, cache, guidance_scale=step.SCALE)
            out, peak = memory(device, denoise)
            seconds = float(np.median([timed(denoise, device) for _ in range(rounds)]))
            replay = graph_seconds(denoise, rounds) if device.startswith("cuda") and not compiled else None
        difference = ((out.float().cpu() - expected).abs().max() / expected.abs().max()).item()
        held = chain(network.parameters(), network.buffers())
        weights = sum(tensor.numel() * tensor.element_size() for tensor in held)
        rows.append(
            {
                "name": f"{dtype}{', compiled' if compiled else ''}",
                "seconds": seconds,
                "graph_seconds": replay,
                "tokens_per_second": 2 * (shape.frames + 1) / seconds,
                "flop_per_second": products.flops() / seconds,
                "weights_gb": weights / 1e9,
                "peak_gb": peak,
                "difference": difference,
                "within": difference <= LARGEST_DIFFERENCE[dtype],
            }
        )
        del network, cache, denoise, out
    return {
        "gflop": products.flops() / 1e9,
        "peak": peak_flops(device),
        "matmul": matmul_rate(device, size),
        "rows": rows,
    }


def on(conditions: Conditions, device: str) -> Conditions:
    """The conditions on another device."""

    def moved(stream: Stream) -> Stream:
        return stream._replace(
            tokens=stream.tokens.to(device), mask=stream.mask.to(device), times=stream.times.to(device)
        )

    return replace(conditions, streams=conditions.streams.map(moved), global_cond=conditions.global_cond.to(device))


def graph_seconds(denoise: Callable[[], object], rounds: int) -> float | None:
    """Seconds of a step replayed as a CUDA graph; None if it cannot be captured."""
    import numpy as np
    import torch

    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    try:
        with torch.cuda.stream(side):
            denoise()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            denoise()
    except RuntimeError as error:
        log.warning("no CUDA graph: %s", str(error).partition("\n")[0])
        return None
    return float(np.median([timed(graph.replay, "cuda") for _ in range(rounds)]))


def peak_flops(device: str) -> float | None:
    """Dense bf16 FLOP/s that the card's data sheet says; None for others than those known here."""
    import torch

    name = torch.cuda.get_device_name() if device.startswith("cuda") else ""
    return next((peak for part, peak in DENSE_BF16.items() if part in name), None)


def matmul_rate(device: str, size: str) -> float:
    """FLOP/s of one large product in bf16 (float32 on a CPU)."""
    import numpy as np
    import torch

    side, dtype = (8192, torch.bfloat16) if device.startswith("cuda") else (256, torch.float32)
    left = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / float(np.median([timed(lambda: left @ left, device) for _ in range(5)]))


def config_of(size: str) -> dict[str, Any]:
    """The corrected model JSON at this size; toy: with a small autoencoder too."""
    from benchmarks.step import SIZES
    from diff_v2m.common.files import ROOT

    name = {"toy": "tiny", "tiny": "tiny"}.get(size, "diff_v2m_corrected")
    raw = json.loads((ROOT / "configs" / "model" / f"{name}.json").read_text())
    if name != "tiny":
        shape = SIZES[size]
        width = shape.width // 2
        raw["model"]["conditioning"]["cond_dim"] = width
        raw["model"]["diffusion"]["config"] |= {
            "embed_dim": shape.width,
            "depth": shape.depth,
            "num_heads": shape.heads,
            "cond_token_dim": width,
            "global_cond_dim": 3 * width,
        }
    return raw


def measure_clip(size: str, device: str) -> list[dict[str, Any]]:
    """Seconds from features to audio of a 30 s clip, at default settings and as a student, in two precisions."""
    import numpy as np
    import torch

    from diff_v2m.config import parse_model_config
    from diff_v2m.features.video_features import VideoFeatures
    from diff_v2m.generation.pipeline import DiffV2M
    from diff_v2m.model.dit import LatentDiffusion

    length, rng = (30 if size != "toy" else 4), np.random.default_rng(0)
    color = rng.random((length, 3072), dtype=np.float32) ** 8
    features = VideoFeatures(
        rng.standard_normal((length, 512)).astype(np.float32),
        color / color.sum(axis=1, keepdims=True),
        rng.integers(0, 2, length),
        rng.random(length, dtype=np.float32),
        float(length),
    )
    found = []
    for name, student in (("default settings", None), ("student, 8 evaluations", {"steps": 8})):
        raw = config_of(size)
        if student:
            raw["model"]["diffusion"]["student"] = student
        config = parse_model_config(raw, "benchmark")
        for dtype in ("float32", "bf16"):
            torch.manual_seed(0)
            with torch.device(device):
                model = DiffV2M(LatentDiffusion(config), config, device=device, dtype=dtype)
            compose = partial(
                model.compose, [features], ["clip"], **({"steps": 2} if size == "toy" and not student else {})
            )
            compose()  # kernels are loaded
            seconds, peak = memory(device, partial(timed, compose, device))
            found.append({"name": name, "dtype": dtype, "clip_seconds": length, "seconds": seconds, "peak_gb": peak})
            del model, compose
    return found


def measure_training(size: str, device: str, batches: list[int]) -> list[dict[str, Any]]:
    """Training steps in bf16 mixed precision: clips a second, memory measured and computed without activations."""
    import torch

    from benchmarks.training import TrainingStep

    found = []
    for clips in batches:
        try:
            step = TrainingStep(config_of(size), device=device, clips=clips, length=1.0 if size != "toy" else 0.1)

            def once(step: TrainingStep = step) -> None:
                with torch.autocast(device.partition(":")[0], torch.bfloat16):
                    step.from_latents()

            once()
            seconds, peak = memory(device, partial(timed, once, device))
        except torch.OutOfMemoryError:
            log.warning("training with %d clips: out of memory", clips)
            found.append({"clips": clips, "seconds": None, "peak_gb": None, "states_gb": None})
            continue
        trained = sum(p.numel() for p in step.model.parameters() if p.requires_grad)
        every = sum(p.numel() for p in step.model.parameters())
        states = 4 * (every + 3 * trained) / 1e9  # float32: weights, then gradients and AdamW's two moments
        found.append({"clips": clips, "seconds": seconds, "peak_gb": peak, "states_gb": states})
        del step, once
    return found


def report(found: dict[str, Any]) -> str:
    """Markdown."""
    steps, peak = found["steps"], found["steps"]["peak"]
    lines = [
        f"{found['device']}, torch {found['torch']}, random weights. A guided step of one clip has "
        f"{steps['gflop']:.4g} GFLOP of matrix products. A large product alone "
        f"runs at {steps['matmul'] / 1e12:.3g} TFLOP/s.",
        "",
        "| step | ms | ms as a CUDA graph | tokens/s | TFLOP/s | of the card's bf16 peak | weights, GB | peak, GB | "
        "largest difference from float32 on the CPU |",
        "|---" * 9 + "|",
    ]
    for row in steps["rows"]:
        verdict = "" if row["within"] else ", too far"
        share = "–" if peak is None else f"{100 * row['flop_per_second'] / peak:.0f} %"
        lines.append(
            f"| {row['name']} | {1e3 * row['seconds']:.3g} | {_number(row['graph_seconds'], 1e3)} | "
            f"{row['tokens_per_second']:.0f} | {row['flop_per_second'] / 1e12:.3g} | {share} | "
            f"{row['weights_gb']:.3g} | {_number(row['peak_gb'])} | {row['difference']:.1e}{verdict} |"
        )
    if "clip" in found:
        lines += ["", "| clip, features to audio | dtype | s of music | s | peak, GB |", "|---" * 5 + "|"]
        for row in found["clip"]:
            cells = (row["name"], row["dtype"], row["clip_seconds"], f"{row['seconds']:.3g}", _number(row["peak_gb"]))
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    if "training" in found:
        lines += [
            "",
            "| training, bf16 mixed, clips | s | clips/s | peak, GB | weights, gradients, AdamW: computed, GB |",
            "|---" * 5 + "|",
        ]
        for row in found["training"]:
            speed = None if row["seconds"] is None else row["clips"] / row["seconds"]
            cells = (row["seconds"], speed, row["peak_gb"], row["states_gb"])
            lines.append(f"| {row['clips']} | " + " | ".join(map(_number, cells)) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, factor: float = 1.0) -> str:
    return "–" if value is None else f"{factor * value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
