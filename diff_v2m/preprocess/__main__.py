"""`python -m diff_v2m.preprocess COMMAND`: see the package for what each command does."""

import argparse
import logging
import sys
from pathlib import Path

from diff_v2m.common import cli
from diff_v2m.preprocess import clips, latents, shards

log = logging.getLogger("diff_v2m.preprocess")  # __name__ is "__main__" when this is run

COMMANDS = {"clips": clips, "latents": latents, "shards": shards}


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m diff_v2m.preprocess", description="Prepare a data set for training.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=module.SUMMARY, description=module.DESCRIPTION))
    options, more = parser.parse_known_args(with_command(arguments))
    if more and (options.command != "clips" or any(argument.startswith("-") for argument in more)):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    elif more:  # videos named after a flag
        options.videos += map(Path, more)
    return options


def with_command(arguments: list[str]) -> list[str]:
    """Older spellings, from before there were commands: `VIDEO …`, `--latents …` and `--shards DIR …`."""
    if not arguments or arguments[0] in (*COMMANDS, "-h", "--help"):
        return arguments
    flags = {argument.partition("=")[0] for argument in arguments}
    command = "latents" if "--latents" in flags else "shards" if "--shards" in flags else "clips"
    return [command, *(argument for argument in arguments if argument != "--latents")]


def run(options: argparse.Namespace) -> int:
    """Returns 1 if an input could not be processed, else 0. The other inputs are processed."""
    failures = COMMANDS[options.command].run(options)
    for name, reason in failures:
        log.error("not done: %s", reason if name in reason else f"{name}: {reason}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
