"""Samplers and time grids that the benchmark compares with the product's two."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from diff_v2m.model.diffusion import (
    SAMPLERS,
    exponential_spacing,
    interpolation_weights,
    sample_multistep,
    spacing_of_ratios,
    time_grid,
)


def angle_weights(times: list[float], end: float) -> list[float]:
    """A line in t through two predictions, after tAB-DEIS (Zhang & Chen, arXiv 2204.13902).

    All values are finite: the prediction at t = 1 is extrapolated like the others, also in the last step to t = 0.
    """
    if len(times) < 2:
        return [1.0]
    first, last = times[0] * math.pi / 2, end * math.pi / 2

    def antiderivative(angle: float) -> float:  # of angle / sin(angle)²
        return math.log(math.sin(angle)) - angle / math.tan(angle)

    mean = 0.0  # mean angle of the step, weighted by what it adds to x; a step to t = 0 has all its weight there
    if end > 0:
        total = 1 / math.tan(last) - 1 / math.tan(first)
        mean = (antiderivative(first) - antiderivative(last)) / total
    return interpolation_weights([0.0, times[1] * math.pi / 2 - first], [1.0, mean - first])


def uniform_spacing(steps: int) -> Tensor:
    """The released grid, with its end at 0."""
    return torch.cat([time_grid(steps), torch.zeros(1)])


def cosine_spacing(steps: int) -> Tensor:
    """Denser towards both ends."""
    return (1 + torch.cos(torch.linspace(0, math.pi, steps + 1, dtype=torch.float64))).div(2).float()


def mean_spacing(steps: int) -> Tensor:
    """The mean of uniform and cosine spacing."""
    return (uniform_spacing(steps) + cosine_spacing(steps)) / 2


def karras_spacing(steps: int, rho: float = 7.0) -> Tensor:
    """ρ-th roots of the noise-to-signal ratios evenly spaced (Karras et al., arXiv 2206.00364), between 1 and 0."""
    ratios = torch.linspace(80.0 ** (1 / rho), 0.02 ** (1 / rho), steps - 1, dtype=torch.float64) ** rho
    return spacing_of_ratios(ratios)


def short_spacing(steps: int) -> Tensor:
    """Exponential between the ratios 75 and 0.08, fitted to the bundled model's teacher with 15 steps.

    Latents of notes need no steps at less noise: the score autoencoder decodes them with noise of 0.3.
    """
    return spacing_of_ratios(torch.linspace(math.log(75), math.log(0.08), steps - 1, dtype=torch.float64).exp())


SPACINGS = {
    "uniform": uniform_spacing,
    "eased": mean_spacing,
    "cosine": cosine_spacing,
    "karras": karras_spacing,
    "exponential": exponential_spacing,
    "short": short_spacing,
}
BEST_SPACINGS = {
    "dpmpp-2m": ("exponential",),
    "dpmpp-3m": ("exponential", "short"),
    "ab2": ("eased",),
    "unipc": ("exponential", "short"),
}
MULTISTEP = {
    "dpmpp-2m": partial(sample_multistep, order=2),
    "dpmpp-3m": SAMPLERS["dpmpp-3m"],
    "ab2": partial(sample_multistep, order=2, rule=angle_weights, spacing=mean_spacing),
    "unipc": SAMPLERS["unipc"],
}
