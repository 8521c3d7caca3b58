"""A training step: `python -m benchmarks.training`.

Ours trains from latents and rhythm targets on disk. The published arrangement encodes the audio and computes the rhythm
targets in every step, clip by clip, and always uses gradient checkpointing; here its T5 is skipped, and its layers are
ours, which favours it. A step is forward, backward and AdamW on random weights. Memory is what the forward pass keeps
for the backward pass, without the weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.measuring import (
    PERFORMANCE,
    in_turn,
    median_and_quartiles,
    parse_with_command,
    timed,
    write_section,
)
from diff_v2m.common import cli
from diff_v2m.common.files import ROOT

CLIPS, LENGTHS, WIDTHS = (1, 2, 4, 8), (0.25, 0.5, 1.0), (64, 128, 256)  # length: fraction of the model's window


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--model-config", type=Path, default=ROOT / "configs" / "model" / "tiny.json")
    parser.add_argument("--clips", type=int, default=4, help="batch size of the comparison (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path, default=PERFORMANCE, help="document to update; the plot goes beside it")
    return parse_with_command(parser, arguments)


def run(args: argparse.Namespace) -> None:
    from diff_v2m.common.files import atomic

    raw = json.loads(args.model_config.read_text(encoding="utf-8"))
    compared = compare(raw, args.clips, args.rounds, args.device)
    ours = partial(TrainingStep, raw, device=args.device)
    scaling = {
        "clips": {n: ours(clips=n) for n in CLIPS},
        "length, of the window": {share: ours(length=share) for share in LENGTHS},
        "width": {width: ours(width=width) for width in WIDTHS},
    }
    costs = {axis: measure(steps, args.rounds, args.device) for axis, steps in scaling.items()}
    picture = args.output.with_name("training_speed.png")
    with atomic(picture) as part:
        plot(costs, part)
    text = report(compared, costs, args, picture.name)
    write_section(args.output, "A training step", args.command, text)
    sys.stdout.write(text)


class Cost(NamedTuple):
    """Of one training step."""

    seconds: np.ndarray  # (rounds,)
    megabytes: float


def compare(raw: dict, clips: int, rounds: int, device: str) -> dict[str, Cost]:
    """Arrangement → its cost, in interleaved rounds."""
    ours, checkpointing = (TrainingStep(raw, clips=clips, device=device, checkpointing=on) for on in (False, True))
    steps = {
        "ours": (ours, ours.from_latents),
        "ours, gradient checkpointing": (checkpointing, checkpointing.from_latents),
        "published arrangement": (checkpointing, checkpointing.from_audio),
    }
    seconds = seconds_of({name: step for name, (_, step) in steps.items()}, rounds, device)
    return {name: Cost(seconds[name], model.megabytes()) for name, (model, _) in steps.items()}


def measure(steps: dict[float, TrainingStep], rounds: int, device: str) -> dict[float, Cost]:
    """Value of an axis → cost of our step there."""
    seconds = seconds_of({value: step.from_latents for value, step in steps.items()}, rounds, device)
    return {value: Cost(seconds[value], step.megabytes()) for value, step in steps.items()}


def seconds_of(steps: dict[object, Callable[[], None]], rounds: int, device: str) -> dict[object, np.ndarray]:
    """(rounds,) of each."""
    seconds = in_turn({name: partial(timed, step, device) for name, step in steps.items()}, rounds)
    return {name: np.array(values) for name, values in seconds.items()}


class TrainingStep:
    """A model, an optimizer, and a batch of noise in place of music."""

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

    def from_latents(self) -> None:
        self._update(self.latents)

    def from_audio(self) -> None:
        """Rhythm targets and latents from the audio, clip by clip, as published."""
        from diff_v2m.features import rhythm

        for clip in self.audio.cpu():
            rhythm.odf(rhythm.to_mono(clip), self.config.sample_rate)
        self._update(self.model.encode(self.audio))

    def megabytes(self) -> float:
        """What the forward pass keeps for the backward pass, without the weights."""
        import torch

        kept, weights = set(), {p.untyped_storage() for p in self.model.parameters()}

        def keep(tensor):
            kept.add(tensor.untyped_storage())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self._loss(self.latents)
        return sum(storage.nbytes() for storage in kept - weights) / 1e6

    def _update(self, latents) -> None:
        self._loss(latents).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _loss(self, latents):
        import torch

        from diff_v2m.training.losses import training_losses

        conditions = self.model.condition(self.batch)
        noise, t = torch.randn_like(latents), torch.rand(self.clips, device=latents.device)
        return training_losses(self.model.model, conditions, latents, noise, t).total


def report(compared: dict[str, Cost], costs: dict, args: argparse.Namespace, picture: str) -> str:
    """Markdown."""
    import torch

    ours, threads = compared["ours"].seconds, torch.get_num_threads()
    unit = "CPU seconds" if args.device == "cpu" and threads == 1 else "wall-clock seconds"
    lines = [
        f"{args.model_config.name}, {args.clips} clips of a whole window, {args.device}, {threads} thread(s), "
        f"{args.rounds} rounds, {unit}. The published arrangement encodes audio and rhythm in every step and always "
        "uses gradient checkpointing; its T5 is skipped, and its layers are ours. Memory: what the forward pass keeps "
        "for the backward pass, without the weights.",
        "",
        "| | clips per second, median | time over ours, median (quartiles) | MB per clip |",
        "|---|---|---|---|",
    ]
    for name, (seconds, megabytes) in compared.items():
        speed, ratio = args.clips / np.median(seconds), median_and_quartiles(seconds / ours)
        lines.append(f"| {name} | {speed:.2f} | {ratio} | {megabytes / args.clips:.0f} |")
    lines += [
        "",
        f"![seconds and memory per step]({picture})",
        "",
        "| ours, by | seconds per step, median | MB |",
        "|---|---|---|",
    ]
    for axis, steps in costs.items():
        lines += [
            f"| {axis} {value:g} | {np.median(seconds):.3g} | {megabytes:.0f} |"
            for value, (seconds, megabytes) in steps.items()
        ]
    return "\n".join(lines) + "\n"


def plot(costs: dict, path: Path) -> None:
    """One column per axis: seconds above, memory below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    for (above, below), (axis, steps) in zip(figure.subplots(2, len(costs)).T, costs.items(), strict=True):
        low, middle, high = np.array([np.percentile(cost.seconds, [25, 50, 75]) for cost in steps.values()]).T
        above.errorbar(list(steps), middle, [middle - low, high - middle], marker="o", color="#4477aa")
        above.set_ylabel("seconds per step")
        below.plot(list(steps), [cost.megabytes for cost in steps.values()], marker="o", color="#4477aa")
        below.set_ylabel("MB kept")
        below.set_xlabel(axis)
        for axes in (above, below):
            axes.set_xlim(0)
            axes.set_ylim(0)
    figure.savefig(path, format="png", dpi=120)


if __name__ == "__main__":
    sys.exit(main())
