"""From what a video shows to music for it: `DiffV2M`, the model with everything needed to use it.

    model = DiffV2M.from_pretrained("saved_model/tiny")
    music = model.compose([model.extract("holiday.mp4")], ["holiday"])[0].audio      # (channels, samples)

A clip up to one window of the model is made in one go; a longer film in consecutive windows that are crossfaded.
Files are written one floor up, in scoring/.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from diff_v2m.checkpoints.find import find_weights
from diff_v2m.checkpoints.loading import load_model
from diff_v2m.common.errors import InputError
from diff_v2m.common.seeding import noise_seed
from diff_v2m.config import ModelConfig
from diff_v2m.data.collate import feature_batch
from diff_v2m.features.extract import extract_features
from diff_v2m.features.semantic import build_encoder
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.generation.memory import Memory, Plan
from diff_v2m.generation.windows import Track, Window, plan_windows
from diff_v2m.model.compiling import compile_blocks
from diff_v2m.model.diffusion import SAMPLERS
from diff_v2m.model.dit import LatentDiffusion
from diff_v2m.model.precision import is_batch_invariant, set_precision, stored

log = logging.getLogger(__name__)

PUBLISHED_STEPS = 250  # of ddim, where the model JSON does not say how many its demos take
DEFAULT_STEPS = 30  # of the other samplers: as near the exact solution as the published 250 (docs/performance.md)


@dataclass(frozen=True)
class Composition:
    """Music for one clip."""

    audio: np.ndarray  # (channels, round(duration · sample_rate)) float32, as the decoder made it
    rhythm: np.ndarray  # (S,) float32: rhythm the model read off the picture, one value a second
    windows: tuple[Window, ...]


class DiffV2M:
    """A loaded model, ready to compose. Everything about a clip's music follows from its features, its name, the
    seed and the settings: not from the batch it is in, nor from what was made before."""

    def __init__(
        self,
        model: LatentDiffusion,
        config: ModelConfig,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        offload: bool = False,
        compile: bool = False,
    ):
        self.device = torch.device(device)
        model = model.eval().requires_grad_(False)
        set_precision(model.model, dtype, self.device)
        if compile:
            compile_blocks(model.model)
        self.model = model if offload else model.to(device)
        self.config = config
        self.dtype = dtype
        self.offload = offload
        self.compiled = compile
        self._encoder = None

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        dtype: str = "float32",
        weights: str = "ema",
        config: ModelConfig | None = None,
        offload: bool = False,
        compile: bool = False,
    ) -> DiffV2M:
        """Load a released-format .ckpt, our .safetensors, or the folder of either.

        device auto|cpu|cuda|cuda:1|mps; dtype: the precision of the diffusion transformer, see precision.py; weights
        ema|online; config: the model JSON of a checkpoint that brings none; offload: conditioner, network and VAE are
        on the device only while they work, one at a time; compile: have torch compile the network's blocks, for which
        the first step waits. Raises InputError.
        """
        device = pick_device(device)
        place = "cpu" if offload else device
        model, config = load_model(find_weights(path), config=config, weights=weights, device=place)
        model.pretransform.fold_weight_norm()
        return cls(model, config, device=device, dtype=dtype, offload=offload, compile=compile)

    @property
    def encoder_name(self) -> str:
        """The semantic encoder whose features this model was trained on."""
        return self.config.model.conditioning["semantic"].config.encoder

    def default_steps(self, sampler: str) -> int:
        """For ddim those of the demos in the model JSON, 250 as released; dpmpp-3m is as exact in 30."""
        demo = self.config.training and self.config.training.demo
        published = demo.demo_steps if demo else PUBLISHED_STEPS
        return published if sampler == "ddim" else DEFAULT_STEPS

    @property
    def idle_cores(self) -> int:
        """How many cores have nothing to do while this composes."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return max(0, cores - (torch.get_num_threads() if self.device.type == "cpu" else 1))

    def plan(self, budget: float) -> Plan:
        """How to cut up the work so that it takes no more than `budget` bytes, as computed. Raises InputError."""
        plan = Memory(self.config, stored(self.dtype, self.device)).fit(budget, offload=self.offload)
        return plan if is_batch_invariant(self.dtype) else replace(plan, batch_size=1)

    def extract(self, video: str | Path) -> VideoFeatures:
        """Features of a video file, by the encoder this model was trained with. Raises InputError."""
        if self._encoder is None:
            self._encoder = build_encoder(self.encoder_name, "cpu" if self.offload else str(self.device))
        return extract_features(video, self._encoder)

    def generate(self, video: str | Path, **settings) -> Composition:
        """Video file → music. Settings as in `compose`."""
        return self.compose([self.extract(video)], [Path(video).stem], **settings)[0]

    @torch.inference_mode()
    def compose(
        self,
        features: Sequence[VideoFeatures],
        names: Sequence[str],
        *,
        seed: int = 42,
        steps: int | None = None,
        sampler: str = "dpmpp-3m",
        guidance_scale: float = 3.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        class_label: int | Sequence[int] = 2,
        variation: int | Sequence[int] = 1,
        batch_size: int = 4,
        decode_chunk: float | None = None,
    ) -> list[Composition]:
        """Music for every clip, in order. class_label and variation: one for all, or one for each.

        names: with seed and variation they decide the noise, so a clip keeps its music wherever it is made again.
        sampler: a name in `diffusion.SAMPLERS`; published results are ddim. steps: None as `default_steps`.
        guidance_interval: guidance acts for t above the first and up to the second. batch_size: windows denoised
        together; decode_chunk: seconds decoded at a time, None for whole windows. They change memory and speed only.
        Raises InputError when the model yields NaN or memory runs out.
        """
        labels, variations = (_each(value, len(names)) for value in (class_label, variation))
        tracks, pieces = [], []
        for clip, (shown, name) in enumerate(zip(features, names, strict=True)):
            windows = plan_windows(shown.duration, self.config.window_seconds)
            tracks.append(self._track(shown, windows))
            for number, window in enumerate(windows):
                shape = (self.config.latent_channels, self._frames(window))
                noise = draw_noise(seed, name, variations[clip], number, shape)
                rows = shown.slice(window.start, window.start + self._rows(window))
                pieces.append(_Piece(clip, number, name, labels[clip], rows, noise))

        batches = _batches(pieces, batch_size if is_batch_invariant(self.dtype) else 1)
        steps = steps or self.default_steps(sampler)
        with tqdm(total=steps * len(batches), desc="composing", unit="step", disable=None, leave=False) as progress:
            for batch in batches:
                latents, rhythm = self._denoise(
                    batch, steps, SAMPLERS[sampler], guidance_scale, guidance_interval, progress
                )
                with self._on_device(self.model.pretransform):
                    for piece, latent, row in zip(batch, latents, rhythm, strict=True):
                        tracks[piece.clip].add(piece.number, self._decode(latent, piece.name, decode_chunk), row)
        return [Composition(track.audio, track.rhythm, track.windows) for track in tracks]

    def _denoise(
        self,
        pieces: list[_Piece],
        steps: int,
        sample: Callable[..., Tensor],
        guidance_scale: float,
        guidance_interval: tuple[float, float],
        progress: tqdm,
    ) -> tuple[Tensor, np.ndarray]:
        """B pieces → latents (B, 64, N) and predicted rhythm (B, S).

        The conditions meet the weights once, here, and no step waits for the device. The network alone may be of lower
        precision; conditioner, sampler and VAE are float32.
        """
        batch = feature_batch([p.rows for p in pieces], [p.name for p in pieces], [p.label for p in pieces])
        noise = torch.stack([piece.noise for piece in pieces]).to(self.device)
        try:
            with self._on_device(self.model.conditioner):
                conditions = self.model.condition(batch.to(self.device))
            network, (low, high) = self.model.model, guidance_interval

            objective = self.model.objective
            discontinuities = [] if network.fusion_switch_t is None else [network.fusion_switch_t]
            if guidance_scale != 1 and low < high:
                discontinuities += [low, high]
            with self._on_device(network):
                cache = network.precompute(conditions, noise.shape[-1])

                def denoise(x: Tensor, t: Tensor) -> Tensor:
                    scale = guidance_scale if low < t[0] <= high else 1.0
                    return network.denoise(x, t, cache, guidance_scale=scale)

                latents = sample(
                    objective.as_v(denoise),
                    noise,
                    steps,
                    callback=lambda *_: progress.update(),
                    discontinuities=[objective.v_time(t) for t in discontinuities],
                )
        except torch.OutOfMemoryError:
            raise InputError(
                f"out of GPU memory with {len(pieces)} windows at once; lower --batch_size, or use --offload or "
                "--dtype bf16"
            ) from None
        except RuntimeError as error:
            if not (self.compiled and isinstance(error, torch._dynamo.exc.BackendCompilerFailed)):
                raise
            reason = str(error.inner_exception).strip().partition("\n")[0]
            raise InputError(f"--compile: torch cannot compile the network ({reason}); leave --compile out") from None
        return latents, conditions.predicted_rhythm.float().mean(dim=2).cpu().numpy()

    def _decode(self, latent: Tensor, name: str, chunk: float | None) -> np.ndarray:
        """(64, N) → (channels, samples): one window at a time, so that memory does not grow with the batch."""
        frames = None if chunk is None else self.config.frames_of(chunk)
        try:
            audio = self.model.decode(latent[None], frames)[0].float().cpu().numpy()
        except torch.OutOfMemoryError:
            raise InputError(f"{name}: out of GPU memory while decoding; use a smaller --decode_chunk, as 5") from None
        if not np.isfinite(audio).all():
            raise InputError(
                f"{name}: the model produced NaN (precision {self.dtype}); try --dtype float32, and check that the "
                "checkpoint's training went well"
            )
        return audio

    @contextmanager
    def _on_device(self, part: nn.Module) -> Iterator[None]:
        """Where a part of the model works. With `offload` it comes for that and goes again, so that the device never
        holds two."""
        if self.offload:
            part.to(self.device)
        try:
            yield
        finally:
            if self.offload:
                part.to("cpu")

    def _track(self, shown: VideoFeatures, windows: Sequence[Window]) -> Track:
        rate, channels = self.config.sample_rate, self.config.audio_channels
        return Track(shown.duration, len(shown), windows, sample_rate=rate, channels=channels)

    def _rows(self, window: Window) -> int:
        """Rows of features for a window; what SLACK adds is not shown to the model."""
        return max(1, min(math.ceil(window.duration), int(self.config.window_seconds)))

    def _frames(self, window: Window) -> int:
        """Latent frames for a window: always a whole window, as in training; a little more where SLACK asks for it."""
        samples = math.ceil(window.duration * self.config.sample_rate)
        return self.config.latent_length(max(samples, self.config.sample_size))


