"""The procedural world: `render` writes a data set, `check` evaluates a model on held-out clips."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diff_v2m.common import cli
from diff_v2m.common.files import ROOT
from diff_v2m.config import DTYPES

TINY = ROOT / "saved_model" / "tiny"


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m experiments.synthetic", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    render = commands.add_parser("render", help="write videos, music, features and dataset.json")
    render.add_argument("--output", type=Path, required=True, help="folder of the data set")
    render.add_argument("--count", type=int, default=600, help="clips (default: %(default)s)")
    render.add_argument(
        "--first-seed", type=int, default=0, help="seed of the first clip; the following clips have the following seeds"
    )
    render.add_argument("--held-out", action="store_true", help="use the seeds that are never trained on")
    render.add_argument("--music-only", action="store_true", help="write no videos; enough to train an autoencoder")

    check = commands.add_parser("check", help="evaluate held-out clips and print how well the music fits")
    check.add_argument("--ckpt-path", type=Path, default=TINY, help="model to evaluate (default: %(default)s)")
    check.add_argument("--output", type=Path, default=Path("runs/check"), help="folder for videos and music")
    check.add_argument("--count", type=int, default=40, help="held-out clips (default: %(default)s)")
    check.add_argument(
        "--first-seed", type=int, default=0, help="index of the first held-out clip (default: %(default)s)"
    )
    check.add_argument("--steps", type=int, default=None, help="sampling steps (default: the model's)")
    check.add_argument("--guidance-scale", type=float, default=3.0, help="(default: %(default)s)")
    check.add_argument(
        "--dtype",
        default="float32",
        choices=DTYPES,
        help="precision of the diffusion transformer (default: %(default)s)",
    )
    check.add_argument("--seed", type=int, default=42, help="(default: %(default)s)")

    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    if options.command == "check":
        from diff_v2m.generation.settings import SamplingSettings
        from experiments.synthetic.check import check

        sampling = SamplingSettings(seed=options.seed, steps=options.steps, guidance_scale=options.guidance_scale)
        table = check(
            options.ckpt_path, options.output, options.count, sampling, first=options.first_seed, dtype=options.dtype
        )
        sys.stdout.write(table)
        return

    from experiments.synthetic.render import render_music, render_set
    from experiments.synthetic.scene import HELD_OUT

    first = options.first_seed + (HELD_OUT if options.held_out else 0)
    render = render_music if options.music_only else render_set
    render(options.output, range(first, first + options.count))


if __name__ == "__main__":
    sys.exit(main())
