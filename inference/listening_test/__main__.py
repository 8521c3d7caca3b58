"""A blind listening test: which of two soundtracks do people prefer?   docs/evaluation.md.

python -m inference.listening_test make --system NAME=DIR --system NAME=DIR --videos DIR --output DIR
python -m inference.listening_test analyse ANSWERS.json … --key KEY.json
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from diff_v2m.common import cli
from inference.evaluate import system

log = logging.getLogger("inference")


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def run(args: argparse.Namespace) -> int:
    """0 when every clip or every file of answers was used, else 1."""
    return _make(args) if args.command == "make" else _analyse(args)


def _make(args: argparse.Namespace) -> int:
    from inference.listening_test import building

    skipped = building.make(dict(args.system), args.videos, args.output, args.key, seed=args.seed, count=args.clips)
    for clip, reason in skipped.items():
        log.error("skipped: %s: %s", clip, reason)
    log.info("%s: index.html for the listeners; %s: the key, not for the listeners", args.output, args.key)
    return 1 if skipped else 0


def _analyse(args: argparse.Namespace) -> int:
    from diff_v2m.common.files import write_json
    from inference.listening_test import preferences

    found = preferences.analyse(args.answers, args.key, args.bootstrap, args.seed)
    sys.stdout.write(preferences.markdown(found) + "\n")
    if args.output is not None:
        write_json(args.output, found)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m inference.listening_test", description="A blind listening test.")
    commands = parser.add_subparsers(dest="command", required=True)
    path = {"type": Path, "metavar": "PATH"}

    make = commands.add_parser("make", help="write the page for the listeners and its key")
    make.add_argument(
        "--system",
        action="append",
        type=system,
        required=True,
        metavar="NAME=DIR",
        help="folder of one system's music; give two or more",
    )
    make.add_argument("--videos", required=True, help="folder of the videos that the music was made for", **path)
    make.add_argument("--output", required=True, help="new folder for the page and its media", **path)
    make.add_argument("--key", help="file with the system of each number (default: OUTPUT-key.json)", **path)
    count = {"type": cli.whole_number(0), "metavar": "N"}
    make.add_argument("--clips", help="number of clips to draw; 0: all (default)", default=0, **count)
    make.add_argument("--seed", help="seed (default: 0)", default=0, **count)

    analyse = commands.add_parser("analyse", help="compute preferences from the listeners' answers")
    analyse.add_argument("answers", nargs="+", help="files that the page saved", **path)
    analyse.add_argument("--key", required=True, help="the key that `make` wrote", **path)
    analyse.add_argument("--output", help="JSON file for all results", **path)
    analyse.add_argument("--bootstrap", help="resamples (default: 2000)", default=2000, **count)
    analyse.add_argument("--seed", help="seed of the resamples (default: 0)", default=0, **count)

    args = parser.parse_args(arguments)
    if args.command == "make":
        names = [name.casefold() for name, _ in args.system]
        if len(set(names)) < max(2, len(names)):
            parser.error(f"--system: expected two or more systems of different names; given: {', '.join(names)}")
        args.key = args.key or args.output.with_name(f"{args.output.absolute().name}-key.json")
    return args


if __name__ == "__main__":
    sys.exit(main())
