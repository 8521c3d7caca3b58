"""`python -m diff_v2m.preprocess`: see the package for what it does."""

import argparse
import logging
import sys

from diff_v2m.common import cli

log = logging.getLogger("diff_v2m.preprocess")  # __name__ is "__main__" when this is run


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def run(options: argparse.Namespace) -> int:
    """0, or 1 when a source could not be used; the others are processed nevertheless."""
    failures = options.work(options)
    for name, reason in failures:
        log.error("not done: %s", reason if name in reason else f"{name}: {reason}")
    return 1 if failures else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """--latents and --shards are commands of their own."""
    if "--latents" in arguments:
        from diff_v2m.preprocess import latents

        options, work = latents.parse_arguments(arguments), latents.encode_sets
    elif any(argument.partition("=")[0] == "--shards" for argument in arguments):
        from diff_v2m.preprocess import shards

        options, work = shards.parse_arguments(arguments), shards.write_shards
    else:
        from diff_v2m.preprocess import clips

        options, work = clips.parse_arguments(arguments), clips.preprocess
    options.work = work
    return options


if __name__ == "__main__":
    sys.exit(main())
