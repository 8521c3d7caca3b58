"""Evaluate a model on held-out videos of the film-music world, from mp4 to finished wav.

Every row is measured on wavs of five sources: the composer's own music (real), another piece of the composer for the
same scene (again), the music generated for the video (system), the generated music against another video (shuffled),
and noise bursts that follow the onsets of the real music. A value that noise or the wrong video reaches proves nothing
by itself. What `again` does not reach cannot be known from the video.

Cuts, motion and colour are extracted from the mp4. Semantic features are the set's own: the ImageNet encoder does not
recognise procedural pictures, see imitation.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.generation.pipeline import DEFAULT_SETTINGS, DiffV2M
from diff_v2m.generation.settings import SamplingSettings
from diff_v2m.media import loudness
from diff_v2m.metrics.rhythm import correlation
from diff_v2m.score import synth
from diff_v2m.score.score import BeatGrid, Key
from experiments.film_music.composer import compose
from experiments.film_music.hearing import (
    TOLERANCE,
    Classifiers,
    Heard,
    beat_f1,
    hear,
    noise_with_onsets,
    steady,
    variety,
)
from experiments.film_music.render import render_set
from experiments.film_music.scene import HELD_OUT, ScenePlan, draw_scene
from experiments.synthetic.measures import share_hit

FITTED_ON = range(150)  # seeds of the real music that the classifiers are fitted on
ANOTHER = 500_000  # added to the seed of a scene, for another piece
SECONDS_THRESHOLD = 5.0  # for a clip of 30 s


@dataclass(frozen=True)
class Piece:
    """One wav, the scene it is judged by, and the beat grid and key it was planned with."""

    scene: ScenePlan
    heard: Heard
    grid: BeatGrid
    key: Key
    real: Heard  # the composer's music for the scene


Measure = Callable[[Classifiers, Piece], float]
NAN = float("nan")


def _mode(classifiers: Classifiers, piece: Piece) -> float:
    """NaN for modal scenes, whose palette asks for neither mode."""
    if piece.scene.mood == "modal":
        return NAN
    return float(classifiers.key(piece.heard.chroma)[1] == (piece.scene.mood == "minor"))


def _one_tonic(classifiers: Classifiers, piece: Piece) -> float:
    first, second = (classifiers.key(half)[0] for half in piece.heard.chroma_of_halves)
    return float(first == second)


def _random_times(classifiers: Classifiers, piece: Piece) -> float:
    times = np.random.default_rng(piece.scene.seed).uniform(0.5, piece.scene.duration - 0.5, size=40)
    return share_hit(times, piece.heard.onsets, TOLERANCE)


ROWS: tuple[tuple[str, Measure, float], ...] = (  # name, measure, threshold of the system
    ("onset strength, r with the real, 1 a second", lambda _, p: correlation(p.heard.by_second, p.real.by_second), 0.8),
    ("onset strength, r with the real, 8 a second", lambda _, p: correlation(p.heard.by_row, p.real.by_row), 0.5),
    ("cuts with an onset within 50 ms", lambda _, p: share_hit(p.scene.cuts, p.heard.onsets, TOLERANCE), 0.9),
    ("random times with an onset within 50 ms", _random_times, NAN),
    ("mode by palette (chance .50)", _mode, 0.85),
    ("family of instruments by scene (chance .08)", lambda c, p: c.family(p.heard) == p.scene.family, 0.85),
    ("planned tonic found in the whole", lambda c, p: c.key(p.heard.chroma)[0] == p.key.tonic, NAN),
    ("one tonic in both halves", _one_tonic, 0.9),
    ("one tempo in both halves", lambda _, p: steady(p.heard), 0.9),
    ("pulse clarity", lambda _, p: p.heard.pulse, 0.6),
    ("beat F1 of a tracker against the planned beats", lambda _, p: beat_f1(p.heard, p.grid, p.scene.duration), 0.8),
)


def check(
    model_path: Path,
    folder: Path,
    count: int = 40,
    settings: SamplingSettings = DEFAULT_SETTINGS,
    *,
    first: int = 0,
) -> str:
    """The table as markdown.

    folder: for the held-out videos and the generated wavs. count: number of clips, starting with held-out clip `first`.
    Raises InputError if the model cannot be loaded or is not 44.1 kHz stereo, for fewer than six clips, and if the
    folder holds other clips.
    """
    if count < 6:
        raise InputError(f"--count {count}: expected at least 6, since recall compares each clip with five others")
    model = DiffV2M.from_pretrained(model_path, device="cpu")
    rate = model.config.sample_rate
    if (rate, model.config.audio_channels) != (synth.SAMPLE_RATE, 2):
        raise InputError(
            f"{model_path}: generates {model.config.audio_channels} channels at {rate} Hz; the film-music world is "
            f"stereo at {synth.SAMPLE_RATE} Hz"
        )
    seeds = range(HELD_OUT + first, HELD_OUT + first + count)
    render_set(folder, seeds)
    classifiers = Classifiers(FITTED_ON)
    scenes = [draw_scene(seed) for seed in seeds]
    scores = [compose(scene) for scene in scenes]
    real = [
        hear(media.read_audio(folder / "music" / f"{seed:07d}.wav", rate, 2), rate)
        for seed in tqdm(seeds, desc="measuring real music")
    ]
    features = [features_of(folder, seed, model) for seed in tqdm(seeds, desc="extracting features")]
    system, plans, seconds = [], [], []
    for seed, shown in zip(tqdm(seeds, desc="generating music"), features, strict=True):
        start = time.perf_counter()
        made = model.compose([shown], [f"{seed:07d}"], settings)[0]
        audio, _ = loudness.normalize(made.audio, rate, "lufs")
        path = folder / "generated" / f"{seed:07d}.wav"
        media.write_wav(path, audio, rate)
        seconds.append(time.perf_counter() - start)
        system.append(hear(media.read_audio(path, rate, 2), rate))
        plans.append(made.plan)
    others = [compose(replace(scene, seed=scene.seed + ANOTHER)) for scene in scenes]
    again = [hear(synth.render(score).mix, rate) for score in tqdm(others, desc="measuring other pieces")]
    noise = [
        hear(noise_with_onsets(scene, heard), rate)
        for scene, heard in zip(tqdm(scenes, desc="measuring noise"), real, strict=True)
    ]
    of_score = [(score.grid, score.key) for score in scores]
    planned = [(plan.grid, plan.key) for plan in plans]
    sources = {
        "real": list(zip(real, of_score, strict=True)),
        "again": [(heard, (score.grid, score.key)) for heard, score in zip(again, others, strict=True)],
        "system": list(zip(system, planned, strict=True)),
        "shuffled": list(zip(system[1:] + system[:1], planned, strict=True)),
        "noise": list(zip(noise, of_score, strict=True)),
    }
    pieces = {
        source: [
            Piece(scene, heard, grid, key, true)
            for scene, true, (heard, (grid, key)) in zip(scenes, real, group, strict=True)
        ]
        for source, group in sources.items()
    }
    return _table(classifiers, pieces, seconds)


def features_of(folder: Path, seed: int, model: DiffV2M) -> VideoFeatures:
    """What is extracted from the mp4, with the semantic features of the data set."""
    shown = model.extract(folder / "video" / f"{seed:07d}.mp4")
    return replace(shown, semantic=np.load(folder / "clip" / f"{seed:07d}.npy"))


def _table(classifiers: Classifiers, pieces: dict[str, list[Piece]], seconds: Sequence[float]) -> str:
    lines = [f"| | {' | '.join(pieces)} | threshold |", "|---" * (len(pieces) + 2) + "|"]
    for name, measure, threshold in ROWS:
        means = {
            source: float(np.nanmean([measure(classifiers, piece) for piece in group]))
            for source, group in pieces.items()
        }
        lines.append(_line(name, list(means.values()), _at_least(means["system"], threshold)))
    real, system = ([piece.heard for piece in pieces[source]] for source in ("real", "system"))
    halves = variety(real[::2], real[1::2])  # the real set against itself
    for name, made, itself, threshold in zip(
        ("recall", "coverage"), variety(system, real), halves, (0.5, 0.6), strict=True
    ):
        lines.append(_line(f"{name} of the real set", [itself, NAN, made, made, NAN], _at_least(made, threshold)))
    keys = {source: [classifiers.key(piece.heard.chroma)[0] for piece in pieces[source]] for source in pieces}
    tempi = {source: [int(np.log2(max(piece.heard.tempo, 1)) * 6) for piece in pieces[source]] for source in pieces}
    for name, values in (("tonics", keys), ("tempi", tempi)):
        shares = [_entropy(values[source]) / _entropy(values["real"]) for source in pieces]
        verdict = _at_least(shares[list(pieces).index("system")], 0.85)
        lines.append(_line(f"entropy of {name}, made / real", shares, verdict))
    median = float(np.median(seconds))
    verdict = f"≤ {SECONDS_THRESHOLD:g} {'met' if median <= SECONDS_THRESHOLD else 'MISSED'}"
    lines.append(_line("seconds for a 30 s clip, features to wav (median)", [NAN, NAN, median, NAN, NAN], verdict))
    return "\n".join(lines) + f"\n\n{len(real)} held-out clips.\n"


def _line(name: str, values: Sequence[float], verdict: str) -> str:
    cells = " | ".join("–" if np.isnan(value) else f"{value:.2f}" for value in values)
    return f"| {name} | {cells} | {verdict} |"


def _at_least(value: float, threshold: float) -> str:
    return "–" if np.isnan(threshold) else f"≥ {threshold:.2f} {'met' if value >= threshold else 'MISSED'}"


def _entropy(values: Sequence[int]) -> float:
    """In bits."""
    shares = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(shares * np.log2(shares)).sum())
