"""A guided denoising step: `python -m benchmarks`.

Ours against the published arrangement, stable-audio-tools' transformer and bare matrix products, in one process with
interleaved rounds. Ratios are taken within a round. Each size has its own section.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measuring import PERFORMANCE, median_and_quartiles, parse_with_command, write_section
from diff_v2m.common import cli

if TYPE_CHECKING:
    from benchmarks.step import Timing


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=("toy", "tiny", "mid", "released"), default=["tiny", "mid"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--compile", action="store_true", help="also measure ours with torch.compile")
    parser.add_argument("--output", type=Path, default=PERFORMANCE, help="document to update; plots go beside it")
    return parse_with_command(parser, arguments)


def run(args: argparse.Namespace) -> None:
    import torch

    from benchmarks.step import compare
    from diff_v2m.common.files import atomic

    if args.threads:
        torch.set_num_threads(args.threads)
    machine = torch.cuda.get_device_name() if args.device != "cpu" else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    unit = "CPU seconds" if args.device == "cpu" and threads == 1 else "wall-clock seconds"
    about = f"{machine}, {threads} thread(s), torch {torch.__version__}, float32, {args.rounds} rounds, {unit}"
    for size in args.sizes:
        timing = compare(size, args.rounds, args.device, args.compile)
        picture = args.output.with_name(f"step_{size}.png")
        with atomic(picture) as part:
            plot(timing, part)
        text = report(timing, about, picture.name)
        write_section(args.output, f"A guided step, {size}", args.command, text)
        sys.stdout.write(f"\n## {size}\n\n{text}")


def report(timing: Timing, about: str, picture: str) -> str:
    """Markdown: the time of every contender, and the speed-up of denoising a whole clip."""
    import numpy as np

    from diff_v2m.generation.settings import DEFAULT_SAMPLER, DEFAULT_STEPS, PUBLISHED_STEPS

    ours, baseline = timing.seconds["ours"], timing.seconds["published arrangement"]
    differences = ", ".join(f"{name} {share:.1e}" for name, share in timing.differences.items())
    lines = [
        f"One guided step of one 30 s clip. {about}.",
        "",
        f"![seconds per step]({picture})",
        "",
        f"Matrix products of our step: {timing.gflop:.3g} GFLOP. Largest difference from the output of the published "
        f"arrangement, relative to its largest value: {differences}.",
        "",
        "| | median, s | time over ours, median (quartiles) |",
        "|---|---|---|",
    ]
    for name, seconds in timing.seconds.items():
        lines.append(f"| {name} | {np.median(seconds):.4g} | {median_and_quartiles(seconds / ours)} |")
    share = np.median(timing.seconds["matrix products alone"] / ours)
    rate = timing.gflop / np.median(ours)
    steps = DEFAULT_STEPS[DEFAULT_SAMPLER]
    clip = PUBLISHED_STEPS * np.median(baseline) / (steps * np.median(ours) + timing.precompute)
    lines += [
        "",
        f"Ours runs at {rate:.1f} GFLOP/s, {100 * share:.0f} % of the rate of bare products. The conditioning cache "
        f"takes {timing.precompute:.3g} s, once per clip. With it, {steps} steps of ours denoise a clip "
        f"**{clip:.1f} times** as fast as {PUBLISHED_STEPS} published steps.",
    ]
    return "\n".join(lines) + "\n"


def plot(timing: Timing, path: Path) -> None:
    """Medians as bars, quartiles as whiskers."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axes = figure.subplots()
    low, middle, high = np.array([np.percentile(s, [25, 50, 75]) for s in timing.seconds.values()]).T
    axes.barh(list(timing.seconds), middle, xerr=[middle - low, high - middle], color="#4477aa")
    axes.invert_yaxis()
    axes.set_xlabel("seconds per guided step")
    figure.savefig(path, format="png", dpi=120)


if __name__ == "__main__":
    sys.exit(main())
