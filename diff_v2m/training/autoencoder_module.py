"""Training of the audio autoencoder on random crops of music.

Losses are those of stable-audio-tools: multi-resolution STFT, waveform L1 and the KL term of the bottleneck.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.common.progress import in_stage
from diff_v2m.config import Config, DatasetConfig, DatasetEntry, ModelConfig
from diff_v2m.model.autoencoder import spectral_loss
from diff_v2m.training.pretransform_module import PretransformModule, files_of

log = logging.getLogger(__name__)

FFT_SIZES = (2048, 512, 128)


class AutoencoderModule(PretransformModule):
    """`autoencoder` is the `OobleckVAE`; a batch is audio (B, channels, samples) in [-1, 1]."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.autoencoder.scale_residual_branches(config.training.residual_init)
        a_weighting_at = config.sample_rate if config.training.perceptual_weighting else None
        self.spectral_loss = spectral_loss(FFT_SIZES, a_weighting_at)

    @property
    def weights(self) -> Config:
        return self.config.training.loss_weights

    @staticmethod
    def crops(data: DatasetConfig, config: ModelConfig) -> AudioCrops:
        return AudioCrops(data, config)

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
        self.clips = [clip for entry in data.folders for clip in _read_set(entry, config)]
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


def _read_set(entry: DatasetEntry, config: ModelConfig) -> list[np.ndarray]:
    clips, skipped, paths = [], 0, files_of(entry, (".wav",))
    for path in in_stage(paths, f"reading {entry.id}", "file", len(paths)):
        audio = media.read_audio(path, config.sample_rate, config.audio_channels)
        if audio.shape[-1] < config.sample_size:
            skipped += 1
            continue
        clips.append((audio.clip(-1, 1) * 32767).astype(np.int16))
    if skipped:
        log.warning("%s: skipped %d clips shorter than %d samples", entry.path, skipped, config.sample_size)
    return clips
