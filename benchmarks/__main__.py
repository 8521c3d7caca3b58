"""Time a guided step against the published arrangement, stable-audio-tools and bare matrix products.

One process, all contenders in turn in every round; medians, and ratios within a round with their quartiles.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.document import PERFORMANCE, write_section

if TYPE_CHECKING:
    from benchmarks.step import Timing


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=("toy", "tiny", "mid", "released"), default=["tiny", "mid"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's choice")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path, default=PERFORMANCE, help="the plot goes beside it")
    args = parser.parse_args(arguments)

    import torch

    from benchmarks.step import compare
    from diff_v2m import media

    if args.threads:
        torch.set_num_threads(args.threads)
    timings = {size: compare(size, args.rounds, args.device) for size in args.sizes}
    machine = f"{torch.cuda.get_device_name() if args.device != 'cpu' else platform.processor() or platform.machine()}"
    threads = torch.get_num_threads()
    about = f"{machine}, {threads} thread(s), torch {torch.__version__}, float32, {args.rounds} rounds; " + (
        "CPU seconds, which other programs on the machine hardly touch"
        if args.device == "cpu" and threads == 1
        else "seconds on the clock"
    )
    picture = args.output.with_suffix(".png")
    with media.atomic(picture) as part:
        plot(timings, part)
    text = report(timings, about, picture.name)
    write_section(args.output, "A guided step", text)
    sys.stdout.write(text)


def report(timings: dict[str, Timing], about: str, picture: str) -> str:
    """Markdown: a table for each size."""
    import numpy as np

    lines = [f"One guided step of one 30 s clip. {about}.", "Written by `python -m benchmarks`.", "",
             f"![seconds a step]({picture})", ""]  # fmt: skip
    for size, timing in timings.items():
        ours = timing.seconds["ours"]
        differences = ", ".join(f"{name} {share:.1e}" for name, share in timing.differences.items())
        lines += [
            f"### {size}",
            "",
            f"Our step makes {timing.gflop:.3g} GFLOP of matrix products. Outputs differ from the published "
            f"arrangement's by so much of its largest value: {differences}.",
            "",
            "| | median, s | time over ours, median (quartiles) |",
            "|---|---|---|",
        ]
        for name, seconds in timing.seconds.items():
            low, middle, high = np.percentile(seconds / ours, [25, 50, 75])
            lines.append(f"| {name} | {np.median(seconds):.4g} | {middle:.2f} ({low:.2f}–{high:.2f}) |")
        share = np.median(timing.seconds["matrix products alone"] / ours)
        rate = timing.gflop / np.median(ours)
        lines += ["", f"Ours runs at {rate:.1f} GFLOP/s, {100 * share:.0f} % of what bare products reach.", ""]
    return "\n".join(lines)


def plot(timings: dict[str, Timing], path: Path) -> None:
    """Medians as bars, quartiles as whiskers, a panel for each size."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(timings), 3.2), layout="constrained")
    for axes, (size, timing) in zip(np.atleast_1d(figure.subplots(1, len(timings))), timings.items(), strict=True):
        low, middle, high = np.array([np.percentile(s, [25, 50, 75]) for s in timing.seconds.values()]).T
        axes.barh(list(timing.seconds), middle, xerr=[middle - low, high - middle], color="#4477aa")
        axes.invert_yaxis()
        axes.set_title(size)
        axes.set_xlabel("seconds a guided step")
    figure.savefig(path, format="png", dpi=120)


if __name__ == "__main__":
    main()
