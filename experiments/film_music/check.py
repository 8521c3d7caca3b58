"""Evaluate a model on held-out videos of the film-music world, from mp4 to finished wav.

Every row is measured on wavs of five sources: the composer's own music (real), another piece of the composer for the
cuts and the motion found in the video (again), the music generated for the video (system), the generated music against
another video (shuffled), and noise bursts that follow the onsets of the real music. A value that noise or the wrong
video reaches proves nothing by itself. `again` is how much two pieces for one video have in common.

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
from diff_v2m.features.video_features import MOTION_ROWS, VideoFeatures
from diff_v2m.generation.pipeline import DEFAULT_SETTINGS, DiffV2M
from diff_v2m.generation.settings import SamplingSettings
from diff_v2m.media import loudness
from diff_v2m.metrics.rhythm import correlation
from diff_v2m.score import synth
from diff_v2m.score.score import BeatGrid, Key, Score
from experiments.film_music.composer import compose
from experiments.film_music.hearing import TOLERANCE, Classifiers, Heard, hear, noise_with_onsets, steady, variety
from experiments.film_music.measures import beat_f1
from experiments.film_music.render import render_set
from experiments.film_music.scene import HELD_OUT, MOTION_RATE, ScenePlan, draw_scene
from experiments.film_music.video import BUSIEST
from experiments.synthetic.measures import share_hit

FITTED_ON = range(150)  # seeds of the real music that the classifiers are fitted on
ANOTHER = 500_000  # added to the seed of a scene, for another piece
SECONDS_THRESHOLD = 5.0  # for a clip of 30 s
CUT_CENTRE = 1 / 16  # seconds after a cut: the middle of the rows of motion that hold its change of picture
CUT_REACH = 3 / 16  # seconds from there to the last of them


@dataclass(frozen=True)
class Piece:
    """One wav, the scene it is judged by, and the beat grid and key it was planned with."""

    scene: ScenePlan
    heard: Heard
    grid: BeatGrid
    key: Key
    real: Heard  # the composer's music for the scene
    rhythm: np.ndarray | None = None  # (S,) that the model predicted for it; None: the composer's music
    latents: np.ndarray | None = None  # (C, N) that it was decoded from; None likewise


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


def _follows(classifiers: Classifiers, piece: Piece) -> float:
    """NaN for the composer's music, which follows no predicted rhythm."""
    return NAN if piece.rhythm is None else correlation(piece.heard.by_second, piece.rhythm)


def _random_times(classifiers: Classifiers, piece: Piece) -> float:
    times = np.random.default_rng(piece.scene.seed).uniform(0.5, piece.scene.duration - 0.5, size=40)
    return share_hit(times, piece.heard.onsets, TOLERANCE)


ROWS: tuple[tuple[str, Measure, float], ...] = (  # name, measure, threshold of the system
    ("onset strength, r with the real, 1 a second", lambda _, p: correlation(p.heard.by_second, p.real.by_second), 0.8),
    ("onset strength, r with the real, 8 a second", lambda _, p: correlation(p.heard.by_row, p.real.by_row), 0.5),
    ("onset strength, r with the predicted rhythm, 1 a second", _follows, NAN),
    ("cuts with an onset within 50 ms", lambda _, p: share_hit(p.scene.cuts, p.heard.onsets, TOLERANCE), 0.9),
    ("random times with an onset within 50 ms", _random_times, NAN),
    ("mode by palette (chance .50)", _mode, 0.85),
    ("family of instruments by scene (chance .08)", lambda c, p: c.family(p.heard.timbre) == p.scene.family, 0.85),
    ("planned tonic found in the whole", lambda c, p: c.key(p.heard.chroma)[0] == p.key.tonic, NAN),
    ("one tonic in both halves", _one_tonic, 0.9),
    ("one tempo in both halves", lambda _, p: steady(p.heard), 0.9),
    ("pulse clarity", lambda _, p: p.heard.pulse, 0.6),
    (
        "beat F1 of a tracker against the planned beats",
        lambda _, p: beat_f1(p.heard.beats, p.grid, p.scene.duration),
        0.8,
    ),
)


