"""`python -m diff_v2m COMMAND`: tools beside infer.py and train.py.

A command is a module with SUMMARY, DESCRIPTION, add_arguments(parser) and run(options), listed in COMMANDS. It imports
slow packages in `run` only.
"""

import argparse
import sys

from diff_v2m.common import cli
from diff_v2m.cues import command as cues
from diff_v2m.generation import doctor, render
from diff_v2m.studio import command as studio
from diff_v2m.weights import command as weights

COMMANDS = {"cues": cues, "render": render, "doctor": doctor, "weights": weights, "studio": studio}


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m diff_v2m", description="Tools beside infer.py and train.py.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=module.SUMMARY, description=module.DESCRIPTION))
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int | None:
    return COMMANDS[options.command].run(options)


if __name__ == "__main__":
    sys.exit(main())
