"""Whether music follows a rhythm that someone draws: `python -m experiments.drawn_rhythm`.

For each held-out video of the film-music world, the rhythm that the model predicts is replaced by others with the same
values: rising, falling, soft and loud in turn, and in random order. Onset strength is that of the held-out check. The
music without the sheet gives chance.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from diff_v2m.common import cli
from diff_v2m.common.files import BUNDLED

TURN = 5  # seconds soft, then loud
QUALITY = {"mode": "mode", "family": "instruments", "pulse": "pulse", "cuts": "cuts"}  # by the first words of rows


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m experiments.drawn_rhythm", description=__doc__)
    parser.add_argument("--ckpt-path", type=Path, default=BUNDLED)
    parser.add_argument("--count", type=int, default=40, help="held-out videos (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("runs/film_music/held_out"), help="for the videos")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from diff_v2m.cues import Cue, CueSheet
    from diff_v2m.metrics.rhythm import correlation
    from experiments.film_music.check import ROWS, HeldOut, Piece, features_of, load_model
    from experiments.film_music.hearing import hear

    model, held_out = load_model(args.ckpt_path), HeldOut.render(args.folder, 0, args.count)
    quality = {QUALITY[name.split()[0]]: measure for name, measure, _ in ROWS if name.split()[0] in QUALITY}
    agreement, music = {}, {"without": [], "with": []}
    for scene, true in zip(tqdm(held_out.scenes, desc="composing"), held_out.real, strict=True):
        features, name = features_of(args.folder, scene.seed, model), f"{scene.seed:07d}"
        (plain,) = model.compose([features], [name])
        drawn = curves(plain.rhythm, scene.seed)
        sheets = [CueSheet([Cue(second, "rhythm", value) for second, value in enumerate(c)]) for c in drawn.values()]
        made = model.compose([features] * len(sheets), [name] * len(sheets), sheets=sheets)
        heard = [hear(one.audio, model.config.sample_rate) for one in (plain, *made)]
        for (shape, curve), one in zip(drawn.items(), heard[1:], strict=True):
            row = correlation(heard[0].by_second, curve), correlation(one.by_second, curve)
            agreement.setdefault(shape, []).append(row)
        for kind, ones in (("without", heard[:1]), ("with", heard[1:])):
            pieces = [Piece(scene, one, plain.plan.grid, plain.plan.key, true) for one in ones]
            music[kind] += [[measure(held_out.classifiers, piece) for measure in quality.values()] for piece in pieces]
    rows = {f"onset strength, r with the drawn one, {shape}": np.mean(pairs, 0) for shape, pairs in agreement.items()}
    means = [np.nanmean(np.array(values, float), axis=0) for values in music.values()]
    rows |= {name: pair for name, *pair in zip(quality, *means, strict=True)}
    sys.stdout.write(table(rows) + f"\n{args.count} held-out videos, {len(sheets)} sheets each.\n")


def curves(predicted: np.ndarray, seed: int) -> dict[str, list[float]]:
    """Shape → rhythm (S,), from the values of the predicted one."""
    rising, low_and_high = np.sort(predicted), np.quantile(predicted, [0.1, 0.9])
    shapes = {
        "rising": rising,
        "falling": rising[::-1],
        f"{TURN} s soft, {TURN} s loud": low_and_high[np.arange(len(predicted)) // TURN % 2],
        "in random order": np.random.default_rng(seed).permutation(predicted),
    }
    return {name: values.astype(float).tolist() for name, values in shapes.items()}


def table(rows: dict[str, np.ndarray]) -> str:
    """Markdown."""
    lines = ["| | without the sheet | with it |", "|---|---|---|"]
    lines += [f"| {name} | {before:.2f} | {after:.2f} |" for name, (before, after) in rows.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
