"""Samplers and time grids that the benchmark compares with the product's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from diff_v2m.model.diffusion import (
    SAMPLERS,
    SHORT_STEP,
    Callback,
    Denoise,
    Spacing,
    crossed,
    exponential_spacing,
    grid_with_discontinuities,
    interpolation_weights,
    log_snr,
    log_snr_means,
    log_snr_weights,
    middle_spacing,
    multistep_coefficients,
    sample_multistep,
    spacing_of_ratios,
    time_grid,
)


@torch.no_grad()
def sample_unipc(
    denoise: Denoise,
    noise: Tensor,
    steps: int,
    callback: Callback | None = None,
    discontinuities: Sequence[float] = (),
    *,
    spacing: Spacing = exponential_spacing,
) -> Tensor:
    """UniPC of order 3 (Zhao et al., arXiv 2302.04867): DPM-Solver++ 3M whose step is taken again through the denoised
    prediction at its end, without a further evaluation.

    No step is taken again that started at t = 1 or led to a discontinuity.
    """
    grid = grid_with_discontinuities(spacing, steps, discontinuities, after=SHORT_STEP)
    times: list[float] = grid.tolist()
    restarts = crossed(times, discontinuities)
    coefficients = multistep_coefficients(grid, 3, log_snr_weights, discontinuities)
    before, x, latest = noise, noise, []
    for i, (t, _) in enumerate(pairwise(times)):
        v = denoise(x, grid[i].expand(len(x)))
        denoised = math.cos(t * math.pi / 2) * x - math.sin(t * math.pi / 2) * v
        latest = [denoised, *latest[:2]]
        if i > 1 and not restarts[i]:
            keep, weights = coefficients[i - 1]
            gain = math.cos(t * math.pi / 2) - math.cos(times[i - 1] * math.pi / 2) * keep
            nodes = [log_snr(time) - log_snr(times[i - 1]) for time in times[max(1, i - len(weights), i - 2) : i + 1]]
            again = interpolation_weights(nodes[::-1], log_snr_means(nodes[-1]))
            x = keep * before + gain * sum(w * value for w, value in zip(again, latest, strict=False))
        keep, weights = coefficients[i]
        before, x = x, keep * x + sum(w * value for w, value in zip(weights, latest, strict=False))
        if callback is not None:
            callback(i, grid[i], x, denoised)
    return x


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


SPACINGS = {
    "uniform": uniform_spacing,
    "eased": mean_spacing,
    "cosine": cosine_spacing,
    "karras": karras_spacing,
    "exponential": exponential_spacing,
    "middle": middle_spacing,
}
BEST_SPACINGS = {
    "dpmpp-2m": ("exponential",),
    "dpmpp-3m": ("exponential",),
    "ab2": ("eased",),
    "unipc": ("exponential",),
    "adams": ("middle",),
}
MULTISTEP = {
    "dpmpp-2m": partial(sample_multistep, order=2),
    "dpmpp-3m": SAMPLERS["dpmpp-3m"],
    "ab2": partial(sample_multistep, order=2, rule=angle_weights, spacing=mean_spacing),
    "unipc": sample_unipc,
    "adams": SAMPLERS["adams"],
}
