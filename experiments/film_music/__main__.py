"""The world of the bundled model.

python -m experiments.film_music render         data sets: scores, music, videos and features
python -m experiments.film_music listen         the music of some seeds as files, and measures of it
python -m experiments.film_music reconstruct    what a score autoencoder keeps of some seeds
python -m experiments.film_music check          thresholds of a model on held-out videos
python -m experiments.film_music compare        the same of several models, side by side
python -m experiments.film_music clips          what a model makes of real videos
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diff_v2m.common import cli
from diff_v2m.common.files import BUNDLED


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(
        prog="python -m experiments.film_music", description="Data and measurements of the bundled model."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    render = commands.add_parser("render", help="write scores, music, videos, features and dataset.json")
    render.add_argument("--output", type=Path, required=True, help="folder of the data set")
    render.add_argument("--count", type=cli.whole_number(1), default=600, help="clips (default: %(default)s)")
    render.add_argument("--first-seed", type=cli.whole_number(0), default=0, help="seed of the first clip")
    render.add_argument("--held-out", action="store_true", help="use the seeds that are never trained on")
    render.add_argument("--no-video", action="store_true", help="write no mp4; training does not need it")
    render.add_argument("--no-sound", action="store_true", help="write neither mp4 nor wav")
    render.add_argument("--scores-only", action="store_true", help="write nothing but scores, for the autoencoder")
    render.add_argument("--duration", type=cli.number(above=0), default=30.0, help="seconds (default: %(default)s)")

    listen = commands.add_parser("listen", help="write wav and mid files and print a table")
    listen.add_argument("--seeds", type=seed_range, default=range(12), help="FIRST:STOP (default: 0:12)")
    listen.add_argument("--output", type=Path, required=True, help="folder for the files")
    listen.add_argument("--duration", type=cli.number(above=0), default=30.0, help="seconds (default: %(default)s)")
    listen.add_argument("--family", default=None, help="one family of scenes (default: drawn from the seed)")
    listen.add_argument("--notes-only", action="store_true", help="no sound: measure the scores")

    reconstruct = commands.add_parser("reconstruct", help="print what a score autoencoder keeps of pieces")
    reconstruct.add_argument("--ckpt-path", type=Path, required=True, help="weights of a score autoencoder")
    reconstruct.add_argument("--seeds", type=seed_range, default=range(900_000, 900_040), help="FIRST:STOP, held out")

    clips = commands.add_parser("clips", help="print what a model makes of real videos")
    clips.add_argument("videos", nargs="+", type=Path)
    clips.add_argument("--ckpt-path", type=Path, default=BUNDLED, help="model (default: %(default)s)")
    clips.add_argument("--output", type=Path, default=Path("runs/film_music/clips"), help="folder for the music")

    check = commands.add_parser("check", help="measure a model on held-out videos and print the table of thresholds")
    check.add_argument("--ckpt-path", type=Path, default=BUNDLED, help="model (default: %(default)s)")
    check.add_argument("--folder", type=Path, default=Path("runs/film_music/held_out"), help="for videos and wavs")
    check.add_argument("--count", type=cli.whole_number(1), default=40, help="clips (default: %(default)s)")
    check.add_argument("--first", type=cli.whole_number(0), default=0, help="first held-out clip")
    check.add_argument("--steps", type=cli.whole_number(1), default=None, help="sampling steps (default: the model's)")
    check.add_argument("--cfg-scale", type=cli.number(), default=None, help="guidance scale (default: the model's)")

    compare = commands.add_parser("compare", help="measure several models on held-out videos, side by side")
    compare.add_argument("models", nargs="+", type=Path, help="weights; the names of their folders head the columns")
    compare.add_argument("--folder", type=Path, default=Path("runs/film_music/held_out"), help="for videos and wavs")
    compare.add_argument("--count", type=cli.whole_number(1), default=40, help="clips (default: %(default)s)")
    compare.add_argument("--first", type=cli.whole_number(0), default=0, help="first held-out clip (default: 0)")
    compare.add_argument("--plot", type=Path, help="a PNG to write: measures against network evaluations")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    if options.command == "render":
        from experiments.film_music.render import render_scores, render_set
        from experiments.film_music.scene import HELD_OUT

        first = options.first_seed + (HELD_OUT if options.held_out else 0)
        seeds = range(first, first + options.count)
        if options.scores_only:
            render_scores(options.output, seeds, duration=options.duration)
        else:
            render_set(
                options.output,
                seeds,
                video=not (options.no_video or options.no_sound),
                sound=not options.no_sound,
                duration=options.duration,
            )
    elif options.command == "check":
        from diff_v2m.generation.settings import SamplingSettings
        from experiments.film_music.check import check

        given = {"steps": options.steps, "guidance_scale": options.cfg_scale}
        settings = SamplingSettings(**{name: value for name, value in given.items() if value is not None})
        sys.stdout.write(check(options.ckpt_path, options.folder, options.count, settings, first=options.first))
    elif options.command == "compare":
        from experiments.film_music.comparison import compare

        found = compare(options.models, options.folder, options.count, first=options.first, plot=options.plot)
        sys.stdout.write(found)
    elif options.command == "clips":
        from experiments.film_music.clips import clip_table

        sys.stdout.write(clip_table(options.ckpt_path, options.videos, options.output))
    elif options.command == "reconstruct":
        from experiments.film_music.reconstruction import reconstruct

        sys.stdout.write(reconstruct(options.ckpt_path, options.seeds))
    else:
        from experiments.film_music.listen import listen

        sys.stdout.write(
            listen(
                options.seeds,
                options.output,
                duration=options.duration,
                family=options.family,
                sound=not options.notes_only,
            )
        )


def seed_range(text: str) -> range:
    """FIRST:STOP."""
    first, _, stop = text.partition(":")
    if not (first.isdecimal() and stop.isdecimal() and int(first) < int(stop)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected FIRST:STOP, two whole numbers, the second one larger")
    return range(int(first), int(stop))


if __name__ == "__main__":
    sys.exit(main())
