"""Cheap metrics of generated music during training: rhythm, cuts with a beat, and audio quality.

The definitions are those of evaluation: both use `diff_v2m.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch

from diff_v2m import media
from diff_v2m.config import DatasetConfig, MetricsConfig
from diff_v2m.features import rhythm
from diff_v2m.features.events import picture_events
from diff_v2m.generation.pipeline import Composition, DiffV2M
from diff_v2m.metrics.audio_quality import health
from diff_v2m.metrics.rhythm import analyse, chance, correlation, sync
from diff_v2m.training.callbacks import log_row
from diff_v2m.training.demos import DemoClip, GenerationCallback
from diff_v2m.training.preemption import StopSignals

TOLERANCE = 0.1  # seconds between a cut and a beat


class MusicMetrics(GenerationCallback):
    """Logs the mean of `measure` over the clips as music/<name>, at the step of the weights."""

    what = "music metrics"

    def __init__(self, config: MetricsConfig, data: DatasetConfig, seed: int, signals: StopSignals):
        super().__init__(config.every, config.clips, data, seed, signals)
        self.config = config
        self.true: list[np.ndarray | None] | None = None  # (S,) rhythm of each clip's own soundtrack
        self.cuts: list[np.ndarray | None] = []  # seconds; None without a video

    def use(self, trainer: pl.Trainer, model: DiffV2M) -> None:
        sample_rate = model.config.sample_rate
        if self.true is None:
            self.cuts = [_cuts(clip) for clip in self.clips]
            self.true = [_true_rhythm(clip, sample_rate) for clip in self.clips]
        pieces = self.music(model, self.config.steps, self.config.cfg_scale)
        # The predicted rhythm can be compared with onsets only if the model predicts onsets.
        predicts_onsets = model.config.model.conditioning["semantic"].config.rhythm_type == "odf"
        rows = []
        for i, piece in enumerate(pieces):
            wanted = {"true": self.true[i]}
            if predicts_onsets:
                wanted["predicted"] = piece.rhythm
            if len(self.clips) > 1:
                wanted["wrong"] = self.true[(i + 1) % len(self.clips)]
            rows.append(measure(piece, sample_rate, wanted, self.cuts[i], seed=i))
        log_row(trainer, {f"music/{name}": value for name, value in means(rows).items()}, trainer.global_step - 1)


def measure(
    piece: Composition,
    sample_rate: int,
    wanted: Mapping[str, np.ndarray | None],
    cuts: np.ndarray | None,
    seed: int = 0,
) -> dict[str, float | None]:
    """Metrics of one piece; None for an undefined one.

    wanted: name → rhythm (S,) that its onsets are correlated with, as rhythm_r_<name>. cuts: seconds; None: unknown.
    """
    sound, found = health(piece.audio, sample_rate), analyse(piece.audio.mean(axis=0), sample_rate)
    values = {
        f"rhythm_r_{name}": None if rows is None else correlation(found.odf, rows) for name, rows in wanted.items()
    }
    if cuts is not None:
        cuts = cuts[cuts < found.duration]
        hit, lucky = sync(cuts, found.beats, TOLERANCE), chance(cuts, found.beats, found.duration, TOLERANCE, seed)
        values |= {"cuts_hit": hit.hit_rate if hit else None, "cuts_hit_by_chance": lucky.hit_rate if lucky else None}
    return values | {
        "pulse": found.pulse,
        "silence": sound.silence,
        "clipping": sound.clipping,
        "lufs": sound.lufs,
        "bandwidth": sound.bandwidth,
        "noisiness": sound.noisiness,
    }


def means(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Mean of each metric over the clips that have it; metrics that none has are skipped."""
    names = dict.fromkeys(name for row in rows for name in row)
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return {name: float(np.mean(known)) for name, known in values.items() if known}


def _true_rhythm(clip: DemoClip, sample_rate: int) -> np.ndarray | None:
    """Onsets of the clip's own soundtrack over the demo's window."""
    if clip.audio is None:
        return None
    audio = media.read_audio(clip.audio, sample_rate, 1, 0.0, clip.features.duration)[0]
    return rhythm.odf(torch.from_numpy(audio), sample_rate)[:, 0].numpy()


def _cuts(clip: DemoClip) -> np.ndarray | None:
    """Times of the video's cuts; features resolve them to the second only."""
    return None if clip.video is None else picture_events(Path(clip.video)).cuts
