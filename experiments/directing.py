"""What a redone span and the best take are worth: `python -m experiments.directing`.

For each held-out procedural clip, some takes are composed and ranked by their score (diff_v2m/generation/takes.py), and
a span of the first take is composed again. Reported are the measures of the held-out check for the mean and the best
take; the joins of the span against the same times of the first take; and how far the new span is from the old one,
relative to two takes. Values of finished clips are kept in the folder, and the same command resumes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diff_v2m.common import cli
from diff_v2m.common.files import ROOT, write_json
from experiments.joins import COLUMNS, RATE, measure

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
    parser.add_argument("--folder", type=Path, default=Path("runs/directing"), help="for the videos and their values")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--table", action="store_true", help="only print the table of the clips that are finished")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> None:
    if not args.table:
        _measure(args)
    values = [json.loads(path.read_text()) for path in sorted(args.folder.glob("values/*.json"))]
    if values:
        sys.stdout.write(table(values))


def _measure(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from diff_v2m.generation.pipeline import DiffV2M
    from diff_v2m.generation.takes import score_take
    from experiments.synthetic import music
    from experiments.synthetic.check import ROWS, Classifiers
    from experiments.synthetic.render import claim_folder, render_mp4, render_wav
    from experiments.synthetic.scene import HELD_OUT, plan

    claim_folder(args.folder)
    model, classifiers = DiffV2M.from_pretrained(args.ckpt_path, device="cpu"), Classifiers()
    for number in tqdm(range(args.first, args.first + args.count), desc="generating"):
        scene = plan(HELD_OUT + number)
        name = f"{scene.seed:07d}"
        path = args.folder / "values" / f"{name}.json"
        if path.exists():
            continue
        video = render_mp4(args.folder / f"{name}.mp4", render_wav(args.folder / f"{name}.wav", scene.seed), scene.seed)
        features, true = model.extract(video), music.render(scene, RATE)
        takes = model.compose(
            [features] * args.takes, [name] * args.takes, seed=args.seed, variations=list(range(1, args.takes + 1))
        )
        scores = [score_take(take.audio, RATE, take.rhythm, features.cut_times).total for take in takes]
        redone = model.redo(takes[0], features, name, [SPAN], seed=args.seed)
        entry = {
            "takes": [
                {row.name: float(row.measure(classifiers, scene, take.audio[0], true)) for row in ROWS}
                for take in takes
            ],
            "scores": scores,
            "joins": [measure(redone.audio[0], join).tolist() for join in redone.joins],
            "before": [measure(takes[0].audio[0], join).tolist() for join in redone.joins],
            "distances": [_distance(redone, takes[0]), _distance(takes[1], takes[0])],
        }
        write_json(path, entry)


def _distance(one: Composition, other: Composition) -> float:
    """RMS difference of the log-mel spectra within SPAN, in dB."""
    from experiments.synthetic import measures

    first, last = (round(time * RATE) for time in SPAN)
    mels = [measures.log_mel(music.audio[0, first:last], RATE) for music in (one, other)]
    return float(20 / np.log(10) * np.sqrt(np.mean((mels[0] - mels[1]) ** 2)))


def table(values: list[dict[str, Any]]) -> str:
    """The tables of finished clips as markdown."""
    return f"{len(values)} clips, {len(values[0]['takes'])} takes each\n\n{_takes_table(values)}\n{_redo_table(values)}"


def _takes_table(values: list[dict[str, Any]]) -> str:
    names = list(values[0]["takes"][0])
    clips = [np.array([[take[name] for name in names] for take in entry["takes"]], float) for entry in values]
    means = np.array([np.nanmean(clip, axis=0) for clip in clips])
    chosen = np.array([clip[np.argmax(entry["scores"])] for clip, entry in zip(clips, values, strict=True)])
    gain = chosen - means  # (clips, measures)
    error = np.nanstd(gain, axis=0) / np.sqrt((~np.isnan(gain)).sum(axis=0))
    lines = ["| | mean take | best take | gain | standard error |", "|---|---|---|---|---|"]
    columns = (np.nanmean(means, axis=0), np.nanmean(chosen, axis=0), np.nanmean(gain, axis=0), error)
    lines += [
        f"| {name} | {mean:.3f} | {one:.3f} | {more:+.3f} | {spread:.3f} |"
        for name, mean, one, more, spread in zip(names, *columns, strict=True)
    ]
    return "\n".join(lines) + "\n"


def _redo_table(values: list[dict[str, Any]]) -> str:
    lines = ["| redone span | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, key in (("at joins", "joins"), ("the same times before", "before")):
        rows = np.array([row for entry in values for row in entry[key]], float)
        cells = [f"{value:.2f}" for value in np.nanmean(rows, axis=0)]
        lines.append(f"| {name} ({len(rows)}) | " + " | ".join(cells) + " |")
    new, takes = np.mean([entry["distances"] for entry in values], axis=0)
    return "\n".join(lines) + f"\n\nDistance of the new span to the old {new:.2f} dB, of two takes {takes:.2f} dB.\n"


if __name__ == "__main__":
    sys.exit(main())
