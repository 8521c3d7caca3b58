"""The audio autoencoder: Stable Audio's Oobleck encoder and decoder around a variational bottleneck.

The convolutions are stable-audio-tools'; this is the only file that imports it. Parameter names are the released
checkpoint's (`model.encoder.layers…`, `model.decoder.layers…`, old-style weight norm).

Two additions, absent in the released config, make the small bundled autoencoder learn:
`patch_size` folds that many samples into channels before the encoder and unfolds them after the decoder;
`normalize_latents` keeps a mean and a standard deviation per latent channel, so that the diffusion model sees unit
variance whatever the encoder chose.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import math
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from alias_free_torch import Activation1d
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from diff_v2m.common.progress import stage
from diff_v2m.common.scratch import TEMPORARY, Scratch
from diff_v2m.config import AutoencoderConfig
from diff_v2m.model.music import Music, fade_out
from diff_v2m.score.planner import Plan

CPU_CHUNK = 108  # latent frames decoded at a time on a CPU, 5 s as released: half the memory, and faster


@contextlib.contextmanager
def stub_imports(*unused: str) -> Iterator[None]:
    """Import single modules of stable-audio-tools, without its packages' __init__ files, which import everything.

    unused: modules that the wanted ones import and use only in functions that are never called here; each is replaced
    by a stub. Together this saves k-diffusion, torch._dynamo, sympy and their seconds. Afterwards `sys.modules` is as
    it was before.
    """
    spec = importlib.util.find_spec("stable_audio_tools")
    root = Path(spec.submodule_search_locations[0])
    stubs = {}
    for package in ("", ".models", ".inference", ".training", ".training.losses"):
        stubs[f"stable_audio_tools{package}"] = module = types.ModuleType(f"stable_audio_tools{package}")
        module.__path__ = [str(root.joinpath(*package.split(".")))]
    for name in unused:
        stubs[name] = module = types.ModuleType(name)
        vars(module)["__getattr__"] = lambda attribute: lambda value: value  # serves as decorator and annotation

    def take_out() -> dict[str, types.ModuleType]:
        names = [name for name in sys.modules if name in stubs or name.startswith("stable_audio_tools")]
        return {name: sys.modules.pop(name) for name in names}

    before = take_out()
    sys.modules.update(stubs)
    try:
        yield
    finally:
        take_out()
        sys.modules.update(before)


with stub_imports(
    "stable_audio_tools.inference.sampling",
    "stable_audio_tools.inference.utils",
    "stable_audio_tools.models.diffusion",
    "stable_audio_tools.models.pretransforms",
    "stable_audio_tools.models.transformer",
    "stable_audio_tools.models.utils",
    "torchaudio",
):
    from stable_audio_tools.models.autoencoders import OobleckDecoder, OobleckEncoder, ResidualUnit


class OobleckVAE(nn.Module):
    """audio (B, channels, samples) ⇄ latents (B, latent_dim, ⌈samples / downsampling_ratio⌉).

    Always in evaluation mode: Oobleck's only training-mode behaviour is gradient checkpointing in every residual unit,
    which doubles the cost of a step. The bottleneck samples in any mode, as released.
    """

    extras: tuple[str, ...] = ()
    has_stems = False

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.channels = config.io_channels
        self.downsampling_ratio = config.downsampling_ratio
        self.patch_size = config.patch_size
        with warnings.catch_warnings():
            # the older of torch's two weight norms is what names weight_g and weight_v in released checkpoints
            warnings.filterwarnings("ignore", message=".*weight_norm", category=FutureWarning)
            # mode json: Oobleck concatenates its multipliers and so needs lists, not tuples
            self.model = nn.ModuleDict(
                {
                    "encoder": OobleckEncoder(**config.encoder.config.model_dump(mode="json")),
                    "decoder": OobleckDecoder(**config.decoder.config.model_dump(mode="json")),
                }
            )
        self.reach = _reach(self.model["decoder"])
        self.normalize_latents = config.normalize_latents
        if config.normalize_latents:
            self.register_buffer("latent_mean", torch.zeros(config.latent_dim, 1))
            self.register_buffer("latent_std", torch.ones(config.latent_dim, 1))
        self.eval()

    def train(self, mode: bool = True) -> OobleckVAE:
        return super().train(False)

    def encode(self, audio: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sample latents of audio (B, channels, samples); the end is zero-padded to a whole number of frames."""
        mean, std = self.posterior(audio)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return self.normalize(mean + std * noise)

    def decode(self, latents: Tensor, chunk: int | None = None) -> Tensor:
        """Audio (B, channels, N · downsampling_ratio) of latents (B, latent_dim, N).

        chunk: frames to decode at a time; None: all; on a CPU at most `CPU_CHUNK`. The audio is the same, as each chunk
        is decoded together with all neighbours that reach into it; memory follows the chunk.
        """
        parts = list(self._decode_chunks(latents, chunk))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _decode_chunks(self, latents: Tensor, chunk: int | None) -> Iterator[Tensor]:
        """The audio of `decode`, chunk after chunk."""
        latents = latents * self.latent_std + self.latent_mean if self.normalize_latents else latents
        frames, ratio = latents.shape[-1], self.downsampling_ratio
        chunk = min(chunk or frames, CPU_CHUNK if latents.device.type == "cpu" else frames)
        with stage("decoding", frames, "frame") as bar:
            for start in range(0, frames, chunk):
                stop, first = min(start + chunk, frames), max(start - self.reach, 0)
                audio = self.decode_raw(latents[..., first : stop + self.reach])
                if chunk < frames:  # a view keeps it all
                    audio = audio[..., (start - first) * ratio : (stop - first) * ratio].clone()
                yield audio
                bar.update(stop - start)

    def decode_raw(self, latents: Tensor) -> Tensor:
        """`decode` for latents that were not normalised, as the bottleneck leaves them."""
        return rearrange(self.model["decoder"](latents), "b (c p) n -> b c (n p)", p=self.patch_size)

    def music(
        self,
        latents: Tensor,
        duration: float,
        sample_rate: int,
        chunk: int | None = None,
        *,
        ending: float = 0.0,
        plan: Plan | None = None,
        scratch: Scratch = TEMPORARY,
    ) -> Music:
        """See `Pretransform.music`. Each chunk leaves the device before the next one is decoded.

        Frames after the clip's end are left out where they do not reach into it.
        """
        audio = scratch.zeros(self.channels, max(1, round(duration * sample_rate)))
        latents = latents[:, : -(-audio.shape[1] // self.downsampling_ratio) + self.reach]
        start = 0
        for part in self._decode_chunks(latents[None], chunk):
            made = part[0].detach().float().cpu().numpy()
            if not np.isfinite(made).all():
                raise FloatingPointError
            place = audio[:, start : start + made.shape[1]]
            place[:] = made[:, : place.shape[1]]
            start += made.shape[1]
        if ending:
            fade_out(audio, round(ending * sample_rate))
        return Music(audio, scratch=scratch)

    def posterior(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, latent_dim, N) of the latents, before normalisation."""
        audio = F.pad(audio, (0, -audio.shape[-1] % self.downsampling_ratio))
        patches = rearrange(audio, "b c (n p) -> b (c p) n", p=self.patch_size)
        mean, scale = self.model["encoder"](patches).chunk(2, dim=1)
        return mean, F.softplus(scale) + 1e-4

    def normalize(self, latents: Tensor) -> Tensor:
        """Latents with zero mean and unit variance per channel, if the config asks for it."""
        return (latents - self.latent_mean) / self.latent_std if self.normalize_latents else latents

    def fingerprint(self) -> str:
        """SHA-256, in hex, of all that latents depend on: encoder and statistics, not the decoder."""
        digest = hashlib.sha256(f"patches of {self.patch_size}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            if not name.startswith("model.decoder."):
                digest.update(f"{name} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().float().cpu().contiguous().numpy())
        return digest.hexdigest()

    def prepare_for_inference(self) -> None:
        """Compute the decoder's weights once instead of at every call: same audio. The model must not be saved then."""
        for module in self.model["decoder"].modules():
            if hasattr(module, "weight_g"):
                nn.utils.remove_weight_norm(module)

    def scale_residual_branches(self, factor: float) -> None:
        """Damp every residual branch; with 0.1 at the start a small codec trains several times faster."""
        for unit in self.modules():
            if isinstance(unit, ResidualUnit):
                unit.layers[-1].weight_g.data.mul_(factor)


def _reach(decoder: nn.Module) -> int:
    """Receptive field of a decoder's output sample, in latent frames to either side of its own."""
    reach, rate = 0.0, 1  # latent frames; samples in one of them
    for layer in decoder.modules():
        if isinstance(layer, nn.ConvTranspose1d):
            (size,), (stride,), (padding,) = layer.kernel_size, layer.stride, layer.padding
            rate *= stride
            reach += max(size - 1 - padding, padding) / rate
        elif isinstance(layer, nn.Conv1d):
            reach += layer.dilation[0] * (layer.kernel_size[0] // 2) / rate
        elif isinstance(layer, Activation1d):  # filters of 12 taps up to twice the rate and down again
            reach += 6 / rate
        elif isinstance(layer, nn.Upsample):
            reach += 1 / rate
            rate *= layer.scale_factor
    return math.ceil(reach)


def spectral_loss(fft_sizes: tuple[int, ...], a_weighting_at: int | None = None) -> nn.Module:
    """Multi-resolution STFT distance (spectral convergence, log and linear magnitude) of two waveforms.

    a_weighting_at: sample rate in Hz of an A-weighting filter for both; None: no filter.
    """
    with stub_imports():
        from stable_audio_tools.training.losses.auraloss import MultiResolutionSTFTLoss
    sizes = list(fft_sizes)
    hops = [size // 4 for size in sizes]
    # log_eps near-silence, where the logarithm diverges, would otherwise dominate the gradient
    return MultiResolutionSTFTLoss(
        sizes,
        hops,
        sizes,
        w_log_mag=1.0,
        w_lin_mag=1.0,
        log_eps=1e-3,
        sample_rate=a_weighting_at,
        perceptual_weighting=a_weighting_at is not None,
    )
