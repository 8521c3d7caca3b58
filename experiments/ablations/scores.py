"""Scores of a finished variant on held-out procedural clips.

Computes only those measures of `python -m experiments.synthetic check` that differ between variants.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
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
from diff_v2m.generation.settings import SamplingSettings
from diff_v2m.media import loudness
from experiments.ablations.results import finished_runs
from experiments.synthetic import check
from experiments.synthetic.render import SAMPLE_RATE
from experiments.synthetic.scene import HELD_OUT, Scene, plan

log = logging.getLogger(__name__)

FILE = "scores.json"
ROWS = {row.id: row for row in check.ROWS if row.id in ("onset_r", "mode", "instrument")}


@dataclass(frozen=True)
class HeldOut:
    """A held-out clip: its generated music, and the scene that it was rendered from."""

    name: str
    features: VideoFeatures
    audio: np.ndarray  # (n,) mono
    scene: Scene


def score_all(runs: Path, data: Path, count: int, settings: SamplingSettings) -> int:
    """Write scores.json for every finished run without scores of these settings. Returns the number of runs scored.

    count: number of clips.
    Raises InputError if the data is not a held-out procedural set with enough clips.
    """
    settings = settings.of_no_student
    stored = {
        "clips": count,
        "steps": settings.steps,
        "sampler": settings.sampler,
        "guidance_scale": settings.guidance_scale,
        "seed": settings.seed,
    }
    waiting = [run for run in finished_runs(runs) if _settings_of(run / FILE) != stored]
    if not waiting:
        return 0
    clips, classifiers = read_held_out(data, count), check.Classifiers()
    for run in tqdm(waiting, desc="scoring variants", unit="run"):
        scores = score(DiffV2M.from_pretrained(run / "model.safetensors", device="cpu"), clips, classifiers, settings)
        with atomic(run / FILE) as part:
            part.write_text(json.dumps({"settings": stored, "scores": scores}, indent=1) + "\n")
        log.info("%s/%s: %s", run.parent.name, run.name, ", ".join(f"{k} {v:.3f}" for k, v in scores.items()))
    return len(waiting)


def score(
    model: DiffV2M, clips: Sequence[HeldOut], classifiers: check.Classifiers, settings: SamplingSettings
) -> dict[str, float]:
    """Means of `ROWS` over the clips, and of the onsets measured against the next clip, which is chance."""
    music = model.compose(
        [clip.features for clip in clips],
        [clip.name for clip in clips],
        settings,
    )
    finished = [loudness.normalize(piece.audio, SAMPLE_RATE, "lufs")[0][0] for piece in music]
    others = [*clips[1:], clips[0]]
    scores = {
        id: [
            row.measure(classifiers, clip.scene, audio, clip.audio) for clip, audio in zip(clips, finished, strict=True)
        ]
        for id, row in ROWS.items()
    }
    onset = ROWS["onset_r"].measure
    scores["onset_r_wrong"] = [
        onset(classifiers, other.scene, audio, other.audio) for other, audio in zip(others, finished, strict=True)
    ]
    return {id: float(np.mean(values)) for id, values in scores.items()}


def read_held_out(data: Path, count: int) -> list[HeldOut]:
    """The first clips of a rendered set. Raises InputError if there are fewer or if one may be a training clip."""
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
    raise InputError(f"{data}: {len(found)} clips, --clips {count} were asked for; render more or ask for fewer")


def _settings_of(path: Path) -> dict | None:
    return json.loads(path.read_text())["settings"] if path.is_file() else None
