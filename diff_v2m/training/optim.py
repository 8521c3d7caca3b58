"""Optimiser and learning-rate schedule of the model JSON's `optimizer_configs`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from diff_v2m.config import CosineLRConfig, InverseLRConfig, OptimizerConfig

FUSED = ("cuda", "cpu", "mps")  # device types with a fused AdamW kernel


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig, total_steps: int) -> dict:
    """What `configure_optimizers` returns: AdamW, fused if the device supports it, and its schedule, if any."""
    settings, parameters = config.optimizer.config, list(parameters)
    optimizer = torch.optim.AdamW(
        parameters,
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=all(parameter.device.type in FUSED for parameter in parameters),
    )
    if config.scheduler is None:
        return {"optimizer": optimizer}
    factor = FACTORS[config.scheduler.type](config.scheduler.config, total_steps)
    floor = config.scheduler.config.final_lr / settings.lr if settings.lr else 0.0
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(factor(step), floor))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def inverse_lr(config: InverseLRConfig, total_steps: int) -> Callable[[int], float]:
    """(1 − warmup^(k+1)) / (1 + k / inv_gamma)^power, as released; stable-audio-tools' class fails on current torch."""
    return lambda step: (1 - config.warmup ** (step + 1)) * (1 + step / config.inv_gamma) ** -config.power


def cosine_lr(config: CosineLRConfig, total_steps: int) -> Callable[[int], float]:
    """Linear warm-up, then half a cosine to zero at `total_steps` (default: the run's length)."""
    end = config.total_steps or total_steps

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        progress = (step - config.warmup_steps) / max(end - config.warmup_steps, 1)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    return factor


FACTORS: dict[str, Callable[..., Callable[[int], float]]] = {"InverseLR": inverse_lr, "CosineLR": cosine_lr}
