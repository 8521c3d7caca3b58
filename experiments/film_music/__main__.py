"""The world of the bundled default model.

python -m experiments.film_music listen         the music of some seeds as files, and what can be measured of it
python -m experiments.film_music reconstruct    what a score autoencoder keeps of some seeds
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from diff_v2m.common.errors import InputError


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.film_music", description="Music of the default model's world."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listen = commands.add_parser("listen", help="write wav and mid files and print a table")
    listen.add_argument("--seeds", type=seed_range, default=range(12), help="FIRST:STOP (default: 0:12)")
    listen.add_argument("--output", type=Path, required=True, help="folder for the files")
    listen.add_argument("--duration", type=float, default=30.0, help="seconds (default: %(default)s)")
    listen.add_argument("--family", default=None, help="one family of scenes (default: drawn from the seed)")
    listen.add_argument("--notes-only", action="store_true", help="no sound: measure the scores")
    reconstruct = commands.add_parser("reconstruct", help="print what a score autoencoder keeps of pieces")
    reconstruct.add_argument("--ckpt-path", type=Path, required=True, help="weights of a score autoencoder")
    reconstruct.add_argument("--seeds", type=seed_range, default=range(900_000, 900_040), help="FIRST:STOP, held out")
    settings = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if settings.command == "reconstruct":
        from experiments.film_music.reconstruction import reconstruct as measure

        sys.stdout.write(measure(settings.ckpt_path, settings.seeds))
        return 0
    from experiments.film_music.listen import listen as run

    sys.stdout.write(
        run(
            settings.seeds,
            settings.output,
            duration=settings.duration,
            family=settings.family,
            sound=not settings.notes_only,
        )
    )
    return 0


def seed_range(text: str) -> range:
    """FIRST:STOP."""
    first, _, stop = text.partition(":")
    if not (first.isdecimal() and stop.isdecimal() and int(first) < int(stop)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected FIRST:STOP, two whole numbers, the second one larger")
    return range(int(first), int(stop))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        sys.exit(f"film_music: {error}")
