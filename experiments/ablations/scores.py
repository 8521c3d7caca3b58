"""How well a finished twin composes for held-out clips of the procedural world: the rows of
`python -m experiments.synthetic check` that tell twins apart, at a fraction of its time."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic
from diff_v2m.config import load_dataset_config
from diff_v2m.data.feature_store import load_features
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.media import loudness
from experiments.ablations.results import finished_runs
from experiments.synthetic import check
from experiments.synthetic.render import SAMPLE_RATE
from experiments.synthetic.scene import HELD_OUT, Scene, plan

log = logging.getLogger(__name__)

FILE = "scores.json"
ROWS = {row.id: row for row in check.ROWS if row.id in ("onset_r", "mode", "instrument")}


@dataclass(frozen=True)
class Settings:
    """Of sampling; kept with the scores, which are computed again when others are asked for."""

    clips: int
    steps: int
    guidance_scale: float
    seed: int = 42


@dataclass(frozen=True)
class HeldOut:
    """A clip that nobody was trained on, its music, and the score that both were made from."""

    name: str
    features: VideoFeatures
    audio: np.ndarray  # (n,) mono
    scene: Scene


def score_all(runs: Path, data: Path, settings: Settings) -> int:
    """Write scores.json for every finished run that has none of these settings; → how many were scored.

    Raises InputError if the data is not a held-out set of this world with at least two clips.
    """
    waiting = [run for run in finished_runs(runs) if _settings_of(run / FILE) != asdict(settings)]
    if not waiting:
        return 0
    clips, judges = read_held_out(data, settings.clips), check.Judges()
    for run in tqdm(waiting, desc="scoring twins", unit="run"):
        scores = score(DiffV2M.from_pretrained(run / "model.safetensors", device="cpu"), clips, judges, settings)
        with atomic(run / FILE) as part:
            part.write_text(json.dumps({"settings": asdict(settings), "scores": scores}, indent=1) + "\n")
        log.info("%s/%s: %s", run.parent.name, run.name, ", ".join(f"{k} {v:.3f}" for k, v in scores.items()))
    return len(waiting)


def score(model: DiffV2M, clips: Sequence[HeldOut], judges: check.Judges, settings: Settings) -> dict[str, float]:
    """Means over the clips: `ROWS`, and the onsets held against the next clip's, which is chance."""
    music = model.compose(
        [clip.features for clip in clips],
        [clip.name for clip in clips],
        seed=settings.seed,
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
    )
    heard = [loudness.normalize(piece.audio, SAMPLE_RATE, "lufs")[0][0] for piece in music]
    others = [*clips[1:], clips[0]]
    scores = {
        id: [row.measure(judges, clip.scene, audio, clip.audio) for clip, audio in zip(clips, heard, strict=True)]
        for id, row in ROWS.items()
    }
    onset = ROWS["onset_r"].measure
    scores["onset_r_wrong"] = [
        onset(judges, other.scene, audio, other.audio) for other, audio in zip(others, heard, strict=True)
    ]
    return {id: float(np.mean(values)) for id, values in scores.items()}


def read_held_out(data: Path, count: int) -> list[HeldOut]:
    """The first clips of a rendered set. Raises InputError if there are fewer, or any that may have been trained on."""
    found = []
    for entry, stem, features in load_features(load_dataset_config(data)):
        if isinstance(features, InputError):
            raise features
        if not stem.isdigit() or int(stem) < HELD_OUT:
            raise InputError(f"{data}: clip {stem} is not held out; expected those of `render --held-out`")
        audio = media.read_audio(entry.path / f"{stem}.wav", SAMPLE_RATE, 1)[0]
        found.append(HeldOut(stem, features, audio, plan(int(stem))))
        if len(found) == count:
            return found
    raise InputError(f"{data}: {len(found)} clips, {count} are to be scored; render more or ask for fewer")


def _settings_of(path: Path) -> dict | None:
    return json.loads(path.read_text())["settings"] if path.is_file() else None
