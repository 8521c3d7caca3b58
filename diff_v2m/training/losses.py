"""Losses of the generator, as functions of latents and conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from diff_v2m.model.conditioners import Conditions
from diff_v2m.model.diffusion import OBJECTIVES, Objective
from diff_v2m.model.dit import GuidedDiT

VALIDATION_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


class Losses(NamedTuple):
    """The loss terms, and the tensors that `mse` compares."""

    total: Tensor
    mse: Tensor
    rhythm: Tensor
    output: Tensor  # (B, latent, N) predicted v, or the objective's other target
    target: Tensor  # (B, latent, N)


def training_losses(
    model: GuidedDiT,
    conditions: Conditions,
    latents: Tensor,
    noise: Tensor,
    t: Tensor,
    objective: Objective = OBJECTIVES["v"],
    **dropout: float,
) -> Losses:
    """The objective at t (B,) plus the rhythm predictor's loss, weight 1 each.

    latents, noise: (B, latent, N). dropout: `condition_dropout` and `joint_dropout` of `GuidedDiT.forward`.
    """
    target = objective.target(latents, noise, t)
    output = model(objective.add_noise(latents, noise, t), t, conditions, **dropout)
    mse = F.mse_loss(output.float(), target.float())
    rhythm = rhythm_loss(conditions)
    return Losses(mse + rhythm, mse, rhythm, output, target)


def rhythm_loss(conditions: Conditions) -> Tensor:
    """Mean squared error of the predicted rhythm over all valid seconds of all clips.

    Corrected: the release indexes with its integer mask, and so trains on the first two clips of a batch only.
    """
    weight = conditions.true_rhythm_mask[..., None].expand_as(conditions.true_rhythm).float()
    error = (conditions.predicted_rhythm.float() - conditions.true_rhythm.float()).square()
    return (error * weight).sum() / weight.sum().clamp(min=1)


def rhythm_correlation(conditions: Conditions) -> Tensor:
    """Pearson's r of predicted and true rhythm per clip, averaged over clips; 0 for a constant rhythm."""
    mask = conditions.true_rhythm_mask[..., None].expand_as(conditions.true_rhythm).float()
    count = mask.sum((1, 2), keepdim=True).clamp(min=1)
    deviations = []
    for rhythm in (conditions.predicted_rhythm.detach().float(), conditions.true_rhythm.float()):
        mean = (rhythm * mask).sum((1, 2), keepdim=True) / count
        deviations.append((rhythm - mean) * mask)
    predicted, true = deviations
    norm = predicted.square().sum((1, 2)).sqrt() * true.square().sum((1, 2)).sqrt()
    return ((predicted * true).sum((1, 2)) / norm.clamp(min=1e-6)).mean()


class LossByTime:
    """Mean squared error in each fifth of the timesteps [0, 1)."""

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(2, len(VALIDATION_TIMES), device=device)  # errors, clips

    def add(self, losses: Losses, t: Tensor) -> None:
        """Add the errors of clips at t (B,), without waiting for the device."""
        errors = (losses.output.detach().float() - losses.target.float()).square().mean((1, 2))
        bins = (t * len(VALIDATION_TIMES)).long().clamp(0, len(VALIDATION_TIMES) - 1)
        self.sums.index_add_(1, bins, torch.stack([errors, torch.ones_like(errors)]))

    def total(self, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        """The sums over all processes; `reduce` sums in place."""
        return reduce(self.sums.clone())

    def take(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Since the last call, over all processes: "train/mse_t0.1" → mean of t in [0, 0.2), and so on."""
        errors, clips = self.total(reduce).tolist()
        self.sums.zero_()
        means = zip(VALIDATION_TIMES, errors, clips, strict=True)
        return {f"train/mse_t{time}": error / count for time, error, count in means if count}
