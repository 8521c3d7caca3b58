"""Time from a video to the four files of its music: `python -m benchmarks.clip`.

Runs all of infer.py in this process, after imports and without caches, in interleaved rounds.
"""

from __future__ import annotations

import argparse
import os
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

SETTINGS = {
    "ours": (),
    "ours, `--dtype int8`": ("--dtype", "int8"),
    "published sampler, `--sampler ddim --steps 250`": ("--sampler", "ddim", "--steps", "250"),
}


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m benchmarks.clip", description=__doc__)
    add_video(parser)
    parser.add_argument("--ckpt-path", type=Path, default=ROOT / "saved_model" / "tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--output", type=Path, default=PERFORMANCE, help="document to update")
    return parse_with_command(parser, arguments)


def run(args: argparse.Namespace) -> None:
    import torch

    from diff_v2m import media
    from diff_v2m.checkpoints.files import read_weights
    from diff_v2m.checkpoints.loading import config_of

    if args.threads:
        torch.set_num_threads(args.threads)
    is_student = config_of(read_weights(args.ckpt_path)).model.diffusion.student is not None
    contenders = {
        name: partial(generate, args.video, args.ckpt_path, flags)
        for name, flags in SETTINGS.items()
        if not (is_student and "--sampler" in flags)  # it has its own
    }
    load = os.getloadavg()[0]
    seconds = in_turn(contenders, args.rounds)
    machine = f"{torch.get_num_threads()} thread(s), a load of {load:.0f} to {os.getloadavg()[0]:.0f}"
    text = report(seconds, args.video.name, media.probe(args.video).duration, machine)
    write_section(args.output, f"A clip, {args.ckpt_path.stem}", args.command, text)
    sys.stdout.write(text)


def generate(video: Path, weights: Path, flags: tuple[str, ...]) -> tuple[float, float]:
    """Wall-clock seconds and CPU seconds, those of child processes included."""
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


def report(seconds: dict[str, list[tuple[float, float]]], name: str, duration: float, machine: str) -> str:
    """Markdown. machine: threads and load; under a load, seconds say nothing and CPU seconds little."""
    import numpy as np

    base = np.array(seconds["ours"])
    lines = [
        f"{name}, {duration:.1f} s, from the video to mp4, wav, png and json, on a CPU with {machine}, after imports; "
        f"{len(base)} rounds.",
        "",
        "| | s, median | CPU s, median | times real time | CPU time over ours, median (quartiles) |",
        "|---|---|---|---|---|",
    ]
    for setting, spent in seconds.items():
        clock, cpu = np.median(spent, axis=0)
        ratio = median_and_quartiles(np.array(spent)[:, 1] / base[:, 1])
        lines.append(f"| {setting} | {clock:.2f} | {cpu:.2f} | {duration / clock:.1f} | {ratio} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
