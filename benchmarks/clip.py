"""A clip from its video to the four files, by the bundled model, after imports: `python -m benchmarks.clip`.

The whole of infer.py in this process, ours and with the published sampler in turn, after one run that does not count.
Nothing is taken from a cache.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.document import PERFORMANCE, write_section
from benchmarks.rounds import in_turn
from diff_v2m.common import cli
from diff_v2m.common.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
WAYS = {
    "ours": (),
    "ours, `--dtype int8`": ("--dtype", "int8"),
    "published sampler, `--sampler ddim --steps 250`": ("--sampler", "ddim", "--steps", "250"),
}


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m benchmarks.clip", description=__doc__)
    parser.add_argument("video", nargs="?", type=Path, default=next((ROOT / "examples").glob("*.mp4")))
    parser.add_argument("--ckpt-path", type=Path, default=ROOT / "saved_model" / "tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's choice")
    parser.add_argument("--output", type=Path, default=PERFORMANCE, help="whose section is replaced")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> None:
    import torch

    from diff_v2m import media

    if args.threads:
        torch.set_num_threads(args.threads)
    ways = {way: partial(score, args.video, args.ckpt_path, flags) for way, flags in WAYS.items()}
    taken = in_turn(ways, args.rounds)
    text = report(taken, args.video.name, media.probe(args.video).duration, torch.get_num_threads())
    write_section(args.output, "A clip", text)
    sys.stdout.write(text)


def score(video: Path, weights: Path, flags: tuple[str, ...]) -> tuple[float, float]:
    """Seconds on the clock and of all processors, children's included."""
    import infer

    with tempfile.TemporaryDirectory() as folder:
        always = ("--ckpt-path", str(weights), "--output-dir", folder, "--feature-cache", "none", "--device", "cpu")
        options = infer.parse([str(video), *always, *flags])
        before, start = os.times(), time.perf_counter()
        status = infer.run(options)
        after, end = os.times(), time.perf_counter()
    if status:
        raise InputError(f"{video}: no music was generated for it; the line above says why")
    return end - start, sum(after[:4]) - sum(before[:4])


def report(taken: dict[str, list[tuple[float, float]]], name: str, duration: float, threads: int) -> str:
    """Markdown."""
    import numpy as np

    base = np.array(taken["ours"])
    lines = [
        f"{name}, {duration:.1f} s, from the video to mp4, wav, png and json, on a CPU with {threads} thread(s), after "
        f"imports; {len(base)} rounds. Written by `python -m benchmarks.clip`.",
        "",
        "| | s, median | CPU s, median | times as fast as it plays | CPU time over ours, median (quartiles) |",
        "|---|---|---|---|---|",
    ]
    for way, spent in taken.items():
        clock, cpu = np.median(spent, axis=0)
        low, middle, high = np.percentile(np.array(spent)[:, 1] / base[:, 1], [25, 50, 75])
        ratio = f"{middle:.2f} ({low:.2f}–{high:.2f})"
        lines.append(f"| {way} | {clock:.2f} | {cpu:.2f} | {duration / clock:.1f} | {ratio} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