@dataclass(frozen=True)
class _Piece:
    """One window of one clip, with all that decides its music."""

    clip: int
    number: int  # of the window in the clip
    name: str
    label: int
    rows: VideoFeatures
    noise: Tensor  # (64, N)


def _batches(pieces: list[_Piece], size: int) -> list[list[_Piece]]:
    """Pieces of one length together, at most `size` of them: padding some would change what they become."""
    lengths = sorted({piece.noise.shape[1] for piece in pieces})
    groups = [[piece for piece in pieces if piece.noise.shape[1] == length] for length in lengths]
    return [group[i : i + size] for group in groups for i in range(0, len(group), size)]


def draw_noise(seed: int, name: str, variation: int, window: int, shape: tuple[int, ...]) -> Tensor:
    """Noise of one window on the CPU, from a hash of who it is for: the same on any device, in any batch or order.

    (As released: one generator for the whole run, so that skipping a clip changed the music of all that follow.)
    """
    generator = torch.Generator().manual_seed(noise_seed(seed, name, variation, window))
    return torch.randn(shape, generator=generator)


def pick_device(name: str = "auto") -> str:
    """auto → the best there is; anything else is checked. Raises InputError."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(name.split(":")[0], False):
        raise InputError(f"--device {name}: not available here; use --device auto or cpu")
    return name


def _each(value: int | Sequence[int], count: int) -> list[int]:
    return [value] * count if isinstance(value, int) else list(value)
