"""Latents of a clip → its music, in chunks that the device's memory holds."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from diff_v2m.common.errors import InputError
from diff_v2m.config import ModelConfig
from diff_v2m.generation.canvas import Part
from diff_v2m.generation.memory import Memory
from diff_v2m.generation.planning import ending_seconds
from diff_v2m.model.dit import LatentDiffusion
from diff_v2m.model.music import Music


def decode(
    model: LatentDiffusion, config: ModelConfig, memory: Memory, latents: Tensor, part: Part, chunk: float | None
) -> Music:
    """(64, N) → music as long as the clip. Chunks of a window at most, so memory does not grow with the length.

    chunk: seconds decoded at a time; None: a window. Raises InputError for NaN, and if a second does not fit.
    """
    rate, duration = config.latent_rate, part.features.duration
    window = part.layout.frames / rate
    ending = ending_seconds(duration, part.plan) if len(part.layout.windows) > 1 else 0.0
    while True:
        seconds = min(chunk or window, window, memory.longest_chunk)
        frames = config.frames_of(seconds) if seconds < latents.shape[-1] / rate else None
        try:
            with contextlib.suppress(torch.OutOfMemoryError):
                return model.music(
                    latents,
                    duration,
                    config.sample_rate,
                    frames,
                    ending=ending,
                    plan=part.plan,
                    scratch=memory.scratch,
                )
        except FloatingPointError:
            raise InputError(
                f"{part.name}: the model produced NaN; try --dtype float32 and check the checkpoint"
            ) from None
        memory.shorter_chunks(seconds, part.name)
