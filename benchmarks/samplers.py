"""Samplers and time grids that the benchmark compares with the product's two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from diff_v2m.model.diffusion import (
    SAMPLERS,
    Callback,
    Denoise,
    Spacing,
    alphas_sigmas,
    exponential_spacing,
    grid_with_discontinuities,
    interpolation_weights,
    log_snr_means,
    log_snr_weights,
    multistep_coefficients,
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
    """DPM-Solver++ 3M with the corrector of UniPC (Zhao et al., arXiv 2302.04867), without further evaluations.

    The prediction at the end of a step is known when the next one begins. The step is then taken again, with a
    polynomial through that prediction and the two before it.
    """
    grid = grid_with_discontinuities(spacing, steps, discontinuities)
    coefficients = multistep_coefficients(grid, 3, log_snr_weights, discontinuities)
    places = torch.tensor(discontinuities, dtype=torch.float32).tolist()
    alphas, sigmas = (values.tolist() for values in alphas_sigmas(grid))
    ratios = [-math.log(math.tan(t * math.pi / 2)) for t in grid[1:-1].tolist()]
    log_snr = [-math.inf, *ratios, math.inf]
    x, before, latest = noise, noise, []  # x, x at the beginning of the last step, denoised predictions
    for i in range(steps):
        denoised = alphas[i] * x - sigmas[i] * denoise(x, grid[i].expand(len(x)))
        crossed = any(grid[i] <= place < grid[i - 1] for place in places)
        known = min(2, len(coefficients[i - 1][1])) if i > 1 and not crossed else 0
        if known:
            nodes = [log_snr[j] - log_snr[i - 1] for j in range(i, i - 1 - known, -1) if j]
            weights = interpolation_weights(nodes, log_snr_means(nodes[0]))
            keep = coefficients[i - 1][0]
            mean = sum(weight * d for weight, d in zip(weights, [denoised, *latest], strict=False))
            x = keep * before + (alphas[i] - alphas[i - 1] * keep) * mean
        latest, before = [denoised, *latest[:2]], x
        keep, weights = coefficients[i]
        x = keep * x + sum(weight * predicted for weight, predicted in zip(weights, latest, strict=False))
        if callback is not None:
            callback(i, grid[i], x, denoised)
    return x


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
    """Exponential between the ratios 60 and 0.03, for fewer steps than the product's takes."""
    return spacing_of_ratios(torch.linspace(math.log(60), math.log(0.03), steps - 1, dtype=torch.float64).exp())


SPACINGS = {
    "uniform": uniform_spacing,
    "eased": mean_spacing,
    "cosine": cosine_spacing,
    "karras": karras_spacing,
    "exponential": exponential_spacing,
    "short": short_spacing,
}
BEST_SPACING = {"dpmpp-2m": "exponential", "dpmpp-3m": "exponential", "ab2": "eased", "unipc": "short"}
MULTISTEP = {
    "dpmpp-2m": partial(sample_multistep, order=2),
    "dpmpp-3m": SAMPLERS["dpmpp-3m"],
    "ab2": partial(sample_multistep, order=2, rule=angle_weights, spacing=mean_spacing),
    "unipc": partial(sample_unipc, spacing=short_spacing),
}
