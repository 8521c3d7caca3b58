"""`python -m diff_v2m.training.summary RUN ...`: write summary.html and summary.png for each training run."""

import argparse
import logging
import sys
from pathlib import Path

from diff_v2m.common.errors import InputError

log = logging.getLogger("diff_v2m.training.summary")  # __name__ is "__main__" when this is run


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m diff_v2m.training.summary", description=__doc__)
    parser.add_argument("run", type=Path, nargs="+", help="folder of a run, as runs/first")
    settings = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from diff_v2m.training.run_page import write_page, write_picture

    for folder in settings.run:
        log.info("wrote %s", write_page(folder))
        if picture := write_picture(folder):
            log.info("wrote %s", picture)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"diff_v2m.training.summary: {error}")
