"""Whether hits land, and what that does to the music: `python -m experiments.hits`.

For each held-out procedural video some random moments are chosen, at least 2 s apart and from both ends. Music is
composed with and without a cue sheet that has them as hits. Onsets are found by the measure of the held-out check,
which the landing does not use. The music without the sheet gives chance. The videos and measures are those of the world
that the model was trained on. Values of finished videos are kept in the folder, and the same command resumes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diff_v2m.common import cli
from diff_v2m.common.files import ROOT, write_json

if TYPE_CHECKING:
    from diff_v2m.features.video_features import VideoFeatures
    from diff_v2m.generation.pipeline import Composition, DiffV2M

TOLERANCE = 0.04  # seconds
APART = 2.0  # seconds between hits, and from the ends
TINY_QUALITY = ("mode", "instrument", "pulse", "cuts")  # rows of the held-out check of the synthetic world
FILM_QUALITY = {  # rows of that of the film-music world, by the first word of their names
    "mode": "mode",
    "family": "instruments",
    "pulse": "pulse",
    "beat": "beat F1",
    "cuts": "cuts",
}


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m experiments.hits", description=__doc__)
    parser.add_argument("--ckpt-path", type=Path, default=ROOT / "saved_model" / "tiny")
    parser.add_argument("--count", type=int, default=40, help="held-out videos (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="first held-out video (default: %(default)s)")
    parser.add_argument("--hits", type=int, default=4, help="hits of each (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("runs/hits"), help="for the videos and their values")
    parser.add_argument("--table", action="store_true", help="only print the table of the videos that are finished")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> None:
    if not args.table:
        _measure(args)
    values = [json.loads(path.read_text()) for path in sorted(args.folder.glob("values/*.json"))]
    if values:
        sys.stdout.write(table(values))


@dataclass(frozen=True)
class Trial:
    """A held-out video, and what is measured of its music: seconds of the onsets, and measure → value."""

    seed: int
    duration: float
    features: Callable[[], VideoFeatures]
    judge: Callable[[Composition], tuple[np.ndarray, dict[str, float]]]


def _measure(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from diff_v2m.cues import Cue, CueSheet
    from diff_v2m.generation.pipeline import DiffV2M

    model = DiffV2M.from_pretrained(args.ckpt_path, device="cpu")
    trials = _film_trials if model.config.model.diffusion.uses_grid else _tiny_trials
    for trial in tqdm(trials(model, args.folder, args.first, args.count), total=args.count, desc="composing"):
        name = f"{trial.seed:07d}"
        path = args.folder / "values" / f"{name}.json"
        if path.exists():
            continue
        features, times = trial.features(), draw(trial.seed, args.hits, trial.duration)
        sheet = CueSheet([Cue(time, "hit") for time in times])
        plain, directed = model.compose([features, features], [name, name], sheets=[None, sheet])
        entry: dict[str, Any] = {"hits": times, "added": [hit.added for hit in directed.hits]}
        entry["stretch"] = [hit.stretch for hit in directed.hits]
        for key, made in (("plain", plain), ("directed", directed)):
            onsets, entry[key] = trial.judge(made)
            entry[f"{key}_errors"] = [float(np.abs(onsets - time).min()) for time in times]
        write_json(path, entry)


def _tiny_trials(model: DiffV2M, folder: Path, first: int, count: int) -> Iterator[Trial]:
    from experiments.synthetic import music
    from experiments.synthetic.check import ROWS, Classifiers
    from experiments.synthetic.measures import onset_times
    from experiments.synthetic.render import SAMPLE_RATE, claim_folder, render_mp4, render_wav
    from experiments.synthetic.scene import HELD_OUT, plan

    claim_folder(folder)
    classifiers, rows = Classifiers(), [row for row in ROWS if row.id in TINY_QUALITY]
    for scene in map(plan, range(HELD_OUT + first, HELD_OUT + first + count)):

        def features(scene=scene):
            wav = render_wav(folder / "true" / f"{scene.seed:07d}.wav", scene.seed)
            return model.extract(render_mp4(folder / "video" / f"{scene.seed:07d}.mp4", wav, scene.seed))

        def judge(made, scene=scene):
            audio, true = made.audio[0], music.render(scene, SAMPLE_RATE)
            values = {row.id: float(row.measure(classifiers, scene, audio, true)) for row in rows}
            return onset_times(audio, SAMPLE_RATE), values

        yield Trial(scene.seed, scene.duration, features, judge)


def _film_trials(model: DiffV2M, folder: Path, first: int, count: int) -> Iterator[Trial]:
    from experiments.film_music.check import ROWS, HeldOut, Piece, features_of
    from experiments.film_music.hearing import hear

    held_out = HeldOut.render(folder / "clips", first, count)
    rows = {FILM_QUALITY[name.split()[0]]: measure for name, measure, _ in ROWS if name.split()[0] in FILM_QUALITY}
    for scene, true in zip(held_out.scenes, held_out.real, strict=True):

        def features(scene=scene):
            return features_of(held_out.folder, scene.seed, model)

        def judge(made, scene=scene, true=true):
            heard = hear(made.audio, model.config.sample_rate)
            piece = Piece(scene, heard, made.plan.grid, made.plan.key, true)
            return heard.onsets, {name: float(measure(held_out.classifiers, piece)) for name, measure in rows.items()}

        yield Trial(scene.seed, scene.duration, features, judge)


def draw(seed: int, count: int, duration: float) -> list[float]:
    """Random times, sorted, at least APART from each other and from the ends."""
    rng = np.random.default_rng([seed, 5])
    room = duration - (count + 1) * APART
    return (np.sort(rng.uniform(0, room, count)) + APART * np.arange(1, count + 1)).round(3).tolist()


def table(values: list[dict[str, Any]]) -> str:
    """The table as markdown."""
    landed = {key: np.concatenate([entry[f"{key}_errors"] for entry in values]) for key in ("plain", "directed")}
    added = np.concatenate([entry["added"] for entry in values]).astype(bool)
    stretch = np.abs(np.concatenate([entry["stretch"] for entry in values]))
    lines = ["| | without hits | with hits |", "|---|---|---|"]

    def line(name: str, plain: float, directed: float) -> None:
        lines.append(f"| {name} | {plain:.3f} | {directed:.3f} |")

    near = {key: errors <= TOLERANCE for key, errors in landed.items()}
    line("hits with an onset within 40 ms", near["plain"].mean(), near["directed"].mean())
    line("of these by a warp, as a share of the hits that a warp reaches", np.nan, near["directed"][~added].mean())
    line(
        "by an added accent, as a share of the others",
        np.nan,
        near["directed"][added].mean() if added.any() else np.nan,
    )
    line("share of hits that a warp reaches", np.nan, (~added).mean())
    line("median distance to an onset, ms", *(1000 * float(np.median(errors)) for errors in landed.values()))
    line("largest change of tempo around a hit: mean", 0.0, stretch.mean())
    line("largest change of tempo around a hit: largest", 0.0, stretch.max())
    for name in values[0]["plain"]:
        line(name, *(float(np.nanmean([entry[key][name] for entry in values])) for key in ("plain", "directed")))
    return "\n".join(lines).replace("nan", "–") + f"\n\n{len(values)} held-out videos, {len(added)} hits.\n"


if __name__ == "__main__":
    sys.exit(main())
