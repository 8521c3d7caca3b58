"""The pretransform: what diffusion denoises, and how it becomes music. One interface, chosen by `pretransform.type`.

autoencoder    waveform ⇄ latents                                       autoencoder.py
score          notes ⇄ latents; a synthesiser plays the notes           score_autoencoder.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from diff_v2m.common.scratch import Scratch
from diff_v2m.config.autoencoder import PretransformConfig
from diff_v2m.model.autoencoder import OobleckVAE
from diff_v2m.model.music import Music
from diff_v2m.model.score_autoencoder import ScoreVAE
from diff_v2m.score.planner import Plan


class Pretransform(Protocol):
    """B clips, N latent frames, `downsampling_ratio` samples of the waveform in each.

    A source is a tensor of what the pretransform encodes: audio (B, channels, samples) or score frames (B, rows, N).
    """

    downsampling_ratio: int
    reach: int  # latent frames to either side of its own that a decoded sample depends on
    normalize_latents: bool
    extras: tuple[str, ...]  # suffixes of what is written beside the wav, without the dot
    has_stems: bool  # whether each voice can be written alone

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def encode(self, source: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sample latents (B, latent_dim, N)."""
        ...

    def posterior(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, latent_dim, N) of the latents, before normalisation."""
        ...

    def decode(self, latents: Tensor, chunk: int | None = None) -> Tensor:
        """Audio (B, channels, N · downsampling_ratio), decoded `chunk` frames at a time; None: as suits the device."""
        ...

    def music(
        self,
        latents: Tensor,
        duration: float,
        sample_rate: int,
        chunk: int | None = None,
        *,
        ending: float = 0.0,
        plan: Plan | None = None,
        scratch: Scratch = ...,
    ) -> Music:
        """The first `duration` seconds of latents (latent_dim, N), decoded `chunk` frames at a time.

        ending: seconds of fade that reach silence with the last sample. plan: beat grid and key that the model was
        given, which a score takes over. scratch: where long audio lies. Raises FloatingPointError for NaN.
        """
        ...

    def fingerprint(self) -> str:
        """SHA-256, in hex, of all that latents depend on."""
        ...

    def prepare_for_inference(self) -> None:
        """Make decoding faster, once. Not for a model to be saved."""
        ...


PRETRANSFORMS: dict[str, type[nn.Module]] = {"autoencoder": OobleckVAE, "score": ScoreVAE}


def build_pretransform(config: PretransformConfig) -> nn.Module:
    """A pretransform with random weights, in evaluation mode."""
    return PRETRANSFORMS[config.type](config.config).eval()
