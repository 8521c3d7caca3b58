"""Demos: music for a few fixed clips, generated at intervals during training with the averaged weights."""

from __future__ import annotations

import contextlib
import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from diff_v2m import media
from diff_v2m.common.files import atomic
from diff_v2m.common.stopping import check_not_stopped
from diff_v2m.config import DatasetConfig, DemoConfig, ModelConfig
from diff_v2m.data.dataset import open_set
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.generation.pipeline import Composition, DiffV2M
from diff_v2m.generation.settings import SamplingSettings
from diff_v2m.plots import draw
from diff_v2m.training.callbacks import completes_step
from diff_v2m.training.diffusion_module import DiffusionModule
from diff_v2m.training.ema import with_parts
from diff_v2m.training.preemption import StopSignals

log = logging.getLogger(__name__)

DTYPES = {"16-mixed": "fp16", "bf16-mixed": "bf16"}  # training precision → dtype of generation on a GPU


@dataclass(frozen=True)
class DemoClip:
    """A window of a clip, with its video and its own soundtrack if the data set has them."""

    name: str
    features: VideoFeatures
    class_label: int
    video: Path | None
    audio: Path | None


class GenerationCallback(pl.Callback, ABC):
    """Every `every` optimiser steps the first process generates music for the first `count` clips.

    The music of a clip depends on the weights only: noise and settings are fixed, and the random numbers of training
    are restored. An error is logged and training continues. Generation does not start after this process has received
    a stop signal, because the other processes wait for it.
    """

    what = "music"  # for the log

    def __init__(self, every: int, count: int, data: DatasetConfig, seed: int, signals: StopSignals):
        self.every, self.count, self.data, self.seed, self.signals = every, count, data, seed, signals
        self.clips: list[DemoClip] | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, module: DiffusionModule, outputs, batch, batch_idx: int) -> None:
        if not completes_step(trainer, batch_idx) or trainer.global_step % self.every:
            return
        if trainer.is_global_zero and not self.signals.received:
            self.generate(trainer, module)

    def generate(self, trainer: pl.Trainer, module: DiffusionModule) -> None:
        """Generate now, for step `trainer.global_step`."""
        devices = [module.device] if module.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices):
                self.clips = self.clips or _first_clips(self.data, module.config, self.count)
                dtype = DTYPES.get(str(trainer.precision), "float32") if devices else "float32"
                with _averaged(module, own_network=dtype != "float32") as model:
                    self.use(trainer, DiffV2M(model, module.config, device=str(module.device), dtype=dtype))
        except Exception:  # an error here must not end a training run
            check_not_stopped()
            log.exception("step %d: no %s; training continues", trainer.global_step, self.what)

    @abstractmethod
    def use(self, trainer: pl.Trainer, model: DiffV2M) -> None:
        """Use the model of this step."""

    def music(self, model: DiffV2M, steps: int, guidance_scale: float) -> list[Composition]:
        """Music for `clips`, in their order."""
        return model.compose(
            [clip.features for clip in self.clips],
            [clip.name for clip in self.clips],
            SamplingSettings(seed=self.seed, steps=steps, guidance_scale=guidance_scale),
            class_labels=[clip.class_label for clip in self.clips],
        )


class Demos(GenerationCallback):
    """Writes wav, plot and, with a video, mp4 of the first `num_demos` clips to `folder`/step_<n>/ and the loggers."""

    what = "demos"

    def __init__(self, config: DemoConfig, data: DatasetConfig, folder: Path, seed: int, signals: StopSignals):
        super().__init__(config.demo_every, config.num_demos, data, seed, signals)
        self.config, self.folder = config, folder

    def use(self, trainer: pl.Trainer, model: DiffV2M) -> None:
        folder, sample_rate = self.folder / f"step_{trainer.global_step:07d}", model.config.sample_rate
        for scale in self.config.demo_cfg_scales:
            if self.signals.received:
                log.info("step %d: stop signal received: no demos with guidance %g", trainer.global_step, scale)
                continue
            pieces = self.music(model, self.config.demo_steps, scale)
            for clip, piece in zip(self.clips, pieces, strict=True):
                place = folder / f"{clip.name}_cfg{scale:g}"
                _write(clip, piece, place, sample_rate, f"step {trainer.global_step}, guidance {scale:g}")
                _show(trainer, place, sample_rate)


@contextlib.contextmanager
def _averaged(module: DiffusionModule, own_network: bool) -> Iterator[torch.nn.Module]:
    """The model with averaged weights, for generation to freeze; gradients and modes are restored afterwards.

    own_network: copy the network, so that it can be cast to another dtype.
    """
    averaged = module.averaged
    model = with_parts(averaged, **({"model": copy.deepcopy(averaged.model)} if own_network else {}))
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(part, part.training) for part in model.modules()]
    try:
        yield model
    finally:
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
        for part, training in modes:
            part.training = training


def _first_clips(data: DatasetConfig, config: ModelConfig, count: int) -> list[DemoClip]:
    """The first clips of the data set, cut to the model's window."""
    clips, seconds = [], int(config.window_seconds)
    for entry in data.datasets:
        found = open_set(entry, data, config)
        for stem in found.stems[: count - len(clips)]:
            features = found.read(stem).slice(0, seconds)
            video, audio = found.video_path(stem), found.audio_path(stem)
            clips.append(DemoClip(stem, features, found.class_label(stem), video, audio))
    return clips


def _write(clip: DemoClip, music: Composition, place: Path, sample_rate: int, subtitle: str) -> None:
    duration = music.audio.shape[1] / sample_rate
    wav = place.with_name(place.name + ".wav")
    music.music.write_notes(place.parent, place.name)
    media.write_wav(wav, music.audio / max(1.0, float(np.abs(music.audio).max(initial=0))), sample_rate)
    with atomic(place.with_name(place.name + ".png")) as part:
        draw(
            part,
            title=clip.name,
            subtitle=subtitle,
            audio=music.audio,
            sample_rate=sample_rate,
            scene_cut=clip.features.scene_cut,
            predicted_rhythm=music.rhythm,
            thumbnails=media.read_thumbnails(clip.video, duration) if clip.video else None,
        )
    if clip.video:
        media.mux(clip.video, wav, place.with_name(place.name + ".mp4"), duration)


def _show(trainer: pl.Trainer, place: Path, sample_rate: int) -> None:
    """Send plot and audio to the loggers that can show them."""
    wav, png = place.with_name(place.name + ".wav"), place.with_name(place.name + ".png")
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"demo/{place.name}", [str(png)])
            logger.log_audio(f"demo/{place.name}_sound", [str(wav)])
        if isinstance(logger, TensorBoardLogger):
            import cv2

            image = cv2.cvtColor(cv2.imread(str(png)), cv2.COLOR_BGR2RGB)
            audio = media.read_audio(wav, sample_rate, 1)[0]
            logger.experiment.add_image(f"demo/{place.name}", image, trainer.global_step, dataformats="HWC")
            logger.experiment.add_audio(f"demo/{place.name}", audio, trainer.global_step, sample_rate)
