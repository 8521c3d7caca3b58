"""What a training step costs: `python -m benchmarks.training`.

Ours, with latents and rhythm made beforehand, against the published arrangement, which encodes the audio and reads the
rhythm off it, clip by clip, for every batch (its T5 is left out); and how ours grows with clips, length and width.
Forward, backward and AdamW on random weights; seconds as in `benchmarks.step`.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.document import PERFORMANCE, write_section

ROOT = Path(__file__).resolve().parents[1]
CLIPS, LENGTHS, WIDTHS = (1, 2, 4, 8), (0.25, 0.5, 1.0), (64, 128, 256)  # length: share of the model's window


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--model-config", type=Path, default=ROOT / "configs" / "model" / "tiny.json")
    parser.add_argument("--clips", type=int, default=4, help="in a batch, for the comparison")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=PERFORMANCE, help="whose section is replaced")
    args = parser.parse_args(arguments)

    from diff_v2m import media

    raw = json.loads(args.model_config.read_text(encoding="utf-8"))
    compared = compare(raw, args.clips, args.rounds, args.device)
    scaling = {
        "clips": {n: _ours(raw, n, 1.0, None, args.device) for n in CLIPS},
        "length, of the window": {share: _ours(raw, 1, share, None, args.device) for share in LENGTHS},
        "width": {width: _ours(raw, 1, 1.0, width, args.device) for width in WIDTHS},
    }
    seconds = {axis: _seconds(steps, args.rounds, args.device) for axis, steps in scaling.items()}
    picture = args.output.with_name("training_speed.png")
    with media.atomic(picture) as part:
        plot(seconds, part)
    text = report(compared, seconds, args, picture.name)
    write_section(args.output, "A training step", text)
    sys.stdout.write(text)


def compare(raw: dict, clips: int, rounds: int, device: str) -> dict[str, np.ndarray]:
    """Arrangement → seconds of every round, in turn."""
    published = _Step(raw, clips, 1.0, None, device)
    return _seconds({"ours": published.with_latents, "published arrangement": published.from_audio}, rounds, device)


def _ours(raw: dict, clips: int, length: float, width: int | None, device: str) -> Callable[[], None]:
    return _Step(raw, clips, length, width, device).with_latents


def _seconds(steps: dict[object, Callable[[], None]], rounds: int, device: str) -> dict[object, np.ndarray]:
    """All in turn in every round, after one that does not count."""
    from benchmarks.step import timed

    taken: dict[object, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            duration = timed(step, device)
            if number:
                taken[name].append(duration)
    return {name: np.array(values) for name, values in taken.items()}


class _Step:
    """A model, an optimiser and a batch of noise for music."""

    def __init__(self, raw: dict, clips: int, length: float, width: int | None, device: str):
        import torch

        from diff_v2m.batch import Batch
        from diff_v2m.config import parse_model_config
        from diff_v2m.model import LatentDiffusion

        raw = copy.deepcopy(raw)
        if width is not None:
            raw["model"]["diffusion"]["config"]["embed_dim"] = width
        config = parse_model_config(raw, "benchmark")
        torch.manual_seed(0)
        self.config, self.clips = config, clips
        self.model = LatentDiffusion(config).to(device)
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
        from diff_v2m import rhythm

        for clip in self.audio.cpu():
            rhythm.odf(rhythm.to_mono(clip), self.config.sample_rate)
        self._learn(self.model.encode(self.audio))

    def _learn(self, latents) -> None:
        import torch

        from diff_v2m.training.losses import training_losses

        conditions = self.model.condition(self.batch)
        noise, t = torch.randn_like(latents), torch.rand(self.clips, device=latents.device)
        training_losses(self.model.model, conditions, latents, noise, t).total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def report(compared: dict, seconds: dict, args: argparse.Namespace, picture: str) -> str:
    ours = compared["ours"]
    lines = [
        f"{args.model_config.name}, {args.clips} clips of a whole window, {args.device}, {args.rounds} rounds. Written "
        "by `python -m benchmarks.training`.",
        "",
        "| | clips a second, median | time over ours, median (quartiles) |",
        "|---|---|---|",
    ]  # fmt: skip
    for name, taken in compared.items():
        low, middle, high = np.percentile(taken / ours, [25, 50, 75])
        lines.append(f"| {name} | {args.clips / np.median(taken):.2f} | {middle:.2f} ({low:.2f}–{high:.2f}) |")
    lines += ["", f"![seconds a step]({picture})", "", "| ours, by | seconds a step, median |", "|---|---|"]
    for axis, steps in seconds.items():
        lines += [f"| {axis} {value:g} | {np.median(taken):.3g} |" for value, taken in steps.items()]
    return "\n".join(lines) + "\n"


def plot(seconds: dict, path: Path) -> None:
    """A panel for each thing that grows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, (axis, steps) in zip(figure.subplots(1, len(seconds)), seconds.items(), strict=True):
        low, middle, high = np.array([np.percentile(taken, [25, 50, 75]) for taken in steps.values()]).T
        axes.errorbar(list(steps), middle, [middle - low, high - middle], marker="o", color="#4477aa")
        axes.set_xlabel(axis)
        axes.set_ylabel("seconds a step")
        axes.set_xlim(0)
        axes.set_ylim(0)
    figure.savefig(path, format="png", dpi=120)


if __name__ == "__main__":
    main()
