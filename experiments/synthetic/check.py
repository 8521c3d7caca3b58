"""Evaluate a model on held-out procedural clips, from raw videos to finished wavs.

Every row is measured on five sources of audio: the real music, the real music through the autoencoder (codec), the
music generated for the video (system), the generated music against the wrong video (shuffled), and noise that follows
the true onset density. A score that noise or the wrong video reaches proves nothing by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.features import rhythm
from diff_v2m.generation.pipeline import DEFAULT_SETTINGS, Composition, DiffV2M
from diff_v2m.generation.settings import SamplingSettings
from diff_v2m.media import loudness
from diff_v2m.metrics.rhythm import correlation
from experiments.synthetic import measures, music
from experiments.synthetic.render import SAMPLE_RATE, claim_folder, render_mp4, render_wav
from experiments.synthetic.scene import HELD_OUT, Scene, plan

FITTED_ON = range(120)  # seeds of the real clips that the classifiers are fitted on
SOURCES = ("real", "codec", "system", "shuffled", "noise")


@dataclass(frozen=True)
class Row:
    """One row of the table: its measure, and the thresholds for codec and system."""

    id: str
    name: str
    measure: Callable[[Classifiers, Scene, np.ndarray, np.ndarray], float]  # last are audio and true audio
    codec_threshold: float
    system_threshold: float


class Classifiers:
    """Classifiers of mode and instrument, fitted on real audio of seeds that are not evaluated."""

    def __init__(self) -> None:
        scenes = [plan(seed) for seed in FITTED_ON]
        audio = [music.render(scene, SAMPLE_RATE) for scene in tqdm(scenes, desc="fitting classifiers")]
        profiles = np.stack([measures.chroma(clip, SAMPLE_RATE) for clip in audio])
        self.mode = measures.ModeTemplates().fit(profiles, np.array([s.minor for s in scenes]))
        rng = np.random.default_rng(0)
        recordings = [*audio, *(measures.recoloured(clip, SAMPLE_RATE, rng) for _ in range(2) for clip in audio)]
        timbres = np.stack([measures.timbre(clip, SAMPLE_RATE) for clip in recordings])
        self.instrument = measures.instrument_classifier(timbres, np.array([s.instrument for s in scenes] * 3))


def _odf(classifiers: Classifiers, scene: Scene, audio: np.ndarray, true: np.ndarray) -> float:
    density, wanted = (measures.onset_density(clip, SAMPLE_RATE) for clip in (audio, true))
    return correlation(density, wanted)


def _mode(classifiers: Classifiers, scene: Scene, audio: np.ndarray, true: np.ndarray) -> float:
    return classifiers.mode.is_minor(measures.chroma(audio, SAMPLE_RATE)) == scene.minor


def _instrument(classifiers: Classifiers, scene: Scene, audio: np.ndarray, true: np.ndarray) -> float:
    return classifiers.instrument.predict(measures.timbre(audio, SAMPLE_RATE)[None])[0] == scene.instrument


def _pulse(classifiers: Classifiers, scene: Scene, audio: np.ndarray, true: np.ndarray) -> float:
    return measures.pulse_clarity(audio, SAMPLE_RATE)


def _cuts(classifiers: Classifiers, scene: Scene, audio: np.ndarray, true: np.ndarray) -> float:
    return measures.share_hit(scene.cuts, measures.onset_times(audio, SAMPLE_RATE))


def _random_times(classifiers: Classifiers, scene: Scene, audio: np.ndarray, true: np.ndarray) -> float:
    times = np.random.default_rng(scene.seed).uniform(0.5, scene.duration - 0.5, size=20)
    return measures.share_hit(times, measures.onset_times(audio, SAMPLE_RATE))


ROWS = (
    Row("onset_r", "onset density, r with the clip's true one", _odf, 0.90, 0.50),
    Row("mode", "mode right (chance .50)", _mode, 0.85, 0.75),
    Row("instrument", "instrument right (chance .25)", _instrument, 0.85, 0.80),
    Row("pulse", "pulse clarity", _pulse, 0.70, 0.45),
    Row("cuts", "cuts with an onset within 100 ms", _cuts, 0.80, 0.50),
    Row("random_times", "random times with an onset within 100 ms", _random_times, float("nan"), float("nan")),
)

RHYTHM_THRESHOLD = 0.6  # r of predicted and true rhythm
SECONDS_THRESHOLD = 30  # for a clip of 30 s


def check(
    model_path: Path,
    folder: Path,
    count: int = 40,
    settings: SamplingSettings = DEFAULT_SETTINGS,
    *,
    first: int = 0,
    dtype: str = "float32",
) -> str:
    """The table as markdown.

    folder: for the held-out videos and the generated wavs. count: number of clips, starting with held-out clip `first`.
    dtype: of `DiffV2M.from_pretrained`. Raises InputError if the model cannot be loaded or is not 16 kHz mono, for
    fewer than two clips, and if the folder holds anything else than its clips.
    """
    if count < 2:
        raise InputError(f"--count {count}: expected at least 2, since every clip is also measured against another")
    claim_folder(folder)
    model = DiffV2M.from_pretrained(model_path, device="cpu", dtype=dtype)
    if (model.config.sample_rate, model.config.audio_channels) != (SAMPLE_RATE, 1):
        raise InputError(
            f"{model_path}: generates {model.config.audio_channels} channels at {model.config.sample_rate} Hz; the "
            f"procedural world is mono at {SAMPLE_RATE} Hz"
        )
    classifiers = Classifiers()
    scenes = [plan(HELD_OUT + k) for k in range(first, first + count)]
    true, videos = [], []
    for scene in tqdm(scenes, desc="rendering held-out clips"):
        name = f"{scene.seed:07d}"
        wav = render_wav(folder / "true" / f"{name}.wav", scene.seed)
        true.append(media.read_audio(wav, SAMPLE_RATE, 1)[0])
        videos.append(render_mp4(folder / "video" / f"{name}.mp4", wav, scene.seed))

    codec = [_through_codec(model, clip) for clip in tqdm(true, desc="autoencoder")]
    system, rhythms, seconds = [], [], []
    for video in tqdm(videos, desc="generating music"):
        start = time.perf_counter()
        composition = model.generate(video, settings)
        system.append(_finished_wav(model, composition, folder / "wav" / f"{video.stem}.wav"))
        rhythms.append(composition.rhythm)
        seconds.append(time.perf_counter() - start)

    noise = [
        measures.noise_following(measures.onset_density(clip, SAMPLE_RATE), len(clip), SAMPLE_RATE, scene.seed)
        for scene, clip in zip(scenes, true, strict=True)
    ]
    audio = {"real": true, "codec": codec, "system": system, "shuffled": system[1:] + system[:1], "noise": noise}
    predicted = [
        correlation(guess, rhythm.odf(torch.from_numpy(clip), SAMPLE_RATE)[:, 0].numpy())
        for guess, clip in zip(rhythms, true, strict=True)
    ]
    return _table(classifiers, scenes, audio, true, predicted, seconds)


def _through_codec(model: DiffV2M, clip: np.ndarray) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    latents = model.model.encode(torch.from_numpy(clip)[None, None], generator)
    return model.model.decode(latents)[0, 0, : len(clip)].numpy()


def _finished_wav(model: DiffV2M, composition: Composition, path: Path) -> np.ndarray:
    """Normalise and write as infer.py does, then read the file back."""
    audio, _ = loudness.normalize(composition.audio, model.config.sample_rate, "lufs")
    media.write_wav(path, audio, model.config.sample_rate)
    return media.read_audio(path, SAMPLE_RATE, 1)[0]


def _table(
    classifiers: Classifiers,
    scenes: Sequence[Scene],
    audio: dict[str, list[np.ndarray]],
    true: Sequence[np.ndarray],
    predicted: Sequence[float],
    seconds: Sequence[float],
) -> str:
    lines = [
        "| | " + " | ".join(SOURCES) + " | threshold codec | threshold system |",
        "|---" * (len(SOURCES) + 3) + "|",
    ]
    for row in ROWS:
        means = {
            source: float(
                np.nanmean(
                    [
                        row.measure(classifiers, scene, clip, wanted)
                        for scene, clip, wanted in zip(scenes, audio[source], true, strict=True)
                    ]
                )
            )
            for source in SOURCES
        }
        cells = [f"{means[source]:.2f}" for source in SOURCES]
        verdicts = [_verdict(means["codec"], row.codec_threshold), _verdict(means["system"], row.system_threshold)]
        lines.append(f"| {row.name} | " + " | ".join(cells + verdicts) + " |")
    blank = " | ".join(["–"] * (len(SOURCES) - 3))
    score = float(np.mean(predicted))
    lines.append(
        f"| predicted rhythm, r with the true one | 1.00 | – | {score:.2f} | {blank} | – | "
        f"{_verdict(score, RHYTHM_THRESHOLD)} |"
    )
    median = float(np.median(seconds))
    lines.append(
        f"| seconds for a 30 s clip, video to wav (median) | – | – | {median:.1f} | {blank} | – | "
        f"≤ {SECONDS_THRESHOLD} {'met' if median <= SECONDS_THRESHOLD else 'MISSED'} |"
    )
    return "\n".join(lines) + f"\n\n{len(scenes)} held-out clips.\n"


def _verdict(value: float, threshold: float) -> str:
    return "–" if np.isnan(threshold) else f"≥ {threshold:.2f} {'met' if value >= threshold else 'MISSED'}"
