"""What one sampling step may take over from the last: `python -m benchmarks.reuse`.

guidance   the difference of conditional and unconditional prediction, computed at every second or third step and
           continued along a line in log-SNR between them
features   what the inner layers add to the tokens, computed at every second step, after DeepCache (arXiv 2312.00858)
           and FORA (arXiv 2407.01425)

An evaluation is one pass of the network over one clip. The error is that of benchmarks/sampler_error.py.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.measuring import PERFORMANCE, add_videos, parse_with_command, write_section
from benchmarks.sampler_error import PUBLISHED, prepare, relative_error
from benchmarks.samplers import MULTISTEP
from diff_v2m.common import cli
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.model.diffusion import SAMPLERS, Objective, interpolation_weights

if TYPE_CHECKING:
    from diff_v2m.model.dit import ConditioningCache, GuidedDiT, LatentDiffusion

SCALE = 3.0  # of guidance
WARM_UP = 3  # first steps, in which everything is computed


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(
        prog="python -m benchmarks.reuse", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_videos(parser)
    parser.add_argument("--ckpt-path", type=Path, default=Path("saved_model/tiny"))
    parser.add_argument("--seeds", type=int, default=2, help="noise seeds per video")
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 30])
    parser.add_argument("--reference-steps", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=30, help="seconds used of each video")
    parser.add_argument("--output", type=Path, default=PERFORMANCE, help="document to update")
    return parse_with_command(parser, arguments)


def run(args: argparse.Namespace) -> None:
    model = DiffV2M.from_pretrained(args.ckpt_path)
    found: dict[str, list[list[float]]] = {}
    with torch.inference_mode():
        for number, video in enumerate(tqdm(args.videos, desc="sampling")):
            clip = model.extract(video).slice(0, args.seconds)
            noise, cache = prepare(model, clip, f"clip{number}", args.seeds)
            for row, errors in measure(model.model, cache, noise, args.steps, args.reference_steps).items():
                found.setdefault(row, []).extend(errors)
    text = report(found, f"{args.ckpt_path}, {len(args.videos)} clip(s), {args.seeds} seed(s) each, guidance {SCALE:g}")
    write_section(args.output, "Reusing predictions of earlier steps", args.command, text)
    sys.stdout.write(text)


def measure(
    model: LatentDiffusion, cache: ConditioningCache, noise: Tensor, steps: Sequence[int], reference_steps: int
) -> dict[str, list[list[float]]]:
    """Row of the table → evaluations and error of each clip."""
    network, objective = model.model, model.objective
    places = [] if network.fusion_switch_t is None else [objective.v_time(network.fusion_switch_t)]
    whole = objective.as_v(Guided(network, cache, objective))
    exact = MULTISTEP["ab2"](whole, noise, reference_steps, discontinuities=places)

    def sample(sampler: str, count: int, every: int = 1) -> list[list[float]]:
        guided = Guided(network, cache, objective, every)
        latents = (SAMPLERS | MULTISTEP)[sampler](objective.as_v(guided), noise, count, discontinuities=places)
        return [[guided.evaluations, error] for error in relative_error(latents, exact)]

    found = {f"published: {PUBLISHED[0]}, {PUBLISHED[1]} steps": sample(*PUBLISHED)}
    for sampler in ("dpmpp-3m", "adams"):
        for count in steps:
            name = f"{sampler}, {count} steps"
            found[f"{name}, all computed"] = sample(sampler, count)
            for every in (2, 3):
                found[f"{name}, guidance at every {every}. step"] = sample(sampler, count, every)
            with kept_features(network) as share:
                rows = sample(sampler, count)
            found[f"{name}, inner layers at every 2. step"] = [[2 * share(count), error] for _, error in rows]
    return found


@dataclass
class Guided:
    """The guided prediction of the network, at its own t. Its difference is computed in the first steps and at every
    `every`-th one.
    """

    network: GuidedDiT
    cache: ConditioningCache
    objective: Objective
    every: int = 1
    step: int = 0
    evaluations: int = 0
    differences: list[tuple[float, Tensor]] = field(default_factory=list)  # log-SNR and value, latest first

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        anew = computed(self.step, self.every)
        self.step += 1
        self.evaluations += 1 + anew
        time = min(max(self.objective.v_time(float(t[0])), 1e-6), 1 - 1e-6)
        log_snr = -math.log(math.tan(time * math.pi / 2))
        if anew:
            fusion = self.network.model.transformer.fusion_at(t)
            conditional, unconditional = self.network.with_and_without(x, t, self.cache, fusion)
            self.differences = [(log_snr, conditional - unconditional), *self.differences[:1]]
        else:
            conditional = self.network.denoise(x, t, self.cache)
        last = self.differences[0][0]
        weights = interpolation_weights([place - last for place, _ in self.differences], [1.0, log_snr - last])
        difference = sum(weight * value for weight, (_, value) in zip(weights, self.differences, strict=True))
        return conditional + (SCALE - 1) * difference


class KeptLayer(nn.Module):
    """A layer that adds at every second step what it added at the step before."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer, self.step, self.added = layer, 0, None

    def forward(self, x: Tensor, *inputs: object) -> Tensor:
        if computed(self.step, 2):
            self.added = self.layer(x, *inputs) - x
        self.step += 1
        return x + self.added


@contextmanager
def kept_features(network: GuidedDiT) -> Iterator[Callable[[int], float]]:
    """All layers but the first and the last are KeptLayers. Yields steps → evaluations that they are worth."""
    layers = network.model.transformer.layers
    own = list(layers)
    for i in range(1, len(own) - 1):
        layers[i] = KeptLayer(own[i])

    def worth(steps: int) -> float:
        anew = sum(computed(step, 2) for step in range(steps))
        return anew + (steps - anew) * 2 / len(own)

    try:
        yield worth
    finally:
        for i, layer in enumerate(own):
            layers[i] = layer


def computed(step: int, every: int) -> bool:
    return step < WARM_UP or (step - WARM_UP) % every == 0


def report(found: dict[str, list[list[float]]], about: str) -> str:
    """Markdown: the means of each row."""
    lines = [f"{about}.", "", "| | evaluations | error, ‰ |", "|---|---|---|"]
    for name, values in found.items():
        evaluations, error = torch.tensor(values).mean(0).tolist()
        lines.append(f"| {name} | {evaluations:.0f} | {1000 * error:.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
