"""What a training step costs: `python -m benchmarks.training`.

Ours, with latents and rhythm made beforehand, against the published arrangement, which encodes the audio and reads the
rhythm off it, clip by clip, for every batch, and recomputes every layer in the backward pass; and how ours grows with
clips, length and width. The published arrangement is flattered: its T5 is left out, its layers and its rhythm are ours.
Forward, backward and AdamW on random weights; seconds as in `benchmarks.step`. Memory: what the forward pass keeps for
the backward one, the weights not counted.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.document import PERFORMANCE, write_section
from benchmarks.rounds import in_turn
from diff_v2m.common import cli

ROOT = Path(__file__).resolve().parents[1]
CLIPS, LENGTHS, WIDTHS = (1, 2, 4, 8), (0.25, 0.5, 1.0), (64, 128, 256)  # length: share of the model's window


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--model-config", type=Path, default=ROOT / "configs" / "model" / "tiny.json")
    parser.add_argument("--clips", type=int, default=4, help="in a batch, for the comparison")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=PERFORMANCE, help="whose section is replaced")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> None:
    from diff_v2m.common.files import atomic

    raw = json.loads(args.model_config.read_text(encoding="utf-8"))
    compared = compare(raw, args.clips, args.rounds, args.device)
    ours = partial(_Step, raw, device=args.device)
    scaling = {
        "clips": {n: ours(clips=n) for n in CLIPS},
        "length, of the window": {share: ours(length=share) for share in LENGTHS},
        "width": {width: ours(width=width) for width in WIDTHS},
    }
    costs = {
        axis: {
            value: Cost(seconds, steps[value].megabytes())
            for value, seconds in _seconds(
                {value: step.with_latents for value, step in steps.items()}, args.rounds, args.device
            ).items()
        }
        for axis, steps in scaling.items()
    }
    picture = args.output.with_name("training_speed.png")
    with atomic(picture) as part:
        plot(costs, part)
    text = report(compared, costs, args, picture.name)
    write_section(args.output, "A training step", text)
    sys.stdout.write(text)


class Cost(NamedTuple):
    """Of one training step."""

    seconds: np.ndarray  # (rounds,)
    megabytes: float


def compare(raw: dict, clips: int, rounds: int, device: str) -> dict[str, Cost]:
    """Arrangement → its cost; rounds in turn."""
    ours, checkpointing = (_Step(raw, clips=clips, device=device, checkpointing=flag) for flag in (False, True))
    steps = {
        "ours": (ours, ours.with_latents),
        "ours, gradient checkpointing": (checkpointing, checkpointing.with_latents),
        "published arrangement": (checkpointing, checkpointing.from_audio),
    }
    seconds = _seconds({name: step for name, (_, step) in steps.items()}, rounds, device)
    return {name: Cost(seconds[name], model.megabytes()) for name, (model, _) in steps.items()}


def _seconds(steps: dict[object, Callable[[], None]], rounds: int, device: str) -> dict[object, np.ndarray]:
    """(rounds,) of each."""
    from benchmarks.step import timed

    taken = in_turn({name: partial(timed, step, device) for name, step in steps.items()}, rounds)
    return {name: np.array(values) for name, values in taken.items()}


class _Step:
    """A model, an optimiser and a batch of noise for music."""

    def __init__(
        self,
        raw: dict,
        *,
        device: str,
        clips: int = 1,
        length: float = 1.0,
        width: int | None = None,
        checkpointing: bool = False,
    ):
        import torch

        from diff_v2m.config import parse_model_config
        from diff_v2m.data.batch import Batch
        from diff_v2m.model.dit import LatentDiffusion

        raw = copy.deepcopy(raw)
        if width is not None:
            raw["model"]["diffusion"]["config"]["embed_dim"] = width
        config = parse_model_config(raw, "benchmark")
        torch.manual_seed(0)
        self.config, self.clips = config, clips
        with torch.device(device):
            self.model = LatentDiffusion(config)
        self.model.model.model.transformer.gradient_checkpointing = checkpointing
        self.model.pretransform.requires_grad_(False)
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad])
        samples, seconds = round(length * config.sample_size), max(1, int(config.window_seconds))
        self.audio = 0.1 * torch.randn(clips, config.audio_channels, samples, device=device)
        self.latents = torch.randn(clips, config.latent_channels, config.latent_length(samples), device=device)
        self.batch = Batch(
            semantic=torch.randn(clips, seconds, 512),
            color=torch.rand(clips, seconds, 3072).softmax(-1),
            scene_cut=torch.zeros(clips, seconds, dtype=torch.long),
            pseudo_beats=torch.rand(clips, seconds),
            mask=torch.ones(clips, seconds, dtype=torch.bool),
            class_label=torch.full((clips,), 2),
            seconds_start=torch.zeros(clips),
            seconds_total=torch.full((clips,), float(seconds)),
            names=[""] * clips,
            rhythm=torch.randn(clips, seconds, 1),
        ).to(device)

    def with_latents(self) -> None:
        self._learn(self.latents)

    def from_audio(self) -> None:
        """Rhythm and latents from the audio, one clip after the other, as published."""
        from diff_v2m.features import rhythm

        for clip in self.audio.cpu():
            rhythm.odf(rhythm.to_mono(clip), self.config.sample_rate)
        self._learn(self.model.encode(self.audio))

    def megabytes(self) -> float:
        """What a forward pass keeps for the backward one, the weights not counted."""
        import torch

        kept, weights = {}, {p.untyped_storage()._cdata for p in self.model.parameters()}

        def keep(tensor):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with _fused_attention(self.latents.device), hooks:
            _loss = self._loss(self.latents)  # held, and with it all that was kept
        return sum(size for place, size in kept.items() if place not in weights) / 1e6

    def _learn(self, latents) -> None:
        self._loss(latents).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _loss(self, latents):
        import torch

        from diff_v2m.training.losses import training_losses

        conditions = self.model.condition(self.batch)
        noise, t = torch.randn_like(latents), torch.rand(self.clips, device=latents.device)
        return training_losses(self.model.model, conditions, latents, noise, t).total


def _fused_attention(device):
    """On the meta device, which has no kernels: attention keeps what it is given and what it makes, no scores."""
    import torch
    from torch.nn import functional as F
    from torch.overrides import TorchFunctionMode

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(context, q, k, v):
            out = torch.empty_like(q)
            context.save_for_backward(q, k, v, out)
            return out

    class Mode(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is F.scaled_dot_product_attention:
                return Fused.apply(*args[:3])
            return function(*args, **(kwargs or {}))

    return Mode() if device.type == "meta" else nullcontext()


def gigabytes_to_train(config: Path) -> str:
    """A sentence on a model that is not built: what its training takes in float32."""
    raw = json.loads(config.read_text(encoding="utf-8"))
    step, checkpointing = (_Step(raw, device="meta", checkpointing=flag) for flag in (False, True))
    kept, little = step.megabytes() / 1e3, checkpointing.megabytes() / 1e3
    trained = sum(p.numel() for p in step.model.parameters() if p.requires_grad)
    held = 4 * (4 * trained + sum(p.numel() for p in step.model.parameters() if not p.requires_grad)) / 1e9
    average = 4 * sum(p.numel() for p in step.model.model.parameters()) / 1e9
    return (
        f"{config.name}, computed and not measured, in float32: {kept:.1f} GB a clip, {little:.2f} with gradient "
        f"checkpointing, beside {held:.1f} GB of weights, gradients and optimiser's state and {average:.1f} of the "
        "average."
    )


def report(compared: dict[str, Cost], costs: dict, args: argparse.Namespace, picture: str) -> str:
    import torch

    ours, threads = compared["ours"].seconds, torch.get_num_threads()
    clock = ", CPU seconds" if args.device == "cpu" and threads == 1 else ""
    lines = [
        f"{args.model_config.name}, {args.clips} clips of a whole window, {args.device}, {threads} thread(s), "
        f"{args.rounds} rounds{clock}. The "
        "published arrangement encodes and reads the rhythm in every step and always checkpoints; its T5 is left out, "
        "and its layers are ours. Memory: what is kept for the backward pass, without the weights. Written by "
        "`python -m benchmarks.training`.",
        "",
        "| | clips a second, median | time over ours, median (quartiles) | MB a clip |",
        "|---|---|---|---|",
    ]
    for name, (taken, megabytes) in compared.items():
        low, middle, high = np.percentile(taken / ours, [25, 50, 75])
        lines.append(
            f"| {name} | {args.clips / np.median(taken):.2f} | {middle:.2f} ({low:.2f}–{high:.2f}) | "
            f"{megabytes / args.clips:.0f} |"
        )
    lines += [
        "",
        f"![seconds and memory of a step]({picture})",
        "",
        "| ours, by | seconds a step, median | MB |",
        "|---|---|---|",
    ]
    for axis, steps in costs.items():
        lines += [
            f"| {axis} {value:g} | {np.median(taken):.3g} | {megabytes:.0f} |"
            for value, (taken, megabytes) in steps.items()
        ]
    lines += ["", gigabytes_to_train(ROOT / "configs" / "model" / "diff_v2m_corrected.json")]
    return "\n".join(lines) + "\n"


def plot(costs: dict, path: Path) -> None:
    """A column for each thing that grows: seconds above, memory below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    for (above, below), (axis, steps) in zip(figure.subplots(2, len(costs)).T, costs.items(), strict=True):
        low, middle, high = np.array([np.percentile(cost.seconds, [25, 50, 75]) for cost in steps.values()]).T
        above.errorbar(list(steps), middle, [middle - low, high - middle], marker="o", color="#4477aa")
        above.set_ylabel("seconds a step")
        below.plot(list(steps), [cost.megabytes for cost in steps.values()], marker="o", color="#4477aa")
        below.set_ylabel("MB kept")
        below.set_xlabel(axis)
        for axes in (above, below):
            axes.set_xlim(0)
            axes.set_ylim(0)
    figure.savefig(path, format="png", dpi=120)


if __name__ == "__main__":
    sys.exit(main())
