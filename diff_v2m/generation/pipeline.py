"""Video features → music: `DiffV2M`, the model with everything that is needed to use it.

    model = DiffV2M.from_pretrained("saved_model/tiny")
    music = model.compose([model.extract("holiday.mp4")], ["holiday"], seed=7)[0].audio      # (channels, samples)

A video that fits the model's window is generated in one piece, a longer one in overlapping windows that are crossfaded.
generation/runner.py writes the files.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from diff_v2m.checkpoints.loading import WeightSet, load_model
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import find_weights
from diff_v2m.common.seeding import noise_seed
from diff_v2m.config import ModelConfig
from diff_v2m.data.collate import feature_batch
from diff_v2m.features.extract import extract_with_thumbnails
from diff_v2m.features.semantic import SemanticEncoder, build_encoder
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.generation.planning import plan_of
from diff_v2m.generation.settings import SamplingSettings
from diff_v2m.generation.windows import RhythmTrack, plan_windows
from diff_v2m.media import Thumbnails
from diff_v2m.model.compiling import compile_blocks
from diff_v2m.model.diffusion import SAMPLERS
from diff_v2m.model.dit import LatentDiffusion
from diff_v2m.model.music import Music, Window
from diff_v2m.model.precision import is_batch_invariant, set_precision
from diff_v2m.model.pretransform import Piece, Track
from diff_v2m.score.planner import Plan
from diff_v2m.score.score import Score, grid_rows

log = logging.getLogger(__name__)

DEFAULT_SETTINGS = SamplingSettings()
PLAN = -1  # in place of the window's number in the seed of a clip's plan
FIRST_CHUNK, SHORTEST_CHUNK = 5.0, 1.0  # seconds decoded at a time when memory runs out


@dataclass(frozen=True)
class Composition:
    """Music for one clip."""

    music: Music
    rhythm: np.ndarray  # (S,) float32: rhythm that the model predicts from the video, one value per second
    windows: tuple[Window, ...]
    plan: Plan | None = None  # beat grid and key that the model received; None: it receives none

    @property
    def audio(self) -> np.ndarray:
        """(channels, round(duration · sample_rate)) float32, as it was decoded."""
        return self.music.audio

    @property
    def score(self) -> Score | None:
        """The notes of the whole clip, if the model writes notes."""
        return self.music.score

    def stems(self) -> dict[str, np.ndarray]:
        """Audio of each voice, as `audio`, which is their sum; empty if the model writes no notes."""
        return self.music.stems()


class DiffV2M:
    """A loaded model, ready to generate.

    A clip's music depends on its features, its name, the variation and the settings, not on the batch it is in or on
    what was generated before. When the device runs out of memory, the work is cut into smaller parts, and these limits
    stay for the lifetime of the object.
    """

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
        self._encoder: SemanticEncoder | None = None
        self._most_windows: int | None = None  # denoised together; None: as many as asked for
        self._longest_chunk = math.inf  # seconds decoded at a time

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        dtype: str = "float32",
        weights: WeightSet = "ema",
        config: ModelConfig | None = None,
        offload: bool = False,
        compile: bool = False,
    ) -> DiffV2M:
        """Load a released-format .ckpt, our .safetensors, or the folder of either.

        device: auto, cpu, cuda, cuda:1 or mps. dtype: precision of the diffusion transformer, see precision.py.
        weights: ema or online. config: model JSON of a checkpoint that brings none. offload: conditioner, network and
        VAE are on the device only while they work, one at a time. compile: torch.compile for the network's blocks,
        which makes the first step slow. Raises InputError.
        """
        path, device = find_weights(path), pick_device(device)
        loaded = None
        if not offload:
            with contextlib.suppress(torch.OutOfMemoryError):
                loaded = load_model(path, config=config, weights=weights, device=device)
            if loaded is None:
                log.warning("out of memory while loading: --offload from here on")
                offload = True
        model, config = loaded or load_model(path, config=config, weights=weights, device="cpu")
        model.pretransform.prepare_for_inference()
        return cls(model, config, device=device, dtype=dtype, offload=offload, compile=compile)

    @property
    def encoder_name(self) -> str:
        """Name of the semantic encoder that the model was trained with."""
        return self.config.model.conditioning["semantic"].config.encoder

    @property
    def idle_cores(self) -> int:
        """CPU cores that are idle while music is generated."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return max(0, cores - (torch.get_num_threads() if self.device.type == "cpu" else 1))

    def extract(self, video: str | Path) -> VideoFeatures:
        """Features of a video file, by the encoder the model was trained with. Raises InputError."""
        return self.extract_with_thumbnails(video)[0]

    def extract_with_thumbnails(self, video: str | Path) -> tuple[VideoFeatures, Thumbnails]:
        """`extract`, with the frames for the plot, in the same pass. Raises InputError."""
        encoder = self._encoder  # may be reset by another thread, see `_start_offloading`
        with contextlib.suppress(torch.OutOfMemoryError):
            if encoder is None:
                encoder = build_encoder(self.encoder_name, "cpu" if self.offload else str(self.device))
                self._encoder = encoder
            return extract_with_thumbnails(video, encoder)
        log.warning("out of memory: video features are extracted on the CPU from here on")
        encoder = self._encoder = build_encoder(self.encoder_name, "cpu")
        return extract_with_thumbnails(video, encoder)

    def generate(self, video: str | Path, settings: SamplingSettings = DEFAULT_SETTINGS, **options: Any) -> Composition:
        """Video file → music. Options are those of `compose`."""
        return self.compose([self.extract(video)], [Path(video).stem], settings, **options)[0]

    @torch.inference_mode()
    def compose(
        self,
        features: Sequence[VideoFeatures],
        names: Sequence[str],
        settings: SamplingSettings = DEFAULT_SETTINGS,
        *,
        class_labels: Sequence[int] | None = None,
        variations: Sequence[int] | None = None,
        batch_size: int = 4,
        decode_chunk: float | None = None,
        **changes: Any,
    ) -> list[Composition]:
        """Generate music for every clip, in order.

        names: with seed and variation they decide the noise, so a clip keeps its music in any batch.
        settings: how to sample; further keywords replace its fields, as in compose(features, names, seed=7, steps=50).
        class_labels, variations: one per clip; by default `settings.class_label` and 1.
        batch_size: windows denoised together. decode_chunk: seconds decoded at a time; None: whole windows. Both
        change speed and memory only. Raises InputError if the model yields NaN or a single window does not fit.
        """
        settings = replace(settings, **changes)
        class_labels = class_labels or [settings.label_for()] * len(names)
        variations = variations or [1] * len(names)
        tracks, rhythms, plans, todo = [], [], [], []
        for clip, (shown, name) in enumerate(zip(features, names, strict=True)):
            windows = plan_windows(shown.duration, self.config.window_seconds)
            tracks.append(self._track(shown.duration, windows))
            rhythms.append(RhythmTrack(len(shown), windows))
            plans.append(self._plan(shown, noise_seed(settings.seed, name, variations[clip], PLAN)))
            for number, window in enumerate(windows):
                shape = (self.config.latent_channels, self._frames(window))
                noise = draw_noise(settings.seed, name, variations[clip], number, shape)
                seen = shown.slice(window.start, window.start + self._seconds(window))
                grid = self._grid(plans[-1], window)
                todo.append(_Work(clip, number, name, class_labels[clip], seen, noise, grid))

        batch_size = batch_size if is_batch_invariant(self.dtype) else 1
        total = settings.steps_for(self.config) * len(todo)
        with tqdm(total=total, desc="generating", unit="step", disable=None, leave=False) as progress:
            while todo:
                batch, latents, rhythm = self._denoise_what_fits(_next_batch(todo, batch_size), settings, progress)
                with self._on_device(self.model.pretransform):
                    for work, latent, predicted in zip(batch, latents, rhythm, strict=True):
                        tracks[work.clip].add(work.number, self._decode(latent, work.name, decode_chunk))
                        rhythms[work.clip].add(work.number, predicted)
                todo = [work for work in todo if work not in batch]
        return [
            Composition(track.finish(), rhythm.rhythm, rhythm.windows, plan)
            for track, rhythm, plan in zip(tracks, rhythms, plans, strict=True)
        ]

    def _denoise_what_fits(
        self, batch: list[_Work], settings: SamplingSettings, progress: tqdm
    ) -> tuple[list[_Work], Tensor, np.ndarray]:
        """`_denoise` for as many windows of the batch as the device's memory holds."""
        while True:
            batch, steps_before = batch[: self._most_windows], progress.n
            with contextlib.suppress(torch.OutOfMemoryError):  # ends before the next try, so the tensors are freed
                return batch, *self._denoise(batch, settings, progress)
            progress.n = steps_before
            if len(batch) > 1:
                self._most_windows = len(batch) // 2
                log.warning("out of memory: at most %d windows are denoised together", self._most_windows)
                self._free_cache()
            elif not self.offload:
                self._start_offloading()
            else:
                raise InputError(
                    f"{batch[0].name}: out of memory with one window, although the model is offloaded; use --dtype "
                    "bf16 or another --device"
                )

    def _denoise(self, batch: list[_Work], settings: SamplingSettings, progress: tqdm) -> tuple[Tensor, np.ndarray]:
        """B windows → latents (B, 64, N) and predicted rhythm (B, S).

        Only the network runs in lower precision; conditioner and sampler are float32. Everything independent of x and
        t is computed once, before the first step.
        """
        rate = self.config.model.conditioning.rows_per_second
        inputs = feature_batch(
            [w.features for w in batch],
            [w.name for w in batch],
            [w.class_label for w in batch],
            rows_per_second=rate,
            grids=[w.grid for w in batch],
        )
        noise = torch.stack([work.noise for work in batch]).to(self.device)
        network, objective, (low, high) = self.model.model, self.model.objective, settings.guidance_interval
        discontinuities = [] if network.fusion_switch_t is None else [network.fusion_switch_t]
        if settings.guidance_scale != 1 and low < high:
            discontinuities += [low, high]
        try:
            with self._on_device(self.model.conditioner):
                conditions = self.model.condition(inputs.to(self.device))
            with self._on_device(network):
                cache = network.precompute(conditions, noise.shape[-1])

                def denoise(x: Tensor, t: Tensor) -> Tensor:
                    scale = settings.guidance_scale if low < t[0] <= high else 1.0
                    return network.denoise(x, t, cache, guidance_scale=scale)

                latents = SAMPLERS[settings.sampler](
                    objective.as_v(denoise),
                    noise,
                    settings.steps_for(self.config),
                    callback=lambda *_: progress.update(len(batch)),
                    discontinuities=[objective.v_time(t) for t in discontinuities],
                )
        except RuntimeError as error:
            if not (self.compiled and isinstance(error, torch._dynamo.exc.BackendCompilerFailed)):
                raise
            reason = str(error.inner_exception).strip().partition("\n")[0]
            raise InputError(f"--compile: torch cannot compile the network ({reason}); omit --compile") from None
        rhythm = conditions.predicted_rhythm.float().mean(dim=2)  # (B, S · rows a second)
        return latents, rhythm.unflatten(1, (-1, rate)).amax(dim=2).cpu().numpy()

    def _decode(self, latent: Tensor, name: str, chunk: float | None) -> Piece:
        """(64, N) → audio or notes. Windows are decoded one at a time, so memory does not grow with the batch."""
        length = latent.shape[-1] / self.config.latent_rate
        while True:
            seconds = min(chunk or length, length, self._longest_chunk)
            frames = self.config.frames_of(seconds) if seconds < length else None
            try:
                with contextlib.suppress(torch.OutOfMemoryError):
                    return self.model.decode_piece(latent, frames)
            except FloatingPointError:
                raise InputError(
                    f"{name}: the model produced NaN (precision {self.dtype}); try --dtype float32 and check the "
                    "checkpoint"
                ) from None
            if seconds > SHORTEST_CHUNK:
                self._longest_chunk = min(FIRST_CHUNK, max(SHORTEST_CHUNK, seconds / 2))
                log.warning("out of memory: at most %g s are decoded at a time", self._longest_chunk)
                self._free_cache()
            elif not self.offload:
                self._start_offloading(at_work=self.model.pretransform)
            else:
                raise InputError(f"{name}: out of memory while decoding {seconds:g} s; use another --device")

    def _start_offloading(self, at_work: nn.Module | None = None) -> None:
        log.warning("out of memory: each part of the model is on the device only while it works, as with --offload")
        self.offload = True
        for part in (self.model.conditioner, self.model.model, self.model.pretransform):
            if part is not at_work:
                part.to("cpu")
        self._encoder = None  # the next extraction loads it on the CPU
        self._free_cache()

    def _free_cache(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextlib.contextmanager
    def _on_device(self, part: nn.Module) -> Iterator[None]:
        """With `offload`, a part of the model is on the device inside this block only."""
        try:
            if self.offload:
                part.to(self.device)
            yield
        finally:
            if self.offload:
                part.to("cpu")

    def _plan(self, shown: VideoFeatures, seed: int) -> Plan | None:
        return plan_of(shown, seed) if self.config.model.diffusion.uses_grid else None

    def _grid(self, plan: Plan | None, window: Window) -> Tensor | None:
        """(N, 17): the beat grid at each latent frame of a window."""
        if plan is None:
            return None
        frames, rate = self._frames(window), self.config.latent_rate
        return torch.from_numpy(grid_rows(plan.grid, plan.key, frames=frames, rate=rate, start=window.start))

    def _track(self, duration: float, windows: Sequence[Window]) -> Track:
        return self.model.pretransform.track(duration, windows, self.config.sample_rate)

    def _seconds(self, window: Window) -> int:
        """Seconds of features for a window, without the seconds that SLACK adds."""
        return max(1, min(math.ceil(window.duration), int(self.config.window_seconds)))

    def _frames(self, window: Window) -> int:
        """Latent frames of a window: those of a full window, as in training, plus what SLACK adds."""
        samples = math.ceil(window.duration * self.config.sample_rate)
        return self.config.latent_length(max(samples, self.config.sample_size))


@dataclass(frozen=True, eq=False)
class _Work:
    """One window of one clip, with everything that decides its music."""

    clip: int
    number: int  # of the window in the clip
    name: str
    class_label: int
    features: VideoFeatures
    noise: Tensor  # (64, N)
    grid: Tensor | None = None  # (N, 17): rows of the beat grid


def _next_batch(todo: list[_Work], size: int) -> list[_Work]:
    """The first windows of the shortest length: padding would change the music of the shorter ones."""
    shortest = min(work.noise.shape[1] for work in todo)
    return [work for work in todo if work.noise.shape[1] == shortest][:size]


def draw_noise(seed: int, name: str, variation: int, window: int, shape: tuple[int, ...]) -> Tensor:
    """Noise of one window, drawn on the CPU from a derived seed: equal on any device, in any batch and order.

    As released, one generator served the whole run. Skipping a clip then changed all later clips.
    """
    generator = torch.Generator().manual_seed(noise_seed(seed, name, variation, window))
    return torch.randn(shape, generator=generator)


def pick_device(name: str = "auto") -> str:
    """auto → the fastest device available; other names are checked. Raises InputError."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(name.split(":")[0], False):
        raise InputError(f"--device {name}: not available here; use --device auto or cpu")
    return name
