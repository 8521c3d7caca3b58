"""Error of each sampler by steps and network evaluations: `python -m benchmarks.sampler_error`.

The reference solution takes 1000 second-order steps from the same noise. The error is the RMS difference of the latents
over the RMS of the solution, averaged over seeds. The threshold is the error of the published sampler: DDIM, 250 steps.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measuring import PERFORMANCE, add_videos, parse_with_command, write_section
from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from diff_v2m.generation.settings import SamplingSettings

if TYPE_CHECKING:
    from torch import Tensor

    from diff_v2m.features.video_features import VideoFeatures
    from diff_v2m.generation.pipeline import DiffV2M
    from diff_v2m.model.conditioners import Conditions
    from diff_v2m.model.dit import ConditioningCache

PUBLISHED = "ddim", 250


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m benchmarks.sampler_error", description=__doc__)
    add_videos(parser)
    parser.add_argument("--ckpt-path", type=Path, default=Path("saved_model/tiny"))
    parser.add_argument("--students", type=Path, nargs="+", default=[], help="students of this model, to compare")
    parser.add_argument("--seeds", type=int, default=4, help="noise seeds per video")
    parser.add_argument("--steps", type=int, nargs="+", default=[15, 20, 25, 30, 35, 40, 50, 75, 100])
    parser.add_argument("--all-spacings", action="store_true", help="every spacing, not only the best of each sampler")
    parser.add_argument("--reference-steps", type=int, default=1000)
    parser.add_argument("--guidance-scale", type=float, default=3.0)
    parser.add_argument("--guidance-interval", type=float, nargs=2, default=(0.0, 1.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--seconds", type=int, default=30, help="seconds used of each video")
    parser.add_argument(
        "--section", help="section of the output to replace (default: Samplers, or Spacings of samplers)"
    )
    parser.add_argument("--output", type=Path, default=PERFORMANCE, help="document to update")
    return parse_with_command(parser, arguments)


def run(args: argparse.Namespace) -> None:
    from diff_v2m.generation.pipeline import DiffV2M

    model = DiffV2M.from_pretrained(args.ckpt_path)
    clips = [model.extract(video).slice(0, args.seconds) for video in args.videos]
    runs = all_runs(args.steps, args.all_spacings)
    guidance = args.guidance_scale, tuple(args.guidance_interval)
    students = {str(path): DiffV2M.from_pretrained(path) for path in args.students}
    errors, of_students = measure(model, clips, args.seeds, runs, args.reference_steps, guidance, students)
    outside = "" if guidance[1] == (0.0, 1.0) else " for t from {:g} to {:g}, one evaluation elsewhere"
    where = outside.format(*guidance[1])
    about = (
        f"{args.ckpt_path}, {len(clips)} clip(s), {args.seeds} seed(s) each, guidance {args.guidance_scale:g}{where}; "
        f"solution: {args.reference_steps} steps."
    )
    each = 1 if args.guidance_scale == 1 else 2
    text = report(errors, args.steps, about, each if guidance[1] == (0.0, 1.0) else None)
    text += report_of_students(of_students)
    section = args.section or ("Spacings of samplers" if args.all_spacings else "Samplers")
    write_section(args.output, section, args.command, text)
    sys.stdout.write(text)


def all_runs(steps: Sequence[int], all_spacings: bool) -> dict[tuple[str, str, int], Callable[..., Tensor]]:
    """(sampler, spacing, steps) → the sampler, the published one included."""
    from benchmarks.samplers import BEST_SPACINGS, MULTISTEP, SPACINGS
    from diff_v2m.model.diffusion import SAMPLERS

    runs = {("ddim", "released", count): SAMPLERS["ddim"] for count in {*steps, PUBLISHED[1]}}
    for name, sampler in MULTISTEP.items():
        for spacing in SPACINGS if all_spacings else BEST_SPACINGS[name]:
            runs |= {(name, spacing, count): partial(sampler, spacing=SPACINGS[spacing]) for count in steps}
    return runs


def measure(
    model: DiffV2M,
    clips: Sequence[VideoFeatures],
    seeds: int,
    runs: Mapping[tuple[str, str, int], Callable[..., Tensor]],
    reference_steps: int,
    guidance: tuple[float, tuple[float, float]],  # scale, interval of t
    students: Mapping[str, DiffV2M] | None = None,
) -> tuple[dict[tuple[str, str, int], float], dict[tuple[str, int], float]]:
    """(sampler, spacing, steps) → mean relative error, and (student, its evaluations) → the same."""
    import torch
    from tqdm import tqdm

    from benchmarks.samplers import MULTISTEP

    network, objective, errors = model.model.model, model.model.objective, {run: [] for run in runs}
    of_students: dict[tuple[str, int], list[float]] = {}
    switch = [] if network.fusion_switch_t is None else [network.fusion_switch_t]
    discontinuities = [objective.v_time(t) for t in (*guidance[1], *switch)]
    total = len(clips) * (reference_steps + sum(steps for _, _, steps in runs))
    with torch.inference_mode(), tqdm(total=total, desc="sampling", unit="step", leave=False) as progress:

        def update(*_: object) -> None:
            progress.update()

        for number, clip in enumerate(clips):
            noise, cache = prepare(model, clip, f"clip{number}", seeds)
            denoise = objective.as_v(partial(_denoise, network, cache, guidance))
            exact = MULTISTEP["ab2"](denoise, noise, reference_steps, update, discontinuities=discontinuities)
            for run, sample in runs.items():
                latents = sample(denoise, noise, run[2], update, discontinuities=discontinuities)
                errors[run] += relative_error(latents, exact)
            for name, student in (students or {}).items():
                latents = sample_student(student, clip, f"clip{number}", noise, guidance[0])
                steps = student.config.model.diffusion.student.steps
                of_students.setdefault((name, steps), []).extend(relative_error(latents, exact))
    return tuple({run: sum(values) / len(values) for run, values in found.items()} for found in (errors, of_students))


def prepare(model: DiffV2M, clip: VideoFeatures, name: str, seeds: int) -> tuple[Tensor, ConditioningCache]:
    """Noise (seeds, C, N) of a clip, and what the network computes once from its conditions."""
    import torch

    from diff_v2m.generation.canvas import draw_noise

    frames = model.config.latent_length(round(len(clip) * model.config.sample_rate))
    noise = torch.stack([draw_noise(seed, name, 1, 0, (model.config.latent_channels, frames)) for seed in range(seeds)])
    cache = model.model.model.precompute(conditions(model, clip, name, seeds, frames), frames)
    return noise.to(model.device), cache


def relative_error(latents: Tensor, exact: Tensor) -> list[float]:
    """Of each clip."""
    return ((latents - exact).pow(2).mean((1, 2)) / exact.pow(2).mean((1, 2))).sqrt().tolist()


def sample_student(student: DiffV2M, clip: VideoFeatures, name: str, noise: Tensor, scale: float) -> Tensor:
    """Its latents from this noise. Raises InputError for a model that is no student."""
    from diff_v2m.model.diffusion import SAMPLERS

    if student.config.model.diffusion.student is None:
        raise InputError(f"{student.source.path}: is no student; give it as --ckpt-path")
    settings = SamplingSettings(guidance_scale=scale).resolve(student.config)
    network, frames = student.model.model, noise.shape[-1]
    cache = network.precompute(conditions(student, clip, name, len(noise), frames), frames, scale)
    denoise = student.model.objective.as_v(lambda x, t: network.denoise(x, t, cache))
    return SAMPLERS[settings.sampler](denoise, noise, settings.steps)


def report_of_students(errors: Mapping[tuple[str, int], float]) -> str:
    """Markdown; empty without students."""
    if not errors:
        return ""
    rows = [f"| {name} | {steps} | {1000 * error:.1f} |" for (name, steps), error in errors.items()]
    return "\n".join(["", "| student | evaluations | error, ‰ |", "|---|---|---|", *rows]) + "\n"


def conditions(model: DiffV2M, clip: VideoFeatures, name: str, count: int, frames: int) -> Conditions:
    """Of a clip, `count` times, with the beat grid of a model that has one."""
    import torch

    from diff_v2m.data.collate import feature_batch
    from diff_v2m.score.score import grid_rows

    plan, grid = model.plan(clip, name, seed=0), None
    if plan is not None:
        grid = torch.from_numpy(grid_rows(plan.grid, plan.key, frames=frames, rate=model.config.latent_rate, start=0.0))
    rows = model.config.model.conditioning.rows_per_second
    batch = feature_batch([clip] * count, [name] * count, [2] * count, rows_per_second=rows, grids=[grid] * count)
    return model.model.condition(batch.to(model.device))


def _denoise(network, cache, guidance: tuple[float, tuple[float, float]], x: Tensor, t: Tensor) -> Tensor:
    """What the network predicts, at its own t."""
    scale, (low, high) = guidance
    return network.denoise(x, t, cache, guidance_scale=scale if low < t[0] <= high else 1.0)


def report(errors: dict[tuple[str, str, int], float], steps: Sequence[int], about: str, each: int | None = 2) -> str:
    """Markdown: error by sampler and steps, and the fewest steps within the published sampler's error.

    each: network evaluations in a step, two with guidance; None: not the same in all.
    """

    def cost(count: int) -> str:
        return "" if each is None else f", {each * count} evaluations"

    threshold = errors["ddim", "released", PUBLISHED[1]]
    kinds = sorted({run[:2] for run in errors})
    lines = [
        f"Relative error of the latents, in per mille. {about} Published sampler (ddim, {PUBLISHED[1]} steps): "
        f"**{1000 * threshold:.1f} ‰**{cost(PUBLISHED[1])}.",
        "",
        "| sampler | spacing | as good as published from | " + " | ".join(map(str, steps)) + " |",
        "|---|---|---|" + "---|" * len(steps),
    ]
    for name, spacing in kinds:
        row = [errors[name, spacing, count] for count in steps]
        enough = sorted(run[2] for run, error in errors.items() if run[:2] == (name, spacing) and error <= threshold)
        fewest = f"{enough[0]} steps{cost(enough[0])}" if enough else "more"
        lines.append(f"| {name} | {spacing} | {fewest} | " + " | ".join(f"{1000 * e:.1f}" for e in row) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
