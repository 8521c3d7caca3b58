"""Sampling on one canvas: the latents of all clips of a batch side by side in time, denoised in windows.

At each step every window predicts v for its part of the same x, and the predictions are blended with weights that add
up to one (Bar-Tal et al., MultiDiffusion, arXiv 2302.08113). x is the same for all windows, so blending v is blending
the denoised prediction. A sampler sees one denoiser and one x. A clip that fits one window is a canvas of one window.

Shape legend: B windows of a batch, C latent channels, n frames of a window, N frames of the canvas.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from diff_v2m.common.errors import InputError
from diff_v2m.common.progress import stage
from diff_v2m.common.seeding import noise_seed
from diff_v2m.config import MAX_SECONDS, ModelConfig
from diff_v2m.cues.sheet import CueSheet
from diff_v2m.data.collate import feature_batch
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.generation.memory import Memory
from diff_v2m.generation.settings import SamplingSettings
from diff_v2m.generation.step_log import StepLog
from diff_v2m.generation.windows import Layout, join_rhythm
from diff_v2m.model.conditioners import Conditions
from diff_v2m.model.diffusion import SAMPLERS, Denoise, alphas_sigmas
from diff_v2m.model.dit import ConditioningCache, LatentDiffusion
from diff_v2m.score.planner import Plan
from diff_v2m.score.score import grid_rows

KEPT_BATCHES = 8  # of windows whose conditioning caches are kept; of further ones they are computed at each step


@dataclass(frozen=True, eq=False)
class Kept:
    """Latents of an earlier result that stay."""

    latents: Tensor  # (C, N) float32
    share: Tensor  # (N,) float32: 1 where the music is composed again, 0 where the latents stay, soft between


@dataclass(frozen=True, eq=False)
class Part:
    """One clip on the canvas, with everything that decides its music."""

    name: str
    class_label: int
    features: VideoFeatures
    layout: Layout
    noise: Tensor  # (C, N of the clip)
    plan: Plan | None = None  # beat grid and key of the whole clip
    kept: Kept | None = None
    log: StepLog | None = None
    sheet: CueSheet = field(default_factory=CueSheet)  # `features` follow it already
    dynamics: np.ndarray | None = None  # (S,) drawn rhythm less the predicted one; None: the sheet has no rhythm
    fixed: tuple[float, ...] = ()  # seconds that no hit may move, as kept music joins there


@dataclass(frozen=True, eq=False)
class _Slot:
    """One window on the canvas."""

    part: Part
    number: int  # of the window in the clip
    start: int  # first frame on the canvas
    weight: Tensor  # (n,)

    @property
    def seconds(self) -> int:
        return self.part.layout.seconds[self.number]

    @property
    def is_kept(self) -> bool:
        """Whether all its latents are those of an earlier result."""
        first, kept = self.part.layout.starts[self.number], self.part.kept
        return kept is not None and not kept.share[first : first + self.part.layout.frames].any()


def sample(
    model: LatentDiffusion,
    config: ModelConfig,
    memory: Memory,
    parts: Sequence[Part],
    settings: SamplingSettings,
    *,
    batch_size: int,
) -> list[tuple[Tensor, np.ndarray]]:
    """For each clip its latents (C, N) and predicted rhythm (S,), one value a second.

    settings: resolved for this model. batch_size: windows denoised together, fewer if the device's memory does not
    hold them. Only the network runs in lower precision; conditioner and sampler are float32. Raises InputError if a
    single window does not fit.
    """
    slots, offset = [], 0
    for part in parts:
        weights = torch.from_numpy(part.layout.weights()).to(memory.device)
        slots += [_Slot(part, i, offset + start, weights[i]) for i, start in enumerate(part.layout.starts)]
        offset += part.layout.total
    total = settings.steps * sum(not slot.is_kept for slot in slots)
    with stage(f"composing {', '.join(part.name for part in parts)}: {total} steps", total, "step") as progress:
        while True:
            size = min(batch_size, memory.most_windows or batch_size)
            batches = list(_batches((slot for slot in slots if not slot.is_kept), size))
            idle = list(_batches((slot for slot in slots if slot.is_kept), size))
            with contextlib.suppress(torch.OutOfMemoryError):  # ends before the next try, so the tensors are freed
                return _sample(model, config, memory, parts, batches, idle, settings, progress)
            progress.reset()
            largest = max(batches, key=len)
            memory.fewer_windows(len(largest), largest[0].part.name)


def predict_rhythm(model: LatentDiffusion, config: ModelConfig, memory: Memory, part: Part) -> np.ndarray:
    """(S,) float32: the rhythm that a clip's music would follow, without composing it."""
    weights = torch.from_numpy(part.layout.weights())
    slots = [_Slot(part, number, start, weights[number]) for number, start in enumerate(part.layout.starts)]
    with memory.on_device(model.conditioner):
        conditions = [_condition(model, config, [slot], memory.device) for slot in slots]
    curves = _rhythms([[slot] for slot in slots], conditions, config)
    return _joined(part, curves)


