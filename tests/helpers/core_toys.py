"""A 30 s window at toy width, for tests of the whole network: configs, random weights, random batches."""

from __future__ import annotations

from dataclasses import replace

import torch
from helpers.toys import toy_raw_config

from diff_v2m.config import ModelConfig, parse_model_config
from diff_v2m.data.batch import Batch
from diff_v2m.model.dit import LatentDiffusion

SECONDS = 30
RELEASED = {"color_attention": False, "time_aligned_attention": False, "aligned_input": False, "pre_norm": False}


def toy_config(*, conditioning: dict | None = None, **dit) -> ModelConfig:
    """The corrected config, shrunk, 30 s long, with these keys of the DiT and of the conditioning."""
    raw = toy_raw_config()
    raw["sample_size"] = SECONDS * raw["sample_rate"]
    raw["model"]["conditioning"] |= conditioning or {}
    raw["model"]["diffusion"]["config"] |= dit
    return parse_model_config(raw, "toy")


def toy_model(*, conditioning: dict | None = None, **dit) -> LatentDiffusion:
    """Random weights, none zero, so that every path has an effect."""
    torch.manual_seed(0)
    model = LatentDiffusion(toy_config(conditioning=conditioning, **dit)).eval()
    with torch.no_grad():
        for parameter in [*model.model.parameters(), *model.conditioner.parameters()]:
            if not parameter.any() or parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) / max(parameter[0].numel(), 1) ** 0.5)
    return model


def toy_batch(valid: tuple[int, ...] = (30, 21), seed: int = 0) -> Batch:
    """One clip for each number of valid seconds; clip i is the same whatever its neighbours; padding is zero."""
    clips = []
    for i, rows in enumerate(valid):
        generator = torch.Generator().manual_seed(seed + i)
        mask = torch.arange(SECONDS) < rows
        color = torch.rand(SECONDS, 3072, generator=generator) ** 8
        clips.append(
            {
                "semantic": torch.randn(SECONDS, 512, generator=generator) * mask[:, None],
                "color": color / color.sum(1, keepdim=True) * mask[:, None],
                "scene_cut": torch.randint(0, 2, (SECONDS,), generator=generator) * mask,
                "pseudo_beats": torch.rand(SECONDS, generator=generator) * mask,
                "mask": mask,
                "class_label": torch.tensor(i % 3),
                "seconds_start": torch.tensor(0.0),
                "seconds_total": torch.tensor(float(rows)),
                "rhythm": torch.rand(SECONDS, 1, generator=generator) * mask[:, None],
            }
        )
    names = [f"clip{i}" for i in range(len(valid))]
    return Batch(**{key: torch.stack([clip[key] for clip in clips]) for key in clips[0]}, names=names)


def toy_noise(count: int, frames: int = 469, seed: int = 1) -> torch.Tensor:
    """(count, 64, frames); the noise of clip i is the same whatever the count."""
    generators = [torch.Generator().manual_seed(seed + i) for i in range(count)]
    return torch.stack([torch.randn(64, frames, generator=generator) for generator in generators])


def with_garbage(batch, value: float):
    """The batch with `value` in every padded second of every field."""
    padded = ~batch.mask
    return replace(
        batch,
        semantic=batch.semantic.masked_fill(padded[..., None], value),
        color=batch.color.masked_fill(padded[..., None], value),
        rhythm=batch.rhythm.masked_fill(padded[..., None], value),
        pseudo_beats=batch.pseudo_beats.masked_fill(padded, value),
        scene_cut=batch.scene_cut.masked_fill(padded, 1),
    )
