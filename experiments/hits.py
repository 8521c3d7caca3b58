"""Whether hits land, and what that does to the music: `python -m experiments.hits`.

For each held-out procedural video some random moments are chosen, at least 2 s apart and from both ends. Music is
composed with and without a cue sheet that has them as hits. Onsets are found by the measure of the held-out check,
which the landing does not use. The music without the sheet gives chance. Values of finished videos are kept in the
folder, and the same command resumes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from diff_v2m.common import cli
from diff_v2m.common.files import ROOT, write_json

TOLERANCE = 0.04  # seconds
APART = 2.0  # seconds between hits, and from the ends
QUALITY = ("mode", "instrument", "pulse", "cuts")  # rows of the held-out check


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m experiments.hits", description=__doc__)
    parser.add_argument("--ckpt-path", type=Path, default=ROOT / "saved_model" / "tiny", help="16 kHz, mono")
    parser.add_argument("--count", type=int, default=40, help="held-out videos (default: %(default)s)")
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


def _measure(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from diff_v2m.cues import Cue, CueSheet
    from diff_v2m.generation.pipeline import DiffV2M
    from experiments.synthetic import music
    from experiments.synthetic.check import ROWS, Classifiers
    from experiments.synthetic.measures import onset_times
    from experiments.synthetic.render import SAMPLE_RATE, claim_folder, render_mp4, render_wav
    from experiments.synthetic.scene import HELD_OUT, plan

    claim_folder(args.folder)
    model, classifiers = DiffV2M.from_pretrained(args.ckpt_path, device="cpu"), Classifiers()
    for number in tqdm(range(args.count), desc="composing"):
        scene = plan(HELD_OUT + number)
        name = f"{scene.seed:07d}"
        path = args.folder / "values" / f"{name}.json"
        if path.exists():
            continue
        wav = render_wav(args.folder / "true" / f"{name}.wav", scene.seed)
        features = model.extract(render_mp4(args.folder / "video" / f"{name}.mp4", wav, scene.seed))
        times = draw(scene.seed, args.hits, scene.duration)
        sheet = CueSheet([Cue(time, "hit") for time in times])
        plain, directed = model.compose([features, features], [name, name], sheets=[None, sheet])
        true = music.render(scene, SAMPLE_RATE)
        rows = [row for row in ROWS if row.id in QUALITY]
        entry: dict[str, Any] = {"hits": times, "added": [hit.added for hit in directed.hits]}
        entry["stretch"] = [hit.stretch for hit in directed.hits]
        for key, made in (("plain", plain), ("directed", directed)):
            onsets = onset_times(made.audio[0], SAMPLE_RATE)
            entry[f"{key}_errors"] = [float(np.abs(onsets - time).min()) for time in times]
            entry[key] = {row.id: float(row.measure(classifiers, scene, made.audio[0], true)) for row in rows}
        write_json(path, entry)


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
    for name in QUALITY:
        line(name, *(float(np.nanmean([entry[key][name] for entry in values])) for key in ("plain", "directed")))
    return "\n".join(lines).replace("nan", "–") + f"\n\n{len(values)} held-out videos, {len(added)} hits.\n"


if __name__ == "__main__":
    sys.exit(main())