def _batches(slots: Iterable[_Slot], size: int) -> Iterator[list[_Slot]]:
    """Windows of the same length together, the shortest first: padding would change the music of the shorter ones."""

    def length(slot: _Slot) -> tuple[int, int]:
        return slot.part.layout.frames, max(slot.seconds, MAX_SECONDS)

    for _, group in groupby(sorted(slots, key=length), key=length):
        alike = list(group)
        yield from (alike[first : first + size] for first in range(0, len(alike), size))


def _sample(
    model: LatentDiffusion,
    config: ModelConfig,
    memory: Memory,
    parts: Sequence[Part],
    batches: list[list[_Slot]],
    idle: list[list[_Slot]],
    settings: SamplingSettings,
    progress: tqdm,
) -> list[tuple[Tensor, np.ndarray]]:
    if settings.sampler not in SAMPLERS:
        raise InputError(f"sampler {settings.sampler!r}: expected one of {', '.join(SAMPLERS)}")
    with memory.on_device(model.conditioner):
        conditions = [_condition(model, config, batch, memory.device) for batch in batches]
        rhythms = _rhythms(batches, conditions, config)
        for batch in idle:
            rhythms |= _rhythms([batch], [_condition(model, config, batch, memory.device)], config)
    noise = torch.cat([part.noise for part in parts], dim=-1)[None].to(memory.device)  # (1, C, N)
    network, objective, (low, high) = model.model, model.objective, settings.guidance_interval
    discontinuities = [] if network.fusion_switch_t is None else [network.fusion_switch_t]
    if settings.guidance_scale != 1 and low < high:
        discontinuities += [low, high]
    windows = sum(map(len, batches))
    with memory.on_device(network):
        denoise = objective.as_v(_CanvasDenoiser(model, batches, conditions, settings))
        latents = SAMPLERS[settings.sampler](
            _logged(_clamped(denoise, parts, memory.device), parts),
            noise,
            settings.steps,
            callback=lambda *_: progress.update(windows),
            discontinuities=[objective.v_time(t) for t in discontinuities],
        )
    results = []
    for part, own in zip(parts, latents[0].split([part.layout.total for part in parts], dim=-1), strict=True):
        results.append((own, _joined(part, rhythms)))
    return results


class _CanvasDenoiser:
    """denoise(x (1, C, N), t (1,)) → what the network predicts, blended from all windows."""

    def __init__(
        self,
        model: LatentDiffusion,
        batches: list[list[_Slot]],
        conditions: list[Conditions],
        settings: SamplingSettings,
    ):
        self.network, self.settings = model.model, settings
        self.batches, self.conditions = batches, conditions
        self.caches = [self._precompute(number) for number in range(min(len(batches), KEPT_BATCHES))]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        low, high = self.settings.guidance_interval
        scale = self.settings.guidance_scale if low < t[0] <= high else 1.0
        blended = torch.zeros_like(x)
        for number, batch in enumerate(self.batches):
            cache = self.caches[number] if number < len(self.caches) else self._precompute(number)
            frames = batch[0].part.layout.frames
            own = torch.cat([x[..., slot.start : slot.start + frames] for slot in batch])  # (B, C, n)
            predicted = self.network.denoise(own, t.expand(len(batch)), cache, guidance_scale=scale)
            for slot, prediction in zip(batch, predicted, strict=True):
                blended[0, :, slot.start : slot.start + frames] += slot.weight * prediction
        return blended

    def _precompute(self, number: int) -> ConditioningCache:
        """Everything independent of x and t, for one batch."""
        frames, scale = self.batches[number][0].part.layout.frames, self.settings.guidance_scale
        return self.network.precompute(self.conditions[number], frames, scale)


