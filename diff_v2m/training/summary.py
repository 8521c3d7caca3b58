"""`python -m diff_v2m.training.summary RUN ...`: write summary.html and summary.png for each training run."""

import argparse
import logging
import sys
from pathlib import Path

from diff_v2m.common import cli

log = logging.getLogger("diff_v2m.training.summary")  # __name__ is "__main__" when this is run


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m diff_v2m.training.summary", description=__doc__)
    parser.add_argument("run", type=Path, nargs="+", help="folder of a run, as runs/first")
    return parser.parse_args(arguments)


def run(settings: argparse.Namespace) -> None:
    from diff_v2m.training.run_page import write_page, write_picture

    for folder in settings.run:
        log.info("wrote %s", write_page(folder))
        if picture := write_picture(folder):
            log.info("wrote %s", picture)


if __name__ == "__main__":
    sys.exit(main())
