"""Start-up time: `python -m benchmarks.startup`.

In every round, four new processes run. One imports torch. One imports the generation pipeline. One generates music for
a short clip with `bash infer.sh`. One generates it twice and times the second time, which has no imports.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.measuring import (
    PERFORMANCE,
    add_video,
    in_turn,
    median_and_quartiles,
    parse_with_command,
    write_section,
)
from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import ROOT

TORCH, PIPELINE = "import torch", "import diff_v2m.generation.pipeline"
COMMAND, WORK = "bash infer.sh", "its work, without imports"
THRESHOLDS = {(PIPELINE, TORCH): 1.5, (COMMAND, WORK): 2.5}
AGAIN = """
import os, sys, time, infer
options = infer.parse(sys.argv[1:])
infer.run(options)
before, start = os.times(), time.perf_counter()
infer.run(options)
after = os.times()
print(time.perf_counter() - start, sum(after[:4]) - sum(before[:4]))
"""


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m benchmarks.startup", description=__doc__)
    add_video(parser)
    parser.add_argument("--seconds", type=cli.number(above=0), default=7.6, help="length of the clip, from the start")
    parser.add_argument("--rounds", type=cli.whole_number(1), default=3)
    parser.add_argument("--output", type=Path, default=PERFORMANCE, help="document to update")
    return parse_with_command(parser, arguments)


def run(args: argparse.Namespace) -> None:
    from diff_v2m import media

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        media.cut_clip(args.video, 0, args.seconds, clip)
        flags = [str(clip), "--output-dir", f"{folder}/out", "--overwrite", "--feature-cache", "none"]
        contenders = {
            TORCH: partial(seconds, [sys.executable, "-c", TORCH]),
            PIPELINE: partial(seconds, [sys.executable, "-c", PIPELINE]),
            COMMAND: partial(seconds, ["bash", "infer.sh", *flags]),
            WORK: partial(work, flags),
        }
        measured = in_turn(contenders, args.rounds)
    text = report(measured, f"{args.video.name}, the first {args.seconds:g} s; {args.rounds} rounds.")
    write_section(args.output, "Start-up", args.command, text)
    sys.stdout.write(text)


def call(command: list[str]) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env={"DIFF_V2M_PYTHON": sys.executable, **os.environ}, capture_output=True, text=True
    )
    if done.returncode:
        raise InputError(f"{command[0]}: ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def seconds(command: list[str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a command."""
    before, start = os.times(), time.perf_counter()
    call(command)
    after = os.times()
    return time.perf_counter() - start, sum(after[2:4]) - sum(before[2:4])


def work(flags: list[str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of generating a second time in one process."""
    wall, cpu = call([sys.executable, "-c", AGAIN, *flags]).split()
    return float(wall), float(cpu)


def report(measured: dict[str, list[tuple[float, float]]], about: str) -> str:
    """Markdown."""
    import numpy as np

    lines = [about, "", "| | s, median | CPU s, median |", "|---|---|---|"]
    for name, values in measured.items():
        wall, cpu = np.median(values, axis=0)
        lines.append(f"| {name} | {wall:.2f} | {cpu:.2f} |")
    lines += ["", "| ratio | time | CPU time | threshold |", "|---|---|---|---|"]
    for (name, base), threshold in THRESHOLDS.items():
        ratios = np.array(measured[name]) / np.array(measured[base])
        wall, cpu = (median_and_quartiles(column) for column in ratios.T)
        lines.append(f"| {name} / {base} | {wall} | {cpu} | {threshold} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
