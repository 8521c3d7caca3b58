"""Training of the audio autoencoder on random crops of music.

Losses are those of stable-audio-tools: multi-resolution STFT, waveform L1 and the KL term of the bottleneck.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from diff_v2m import media
from diff_v2m.checkpoints.files import save_model
from diff_v2m.checkpoints.loading import load_vae_weights
from diff_v2m.common.errors import InputError
from diff_v2m.config import DatasetConfig, ModelConfig
from diff_v2m.data.loader import seeded_loader
from diff_v2m.model.autoencoder import OobleckVAE, spectral_loss
from diff_v2m.training.optim import build_optimizer

log = logging.getLogger(__name__)

FFT_SIZES = (2048, 512, 128)


class AutoencoderModule(pl.LightningModule):
    """`autoencoder` is the `OobleckVAE`; a batch is audio (B, channels, samples) in [-1, 1]."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.autoencoder = OobleckVAE(config.pretransform.config)
        self.autoencoder.scale_residual_branches(config.training.residual_init)
        a_weighting_at = config.sample_rate if config.training.perceptual_weighting else None
        self.spectral_loss = spectral_loss(FFT_SIZES, a_weighting_at)
        self.weights = config.training.loss_weights
        if config.training.freeze_encoder:
            self.autoencoder.model["encoder"].requires_grad_(False)

    @classmethod
    def from_settings(cls, config: ModelConfig, settings: argparse.Namespace) -> AutoencoderModule:
        """The module of this config, with the starting weights that the flags name."""
        for flag in ("compile", "init_dit_ckpt_path", "lora_rank"):
            if getattr(settings, flag):
                raise InputError(f"--{flag.replace('_', '-')} is for the generator; an autoencoder has no transformer")
        module = cls(config)
        if start := settings.pretrained_ckpt_path or settings.pretransform_ckpt_path:
            load_vae_weights(module.autoencoder, start)
        return module

    @staticmethod
    def loader(data: DatasetConfig, config: ModelConfig, settings: argparse.Namespace, *, training: bool) -> DataLoader:
        return seeded_loader(  # without workers: the audio is in memory
            AudioCrops(data, config),
            batch_size=settings.batch_size,
            training=training,
            drop_last=training,
            seed=settings.seed,
            padding_batch=lambda audio: audio[:0],
        )

    def training_step(self, audio: Tensor, batch_index: int) -> Tensor:
        losses = self.losses(audio)
        self.log_dict({f"train/{name}": value for name, value in losses.items()})
        total = self.total(losses)
        self.log("train/loss", total, prog_bar=True)
        return total

    def validation_step(self, audio: Tensor, batch_index: int) -> None:
        if not len(audio):  # a padding batch
            return
        losses = self.losses(audio)
        values = {"loss": self.total(losses), **losses}
        self.log_dict({f"val/{k}": v for k, v in values.items()}, batch_size=len(audio), sync_dist=True)

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the loss terms."""
        return sum(weight * losses[name] for name, weight in self.weights)

    def losses(self, audio: Tensor) -> dict[str, Tensor]:
        """Unweighted loss terms of audio (B, channels, samples)."""
        mean, std = self.autoencoder.posterior(audio)
        mean, std = mean.float(), std.float()
        # decode_raw, because the statistics for normalised latents are known only when training ends.
        reconstruction = self.autoencoder.decode_raw(mean + std * torch.randn_like(std)).float()
        kl = (mean**2 + std**2 - 2 * torch.log(std) - 1).sum(1).mean()
        with torch.autocast(audio.device.type, enabled=False):
            return {
                "spectral": self.spectral_loss(reconstruction, audio),
                "waveform": F.l1_loss(reconstruction, audio),
                "kl": kl,
                "si_sdr": scale_invariant_sdr(reconstruction, audio).mean().detach(),
            }

    def configure_optimizers(self) -> dict:
        parameters = [parameter for parameter in self.autoencoder.parameters() if parameter.requires_grad]
        recipe = self.config.training.optimizer_configs["autoencoder"]
        return build_optimizer(parameters, recipe, self.trainer.estimated_stepping_batches)

    def on_train_end(self) -> None:
        if self.autoencoder.normalize_latents and not self.config.training.freeze_encoder:
            self.measure_latents(self.trainer.train_dataloader)

    @torch.no_grad()
    def measure_latents(self, loader: DataLoader, batches: int = 100) -> None:
        """Measure the per-channel mean and standard deviation that `normalize_latents` uses."""
        moments = []
        for audio, _ in zip(loader, tqdm(range(batches), desc="latent statistics"), strict=False):
            mean, std = self.autoencoder.posterior(audio.to(self.device))
            moments.append(torch.stack([mean, mean**2 + std**2]).mean(dim=(1, 3)))  # (2, latent_dim)
        first, second = torch.stack(moments).mean(0).unsqueeze(-1)
        self.autoencoder.latent_mean.copy_(first)
        self.autoencoder.latent_std.copy_((second - first**2).clamp(min=1e-8).sqrt())

    def export(self, path: Path) -> None:
        """Write the autoencoder as one safetensors file with the config inside. Every process may call it."""
        if self.trainer.is_global_zero:
            save_model(self.autoencoder, self.config, path, dtype=None)
            log.info("wrote %s", path)


def scale_invariant_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """SI-SDR in dB per clip and channel of signals (B, channels, samples)."""
    scale = (estimate * target).sum(-1, keepdim=True) / target.square().sum(-1, keepdim=True).clamp(min=1e-8)
    wanted = scale * target
    noise = (estimate - wanted).square().sum(-1).clamp(min=1e-8)
    return 10 * torch.log10(wanted.square().sum(-1).clamp(min=1e-8) / noise)


class AudioCrops(Dataset):
    """Crops of `sample_size` samples from every wav of a data set, which are held in memory as 16-bit integers.

    Item i is a crop (channels, sample_size) float32 of clip i, from a random place (`random_crop`) or from the middle.
    Raises InputError if a wav cannot be read or none is long enough.
    """

    def __init__(self, data: DatasetConfig, config: ModelConfig):
        self.size, self.random = config.sample_size, data.random_crop
        self.clips = [clip for entry in data.folders for clip in _read_folder(entry.path, config)]
        if not self.clips:
            folders = ", ".join(str(entry.path) for entry in data.folders)
            raise InputError(f"no wav of at least {self.size} samples in {folders}: give folders with longer audio")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Tensor:
        clip = self.clips[index]
        room = clip.shape[-1] - self.size
        start = int(torch.randint(room + 1, ())) if self.random else room // 2
        return torch.from_numpy(clip[:, start : start + self.size].astype(np.float32) / 32768)


def _read_folder(folder: Path | None, config: ModelConfig) -> list[np.ndarray]:
    if folder is None or not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the dataset JSON's `path` to name a folder of wavs")
    clips, skipped = [], 0
    for path in tqdm(sorted(folder.glob("*.wav")), desc=f"reading {folder.parent.name}/{folder.name}"):
        audio = media.read_audio(path, config.sample_rate, config.audio_channels)
        if audio.shape[-1] < config.sample_size:
            skipped += 1
            continue
        clips.append((audio.clip(-1, 1) * 32767).astype(np.int16))
    if skipped:
        log.warning("%s: skipped %d clips shorter than %d samples", folder, skipped, config.sample_size)
    return clips