def _clamped(denoise: Denoise, parts: Sequence[Part], device: torch.device) -> Denoise:
    """Where latents are kept, they are the denoised prediction D, so that every sampler ends with them.

    v = (α x − D) / σ.
    """
    if not any(part.kept for part in parts):
        return denoise
    free = [torch.ones(part.layout.total) if part.kept is None else part.kept.share for part in parts]
    share = torch.cat(free).to(device)  # (N,)
    held = [torch.zeros_like(part.noise) if part.kept is None else part.kept.latents for part in parts]
    latents = torch.cat(held, dim=-1)[None].to(device)  # (1, C, N)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (float(value) for value in alphas_sigmas(t[0].double()))
        v = denoise(x, t)
        denoised = torch.lerp(latents, alpha * x - sigma * v, share)
        return torch.where(share == 1, v, (alpha * x - denoised) / sigma)

    return predict


def _logged(denoise: Denoise, parts: Sequence[Part]) -> Denoise:
    """The predictions of the clips' step logs, where they hold them; others are computed and written there."""
    if not any(part.log for part in parts):
        return denoise
    step = -1

    def predict(x: Tensor, t: Tensor) -> Tensor:
        nonlocal step
        step += 1
        shapes = [part.noise.shape for part in parts]
        known = [part.log and part.log.read(step, shape) for part, shape in zip(parts, shapes, strict=True)]
        if all(values is not None for values in known):
            return torch.cat(known, dim=-1)[None].to(x)
        v = denoise(x, t)
        for part, values, own in zip(parts, known, v[0].split([s[-1] for s in shapes], dim=-1), strict=True):
            if values is not None:
                own.copy_(values)
            elif part.log is not None:
                part.log.append(step, own)
        return v

    return predict


def _condition(model: LatentDiffusion, config: ModelConfig, batch: list[_Slot], device: torch.device) -> Conditions:
    starts = [slot.part.layout.windows[slot.number].start for slot in batch]
    inputs = feature_batch(
        [slot.part.features.slice(start, start + slot.seconds) for slot, start in zip(batch, starts, strict=True)],
        [slot.part.name for slot in batch],
        [slot.part.class_label for slot in batch],
        rows_per_second=config.model.conditioning.rows_per_second,
        grids=[_grid(slot, config) for slot in batch],
    )
    return model.condition(inputs.to(device))


def _grid(slot: _Slot, config: ModelConfig) -> Tensor | None:
    """(n, 13): the beat grid at each latent frame of a window."""
    if slot.part.plan is None:
        return None
    layout, rate = slot.part.layout, config.latent_rate
    grid, key, start = slot.part.plan.grid, slot.part.plan.key, layout.starts[slot.number] / rate
    return torch.from_numpy(grid_rows(grid, key, frames=layout.frames, rate=rate, start=start))


def _rhythms(
    batches: list[list[_Slot]], conditions: list[Conditions], config: ModelConfig
) -> dict[tuple[Part, int], np.ndarray]:
    """(clip, window) → predicted rhythm (S,), the largest of each second."""
    rate, found = config.model.conditioning.rows_per_second, {}
    for batch, condition in zip(batches, conditions, strict=True):
        rhythm = condition.predicted_rhythm.float().mean(dim=2).unflatten(1, (-1, rate)).amax(dim=2).cpu().numpy()
        found |= {(slot.part, slot.number): row[: slot.seconds] for slot, row in zip(batch, rhythm, strict=True)}
    return found


def _joined(part: Part, rhythms: dict[tuple[Part, int], np.ndarray]) -> np.ndarray:
    curves = [rhythms[part, number] for number in range(len(part.layout.windows))]
    return join_rhythm(part.layout.windows, curves, len(part.features))


def draw_noise(seed: int, name: str, variation: int, window: int, shape: tuple[int, ...]) -> Tensor:
    """Noise of one window's length, drawn on the CPU from a derived seed: equal on any device, in any batch and order.

    As released, one generator served the whole run. Skipping a clip then changed all later clips.
    """
    generator = torch.Generator().manual_seed(noise_seed(seed, name, variation, window))
    return torch.randn(shape, generator=generator)


def canvas_noise(seed: int, name: str, variation: int, layout: Layout, channels: int) -> Tensor:
    """(channels, N) of a clip, in blocks of a window's length, so that a longer video begins with the same noise."""
    blocks = range(-(-layout.total // layout.frames))
    noise = [draw_noise(seed, name, variation, block, (channels, layout.frames)) for block in blocks]
    return torch.cat(noise, dim=-1)[:, : layout.total]
