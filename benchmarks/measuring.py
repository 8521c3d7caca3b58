"""Shared by the benchmarks: interleaved rounds, timing, and sections of the documents in results/."""

from __future__ import annotations

import argparse
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from diff_v2m.common.files import ROOT, atomic

RESULTS = ROOT / "results"
PERFORMANCE = RESULTS / "performance.md"

Name = TypeVar("Name")
Measured = TypeVar("Measured")


def parse_with_command(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Parsed options. `command` is the command line, which is written at the top of the section."""
    command = shlex.join([*parser.prog.split(), *arguments])
    return parser.parse_args(arguments, argparse.Namespace(command=command))


def add_video(parser: argparse.ArgumentParser) -> None:
    """`video`: by default the first example. Without an example it must be given."""
    example = next(iter(examples()), None)
    parser.add_argument("video", nargs="?" if example else None, type=Path, default=example, help="video file")


def add_videos(parser: argparse.ArgumentParser) -> None:
    """`videos`: by default all examples. Without an example one must be given."""
    parser.add_argument("videos", nargs="*" if examples() else "+", type=Path, default=examples(), help="video files")


def examples() -> list[Path]:
    return sorted((ROOT / "examples").glob("*.mp4"))


def in_turn(contenders: Mapping[Name, Callable[[], Measured]], rounds: int) -> dict[Name, list[Measured]]:
    """Measurements of each contender in each round, after one round of warming up.

    Contenders are interleaved, so that machine noise affects all of them equally.
    """
    measured: dict[Name, list[Measured]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, measure in contenders.items():
            value = measure()
            if number:
                measured[name].append(value)
    return measured


def timed(step: Callable[[], object], device: str) -> float:
    """Seconds of one call.

    On a CPU with one thread these are CPU seconds, which other processes hardly change. Otherwise they are wall-clock
    seconds, including the GPU's work.
    """
    import torch

    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    wait()
    start = clock()
    step()
    wait()
    return clock() - start


def median_and_quartiles(values: Sequence[float], digits: int = 2) -> str:
    """Format as 1.50 (1.40–1.52)."""
    import numpy as np

    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def write_section(path: Path, title: str, command: str, text: str) -> None:
    """Put the command and `text` under "## title" of the markdown file at `path`; other sections stay as they are."""
    before = path.read_text(encoding="utf-8") if path.exists() else f"# {path.stem.capitalize()}\n"
    head, *sections = re.split(r"^(?=## )", before, flags=re.MULTILINE)
    section = f"## {title}\n\n    {command}\n\n{text.strip()}"
    titles = [old.partition("\n")[0] for old in sections]
    if f"## {title}" in titles:
        sections[titles.index(f"## {title}")] = section
    else:
        sections.append(section)
    with atomic(path) as part:
        part.write_text("\n\n".join(piece.strip() for piece in [head, *sections]) + "\n", encoding="utf-8")