@dataclass(frozen=True)
class HeldOut:
    """Clips that were not trained on, in a folder, and what their own music is measured as."""

    folder: Path
    scenes: list[ScenePlan]
    real: list[Heard]
    classifiers: Classifiers

    @classmethod
    def render(cls, folder: Path, first: int, count: int) -> HeldOut:
        """Clips `first` to `first + count` of the held-out ones. Raises InputError if the folder holds other clips."""
        seeds = range(HELD_OUT + first, HELD_OUT + first + count)
        render_set(folder, seeds)
        wavs = [folder / "music" / f"{seed:07d}.wav" for seed in seeds]
        audio = (media.read_audio(wav, synth.SAMPLE_RATE, 2) for wav in tqdm(wavs, desc="measuring real music"))
        real = [hear(one, synth.SAMPLE_RATE) for one in audio]
        return cls(folder, [draw_scene(seed) for seed in seeds], real, Classifiers(FITTED_ON))

    def features(self, model: DiffV2M) -> list[VideoFeatures]:
        """Of all clips, as the model reads them."""
        return [features_of(self.folder, scene.seed, model) for scene in tqdm(self.scenes, desc="features")]

    def play(
        self, model: DiffV2M, features: Sequence[VideoFeatures], settings: SamplingSettings
    ) -> tuple[list[Piece], list[float]]:
        """The music that a model generates for the clips, and the seconds that each takes, features to wav."""
        rate = model.config.sample_rate
        pieces, seconds = [], []
        for scene, true, shown in zip(tqdm(self.scenes, desc="generating"), self.real, features, strict=True):
            start, path = time.perf_counter(), self.folder / "generated" / f"{scene.seed:07d}.wav"
            made = model.compose([shown], [f"{scene.seed:07d}"], settings)[0]
            audio, _ = loudness.normalize(made.audio, rate, "lufs")
            media.write_wav(path, audio, rate)
            seconds.append(time.perf_counter() - start)
            heard = hear(media.read_audio(path, rate, 2), rate)
            pieces.append(Piece(scene, heard, made.plan.grid, made.plan.key, true, made.rhythm, made.latents))
        return pieces, seconds


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
    Raises InputError as `load_model` does, for fewer than six clips, and if the folder holds other clips.
    """
    if count < 6:
        raise InputError(f"--count {count}: expected at least 6, since recall compares each clip with five others")
    model = load_model(model_path)
    held_out = HeldOut.render(folder, first, count)
    features = held_out.features(model)
    system, seconds = held_out.play(model, features, settings)
    scenes, rate = held_out.scenes, synth.SAMPLE_RATE
    scores = [compose(scene) for scene in scenes]
    others = [compose(seen(scene, shown)) for scene, shown in zip(scenes, features, strict=True)]
    again = [hear(synth.render(score).mix, rate) for score in tqdm(others, desc="measuring other pieces")]
    noise = [
        hear(noise_with_onsets(scene, heard), rate)
        for scene, heard in zip(tqdm(scenes, desc="measuring noise"), held_out.real, strict=True)
    ]

    def composed(heard: list[Heard], written: list[Score]) -> list[Piece]:
        rows = zip(scenes, heard, written, held_out.real, strict=True)
        return [Piece(scene, one, score.grid, score.key, true) for scene, one, score, true in rows]

    others_heard = [piece.heard for piece in system[1:] + system[:1]]
    pieces = {
        "real": composed(held_out.real, scores),
        "again": composed(again, others),
        "system": system,
        "shuffled": [replace(piece, heard=heard) for piece, heard in zip(system, others_heard, strict=True)],
        "noise": composed(noise, scores),
    }
    rows = measured(held_out.classifiers, pieces, {"system": seconds})
    return table(rows, judged="system") + f"\n{count} held-out clips.\n"


def load_model(path: Path) -> DiffV2M:
    """Raises InputError for a model that does not receive a beat grid, by which its music is judged."""
    model = DiffV2M.from_pretrained(path, device="cpu")
    if not model.config.model.diffusion.uses_grid:
        raise InputError(f"{path}: receives no beat grid; give a model whose aligned_cond_ids include grid")
    return model


def seen(scene: ScenePlan, shown: VideoFeatures) -> ScenePlan:
    """Another scene of the same mood, family and ending, with the cuts and the motion that were found in the video."""
    times = (np.arange(len(shown.motion)) + 0.5) / MOTION_ROWS
    distances = np.abs(times[:, None] - shown.cut_times - CUT_CENTRE).min(axis=1, initial=np.inf)
    moves = distances > CUT_REACH
    moments = (np.arange(len(scene.motion)) + 0.5) / MOTION_RATE
    motion = np.interp(moments, times[moves], np.clip(shown.motion[moves] / BUSIEST, 0, 1))
    return replace(scene, seed=scene.seed + ANOTHER, cuts=tuple(shown.cut_times.tolist()), motion=motion)


def _mean(measure: Measure, classifiers: Classifiers, pieces: Sequence[Piece]) -> float:
    """NaN where no piece has a value."""
    values = np.array([measure(classifiers, piece) for piece in pieces])
    return float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else NAN


def features_of(folder: Path, seed: int, model: DiffV2M) -> VideoFeatures:
    """What is extracted from the mp4, with the semantic features of the data set."""
    shown = model.extract(folder / "video" / f"{seed:07d}.mp4")
    return replace(shown, semantic=np.load(folder / "clip" / f"{seed:07d}.npy"))


@dataclass(frozen=True)
class Row:
    """One measure: its mean by source, and the threshold; at_most: not to be passed rather than to be reached."""

    name: str
    means: dict[str, float]
    threshold: float = NAN
    at_most: bool = False

    def verdict(self, judged: str | None) -> str:
        """The threshold, and whether a source meets it."""
        if np.isnan(self.threshold):
            return "–"
        text = f"≤ {self.threshold:g}" if self.at_most else f"≥ {self.threshold:.2f}"
        if judged is None:
            return text
        value = self.means[judged]
        met = value <= self.threshold if self.at_most else value >= self.threshold
        return f"{text} {'met' if met else 'MISSED'}"


def measured(
    classifiers: Classifiers, pieces: dict[str, list[Piece]], seconds: dict[str, Sequence[float]]
) -> list[Row]:
    """Everything that is measured of pieces by source. seconds: that each clip took, of the sources that have them."""
    rows = [
        Row(name, {source: _mean(measure, classifiers, group) for source, group in pieces.items()}, threshold)
        for name, measure, threshold in ROWS
    ]
    real = [piece.real for piece in next(iter(pieces.values()))]
    heard = {source: [piece.heard for piece in group] for source, group in pieces.items()}
    found = {source: variety(group, real) for source, group in heard.items()}
    if "real" in heard:
        found["real"] = variety(real[::2], real[1::2])  # the real set against itself
    for index, (name, threshold) in enumerate((("recall", 0.5), ("coverage", 0.6))):
        rows.append(Row(f"{name} of the real set", {key: value[index] for key, value in found.items()}, threshold))
    for name, kind in (("tonics", lambda one: classifiers.key(one.chroma)[0]), ("tempi", _tempo_class)):
        true = _entropy([kind(one) for one in real])
        shares = {source: _entropy([kind(one) for one in group]) / true for source, group in heard.items()}
        rows.append(Row(f"entropy of {name}, made / real", shares, 0.85))
    medians = {source: float(np.median(seconds[source])) if source in seconds else NAN for source in pieces}
    return [*rows, Row("seconds for a 30 s clip, features to wav (median)", medians, SECONDS_THRESHOLD, at_most=True)]


def table(rows: Sequence[Row], judged: str | None = None) -> str:
    """Markdown. judged: the source that the thresholds are for; None: all of them."""
    sources = list(rows[0].means)
    lines = [f"| | {' | '.join(sources)} | threshold |", "|---" * (len(sources) + 2) + "|"]
    for row in rows:
        cells = " | ".join("–" if np.isnan(value) else f"{value:.2f}" for value in row.means.values())
        lines.append(f"| {row.name} | {cells} | {row.verdict(judged)} |")
    return "\n".join(lines) + "\n"


def _tempo_class(heard: Heard) -> int:
    return int(np.log2(max(heard.tempo, 1)) * 6)


def _entropy(values: Sequence[int]) -> float:
    """In bits."""
    shares = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(shares * np.log2(shares)).sum())
