"""Time and memory of every stage at released size: `python -m benchmarks.released FOLDER`.

Makes random weights of the released names and shapes in FOLDER (12 GB at full depth), unless they are there, and runs
each stage in a process of its own. With --against TREE, another checkout of this repository, each stage runs in both,
one after the other, as often as --rounds says. Seconds are CPU seconds, the least of the rounds; memory is the peak of
what is no file in memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.measuring import RESULTS, parse_with_command, write_section
from benchmarks.released_stages import STAGES
from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import ROOT

EVERY = 0.1  # seconds between two looks at a process's memory


class Cost(NamedTuple):
    """Of one stage, without what its process does before."""

    seconds: float  # CPU
    gigabytes: float  # of the whole process


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m benchmarks.released", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the weights are, or will be")
    parser.add_argument("--depth", type=int, default=24, help="layers of the weights to make (default: %(default)s)")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE", help="only these")
    parser.add_argument("--against", type=Path, metavar="TREE", help="another checkout, to compare with")
    parser.add_argument("--rounds", type=cli.whole_number(1), default=1, help="(default: %(default)s)")
    parser.add_argument("--title", help="of the section; default: the depth")
    parser.add_argument("--output", type=Path, default=RESULTS / "released.md", help="document to update")
    return parse_with_command(parser, arguments)


def run(args: argparse.Namespace) -> None:
    from benchmarks.released_weights import depth_of, make

    if args.against and not (args.against / "diff_v2m").is_dir():
        raise InputError(f"--against {args.against}: expected a checkout of this repository")
    make(args.folder, args.depth)
    trees = {"before": args.against, "after": ROOT} if args.against else {"now": ROOT}
    load, costs = os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        for name in args.stages:
            rounds = [
                {label: measure(name, tree, args.folder, Path(scratch)) for label, tree in trees.items()}
                for _ in range(args.rounds)
            ]
            costs[name] = {label: least([costs[label] for costs in rounds]) for label in trees}
            depth = depth_of(args.folder)  # written after each stage: all of them take an hour
            text = report(costs, list(trees), depth, (load, os.getloadavg()[0]), args.rounds)
            write_section(args.output, args.title or f"{depth} layers", args.command, text)
    sys.stdout.write(text)


def measure(stage: str, tree: Path, folder: Path, scratch: Path) -> Cost:
    """Run one stage with the code of a tree. Raises InputError if it fails."""
    tree, paths = tree.resolve(), (Path(__file__).with_name("released_stages.py"), folder, scratch)
    places = {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(scratch.resolve() / tree.name)}
    script, *rest = (str(path.resolve()) for path in paths)  # absolute: the process runs in the tree
    command = [sys.executable, script, stage, *rest]
    # the tree decides on its own, see diff_v2m/__init__.py; this process has imported this one's
    inherited = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    process = subprocess.Popen(command, env=inherited | places, stdout=subprocess.PIPE, text=True, cwd=tree)
    most = 0.0
    while process.poll() is None:
        most = max(most, anonymous_gigabytes(process.pid))
        time.sleep(EVERY)
    if process.returncode:
        raise InputError(f"{stage}: failed in {tree}; the lines above say why")
    return Cost(float(process.stdout.read().split()[-1]), most)


def least(costs: list[Cost]) -> Cost:
    """Of several rounds: seconds of the one that other processes disturbed least, and the peak of all."""
    return Cost(min(cost.seconds for cost in costs), max(cost.gigabytes for cost in costs))


def anonymous_gigabytes(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("RssAnon")), 0.0)


def report(
    costs: dict[str, dict[str, Cost]], labels: list[str], depth: int, load: tuple[float, float], rounds: int
) -> str:
    """Markdown."""
    times = f", the least of {rounds} rounds" if rounds > 1 else ""
    lines = [
        f"Random weights of the released names and shapes, {depth} of 24 layers. One thread of a machine with "
        f"{os.cpu_count()} cores and a load of {load[0]:.0f} to {load[1]:.0f}: CPU seconds{times}, which other "
        "processes lengthen less than the wall clock. Memory: peak of the process, without what is mapped from files.",
        "",
        "| stage | " + " | ".join(f"{label}, s | {label}, GB" for label in labels) + " |",
        "|---" * (1 + 2 * len(labels)) + "|",
    ]
    for stage, found in costs.items():
        cells = [f"{cost.seconds:.3g} | {cost.gigabytes:.2f}" for cost in found.values()]
        lines.append(f"| {STAGES[stage].__doc__.strip().rstrip('.')} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
