"""Memory and time of composing by the length of the video: `python -m benchmarks.length --minutes 1 10 60`.

Each length runs in a process of its own, from features to decoded music. The features are random, as they change
neither. Memory is the peak of what the process holds in main memory alone: long sound lies in files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from benchmarks.measuring import RESULTS, parse_with_command, write_section
from benchmarks.released import anonymous_gigabytes
from diff_v2m.common import cli
from diff_v2m.common.files import ROOT, TEACHER

INTERVAL = 0.05  # seconds between two looks at the memory


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m benchmarks.length", description=__doc__)
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 10, 60])
    parser.add_argument("--ckpt-path", type=Path, default=TEACHER)
    parser.add_argument("--steps", type=int, default=2, help="memory does not depend on it (default: %(default)s)")
    parser.add_argument("--one", action="store_true", help="only print the row of the first length")
    parser.add_argument("--output", type=Path, default=RESULTS / "directing.md", help="document to update")
    return parse_with_command(parser, arguments)


def run(args: argparse.Namespace) -> None:
    if args.one:
        sys.stdout.write(row(args.minutes[0], args.ckpt_path, args.steps) + "\n")
        return
    rows = ["| minutes | windows | loaded, MB | peak, MB | CPU seconds |", "|---|---|---|---|---|"]
    for count in args.minutes:
        command = [sys.executable, "-m", "benchmarks.length", "--one", "--minutes", str(count)]
        command += ["--ckpt-path", str(args.ckpt_path.resolve()), "--steps", str(args.steps)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        rows.append(done.stdout.strip().splitlines()[-1])
    about = f"{args.ckpt_path.name}, {args.steps} steps, CPU; main memory of the process, without files in memory."
    write_section(args.output, "Memory by length", args.command, "\n".join([about, "", *rows]))


def row(minutes: int, ckpt_path: Path, steps: int) -> str:
    """Compose `minutes` of music. Returns a row of the table."""
    import numpy as np

    from diff_v2m.features.video_features import MOTION_ROWS, VideoFeatures, motion_features
    from diff_v2m.generation.pipeline import DiffV2M

    model = DiffV2M.from_pretrained(ckpt_path, device="cpu")
    seconds, rng = 60 * minutes, np.random.default_rng(0)
    semantic, color = rng.random((seconds, 512), np.float32), rng.random((seconds, 3072), np.float32)
    cuts = np.arange(4.0, seconds, 5.0)
    scene_cut = np.zeros(seconds, np.int64)
    scene_cut[cuts.astype(int)] = 1
    found = motion_features(rng.uniform(0, 40, seconds * MOTION_ROWS).astype(np.float32))
    color /= color.sum(axis=1, keepdims=True)
    features = VideoFeatures(semantic, color, scene_cut, duration=float(seconds), cut_times=cuts, **found)
    loaded = peak = anonymous_gigabytes(os.getpid())
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(INTERVAL):
            peak = max(peak, anonymous_gigabytes(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    try:
        (made,) = model.compose([features], ["long"], steps=steps)
    finally:
        ended.set()
        watcher.join()
    cpu = time.process_time() - start
    return f"| {minutes} | {len(made.windows)} | {1000 * loaded:.0f} | {1000 * peak:.0f} | {cpu:.0f} |"


if __name__ == "__main__":
    sys.exit(main())
