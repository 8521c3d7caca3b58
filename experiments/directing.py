"""What a redone span and the best take are worth: `python -m experiments.directing`.

For each held-out procedural clip, some takes are composed and ranked by their score (diff_v2m/generation/takes.py), and
a span of the first take is composed again. Reported are the measures of the held-out check for the mean and the best
take; the joins of the span against other times; and how far the new span is from the old one, relative to two takes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diff_v2m.common import cli
from diff_v2m.common.files import ROOT
from experiments.long_video import COLUMNS, RATE, elsewhere, measure

if TYPE_CHECKING:
    from diff_v2m.generation.pipeline import Composition

SPAN = (11.0, 19.0)  # seconds


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m experiments.directing", description=__doc__)
    parser.add_argument("--ckpt-path", type=Path, default=ROOT / "saved_model" / "tiny", help="16 kHz, mono")
    parser.add_argument("--count", type=int, default=40, help="held-out clips (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="index of the first one (default: %(default)s)")
    parser.add_argument("--takes", type=int, default=8, help="takes of each (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("runs/directing"), help="for the videos")
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from diff_v2m.generation.pipeline import DiffV2M
    from diff_v2m.generation.takes import score_take
    from experiments.synthetic import music
    from experiments.synthetic.check import ROWS, Classifiers
    from experiments.synthetic.render import claim_folder, render_mp4, render_wav
    from experiments.synthetic.scene import HELD_OUT, plan

    claim_folder(args.folder)
    model, classifiers = DiffV2M.from_pretrained(args.ckpt_path, device="cpu"), Classifiers()
    values: list[np.ndarray] = []  # of each clip (takes, measures)
    best: list[int] = []
    at_joins: list[np.ndarray] = []
    apart: list[np.ndarray] = []
    distances: list[tuple[float, float]] = []
    for number in tqdm(range(args.first, args.first + args.count), desc="generating"):
        scene = plan(HELD_OUT + number)
        name = f"{scene.seed:07d}"
        video = render_mp4(args.folder / f"{name}.mp4", render_wav(args.folder / f"{name}.wav", scene.seed), scene.seed)
        features, true = model.extract(video), music.render(scene, RATE)
        takes = model.compose(
            [features] * args.takes, [name] * args.takes, seed=args.seed, variations=list(range(1, args.takes + 1))
        )
        scores = [score_take(take.audio, RATE, take.rhythm, features.cut_times) for take in takes]
        best.append(int(np.argmax([score.total for score in scores])))
        values.append(
            np.array([[row.measure(classifiers, scene, take.audio[0], true) for row in ROWS] for take in takes])
        )

        redone = model.redo(takes[0], features, name, [SPAN], seed=args.seed)
        at_joins += [measure(redone.audio[0], join) for join in redone.joins]
        others = elsewhere([10.0, *redone.joins, 20.0], features.duration)[: len(redone.joins)]
        apart += [measure(redone.audio[0], other) for other in others]
        distances.append((_distance(redone, takes[0]), _distance(takes[1], takes[0])))

        sys.stdout.write(f"\n{len(values)} clips, {args.takes} takes each\n\n")
        sys.stdout.write(_takes_table([row.name for row in ROWS], values, best))
        sys.stdout.write("\n" + _redo_table(at_joins, apart, distances) + "\n")
        sys.stdout.flush()


def _distance(one: Composition, other: Composition) -> float:
    """RMS difference of the log-mel spectra within SPAN, in dB."""
    from experiments.synthetic import measures

    first, last = (round(time * RATE) for time in SPAN)
    mels = [measures.log_mel(music.audio[0, first:last], RATE) for music in (one, other)]
    return float(20 / np.log(10) * np.sqrt(np.mean((mels[0] - mels[1]) ** 2)))


def _takes_table(names: list[str], values: list[np.ndarray], best: list[int]) -> str:
    means = np.nanmean([clip.mean(axis=0) for clip in values], axis=0)
    chosen = np.nanmean([clip[take] for clip, take in zip(values, best, strict=True)], axis=0)
    lines = ["| | mean take | best take | gain |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {mean:.3f} | {one:.3f} | {one - mean:+.3f} |"
        for name, mean, one in zip(names, means, chosen, strict=True)
    ]
    return "\n".join(lines) + "\n"


def _redo_table(at_joins: list[np.ndarray], apart: list[np.ndarray], distances: list[tuple[float, float]]) -> str:
    lines = ["| redone span | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, rows in (("at joins", at_joins), ("elsewhere", apart)):
        lines.append(
            f"| {name} ({len(rows)}) | " + " | ".join(f"{value:.2f}" for value in np.nanmean(rows, axis=0)) + " |"
        )
    new, takes = np.mean(distances, axis=0)
    return "\n".join(lines) + f"\n\nDistance of the new span to the old {new:.2f} dB, of two takes {takes:.2f} dB.\n"


if __name__ == "__main__":
    sys.exit(main())
