"""Objectives and samplers: pure functions over `denoise(x, t)`, knowing no network.

Time t runs from 1 (pure noise) to 0 (clean latents); x_t = α z + σ ε with α = cos(tπ/2), σ = sin(tπ/2); the network
predicts v = α ε − σ z. A network with another objective is put into these terms by its `Objective`: the samplers know
no other. Shapes: t (B,), everything else (B, channels, N).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_t, t (B,) on the CPU) -> v
Callback = Callable[[int, Tensor, Tensor, Tensor], None]  # (step, t (), x_t after the step, denoised)
Rule = Callable[[list[float], float], list[float]]  # (times of predictions, latest first; end) -> share of each
Spacing = Callable[[int], Tensor]

AFTER_JUMP = 0.2  # of a step, see `grid_with_jumps`


def alphas_sigmas(t: Tensor) -> tuple[Tensor, Tensor]:
    """Share of signal and of noise at time t: α² + σ² = 1."""
    return torch.cos(t * math.pi / 2), torch.sin(t * math.pi / 2)


def add_noise(latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = α z + σ ε, with t (B,)."""
    alpha, sigma = alphas_sigmas(t[:, None, None])
    return alpha * latents + sigma * noise


def v_target(latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """v = α ε − σ z, what the network is trained to predict from x_t."""
    alpha, sigma = alphas_sigmas(t[:, None, None])
    return alpha * noise - sigma * latents


def add_noise_straight(latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 − t) z + t ε."""
    return torch.lerp(latents, noise, t[:, None, None])


def straight_target(latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """u = ε − z, the constant speed on the straight line from latents to noise."""
    return noise - latents


def straight_as_v(denoise: Denoise) -> Denoise:
    """v of a network that predicts u. The straight line through z and ε passes x / (α + σ) at time σ / (α + σ)."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = alphas_sigmas(t.double())
        # rounded, so that a t which the sampler was asked to hit is that very t for the network
        time = (sigma / (alpha + sigma)).round(decimals=6).float()
        share, length = ((values[:, None, None]).to(x, non_blocking=True) for values in (alpha - sigma, alpha + sigma))
        return (share * x + denoise(x / length, time)) / length

    return predict


@dataclass(frozen=True)
class Objective:
    """What a network is trained to predict, and how samplers use it."""

    add_noise: Callable[[Tensor, Tensor, Tensor], Tensor]  # (latents, noise, t) -> x_t
    target: Callable[[Tensor, Tensor, Tensor], Tensor]  # (latents, noise, t) -> what is to be predicted from x_t
    as_v: Callable[[Denoise], Denoise]
    v_time: Callable[[float], float]  # the samplers' time at which the network is asked about this t of its own


OBJECTIVES = {
    "v": Objective(add_noise, v_target, as_v=lambda denoise: denoise, v_time=lambda t: t),
    # Liu et al., arXiv 2209.03003, with stable-audio-tools' signs
    "rectified_flow": Objective(
        add_noise_straight, straight_target, straight_as_v, v_time=lambda t: math.atan2(t, 1 - t) / (math.pi / 2)
    ),
}


def time_grid(steps: int) -> Tensor:
    """(steps,) float32 on the CPU, from 1 down to 1/steps, as released.

    Many step counts put a point on t = 0.2, where the hard fusions change branch: in float32 on the CPU that point is
    never above 0.2 and so takes the rhythm branch. A float64 grid, or one made on a GPU, may flip it.
    """
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, got {steps}")
    return torch.linspace(1, 0, steps + 1, dtype=torch.float32)[:-1]


@torch.no_grad()
def sample_ddim(
    denoise: Denoise,
    noise: Tensor,
    steps: int,
    callback: Callback | None = None,
    jumps: Sequence[float] = (),
) -> Tensor:
    """Deterministic DDIM (η = 0) in the v parametrisation: noise (B, channels, N) → latents of the same shape.

    As released: t from `time_grid`, wherever the jumps are, and the denoised prediction of the last step is returned.
    """
    grid = time_grid(steps)
    alphas, sigmas = (values.tolist() for values in alphas_sigmas(grid))
    x = denoised = noise
    for i in range(steps):
        v = denoise(x, grid[i].expand(len(x)))
        denoised = alphas[i] * x - sigmas[i] * v
        if i + 1 < steps:
            epsilon = sigmas[i] * x + alphas[i] * v
            x = alphas[i + 1] * denoised + sigmas[i + 1] * epsilon
        if callback is not None:
            callback(i, grid[i], x, denoised)
    return denoised


@torch.no_grad()
def sample_multistep(
    denoise: Denoise,
    noise: Tensor,
    steps: int,
    callback: Callback | None = None,
    jumps: Sequence[float] = (),
    *,
    order: int,
    rule: Rule,
    spacing: Spacing,
) -> Tensor:
    """Exponential multistep solver: like `sample_ddim`, in fewer steps.

    What x comes to in a step is known exactly but for the denoised prediction, which is carried on as a polynomial
    through its latest `order` values; with order 1 this is DDIM. jumps: where the network becomes another one, each t
    belonging to what is below. A step ends there, and nothing predicted before is used after it.
    """
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, got {steps}")
    grid = grid_with_jumps(spacing, steps, jumps)
    coefficients = multistep_coefficients(grid, order, rule, jumps)
    alphas, sigmas = (values.tolist() for values in alphas_sigmas(grid))
    x, latest = noise, []
    for i in range(steps):
        denoised = alphas[i] * x - sigmas[i] * denoise(x, grid[i].expand(len(x)))
        latest = [denoised, *latest[: order - 1]]
        keep, shares = coefficients[i]
        x = keep * x + sum(share * predicted for share, predicted in zip(shares, latest, strict=False))
        if callback is not None:
            callback(i, grid[i], x, denoised)
    return x


def multistep_coefficients(
    grid: Tensor, order: int, rule: Rule, jumps: Sequence[float] = ()
) -> list[tuple[float, list[float]]]:
    """For each step, what remains of x, and how much each of the latest denoised predictions adds, latest first:
    x' = (σ'/σ) x + σ' ∫ D dcot(tπ/2), the integral going from t to t'."""
    jumps = torch.tensor(jumps, dtype=torch.float32).tolist()  # as exact as the grid
    times, coefficients, known = grid.tolist(), [], 0
    for i, (t, end) in enumerate(pairwise(times)):
        jumped = any(t <= jump < times[i - 1] for jump in jumps) if i else False
        known = 1 if jumped else min(known + 1, order)
        keep = math.sin(end * math.pi / 2) / math.sin(t * math.pi / 2)
        gain = math.cos(end * math.pi / 2) - math.cos(t * math.pi / 2) * keep
        shares = rule(times[i - known + 1 : i + 1][::-1], end)
        coefficients.append((keep, [gain * share for share in shares]))
    return coefficients


def by_log_snr(times: list[float], end: float) -> list[float]:
    """DPM-Solver++ (Lu et al., arXiv 2211.01095): a polynomial in λ = log(α / σ).

    λ is infinite at t = 1 and at t = 0: what was predicted at t = 1 is not carried on, and the last step takes the
    last prediction as it is.
    """
    nodes = [-math.log(math.tan(t * math.pi / 2)) for t in times if t < 1]
    if end == 0 or len(nodes) < 2:
        return [1.0]
    h = -math.log(math.tan(end * math.pi / 2)) - nodes[0]
    total = math.expm1(h)
    means = [1.0, ((h - 1) * math.exp(h) + 1) / total, (((h - 2) * h + 2) * math.exp(h) - 2) / total]
    return interpolation_weights([node - nodes[0] for node in nodes], means)


def by_angle(times: list[float], end: float) -> list[float]:
    """A straight line in t through two predictions, in the manner of tAB-DEIS (Zhang & Chen, arXiv 2204.13902).

    Nothing is infinite: the first prediction is used like the others, and the last step goes on to t = 0.
    """
    if len(times) < 2:
        return [1.0]
    first, last = times[0] * math.pi / 2, end * math.pi / 2

    def antiderivative(angle: float) -> float:  # of angle / sin(angle)²
        return math.log(math.sin(angle)) - angle / math.tan(angle)

    mean = 0.0  # of the angle over the step, weighted by what it adds to x; all weight is at t = 0 if it ends there
    if end > 0:
        total = 1 / math.tan(last) - 1 / math.tan(first)
        mean = (antiderivative(first) - antiderivative(last)) / total
    return interpolation_weights([0.0, times[1] * math.pi / 2 - first], [1.0, mean - first])


def interpolation_weights(nodes: list[float], means: list[float]) -> list[float]:
    """w with Σ w_j node_j^k = means_k for k < len(nodes): the mean of every polynomial from its values at the nodes."""
    powers = torch.tensor([[node**k for node in nodes] for k in range(len(nodes))], dtype=torch.float64)
    return torch.linalg.solve(powers, torch.tensor(means[: len(nodes)], dtype=torch.float64)).tolist()


# --- spacings: steps -> (steps + 1,) float32 on the CPU, from 1 down to 0


def uniform(steps: int) -> Tensor:
    return torch.linspace(1, 0, steps + 1, dtype=torch.float32)


def cosine(steps: int) -> Tensor:
    """Closer together towards both ends."""
    return (1 + torch.cos(torch.linspace(0, math.pi, steps + 1, dtype=torch.float64))).div(2).float()


def eased(steps: int) -> Tensor:
    """Half way between even spacing and `cosine`."""
    return (uniform(steps) + cosine(steps)) / 2


def karras(steps: int, *, rho: float = 7.0, highest: float = 80.0, lowest: float = 0.02) -> Tensor:
    """Noise-to-signal ratios whose ρ-th roots are evenly spaced (Karras et al., arXiv 2206.00364), between 1 and 0."""
    ratios = torch.linspace(highest ** (1 / rho), lowest ** (1 / rho), steps - 1, dtype=torch.float64) ** rho
    return _between_ends(ratios)


def exponential(steps: int, *, highest: float = 80.0, lowest: float = 0.02) -> Tensor:
    """Evenly spaced in log signal-to-noise ratio, between 1 and 0."""
    return _between_ends(torch.linspace(math.log(highest), math.log(lowest), steps - 1, dtype=torch.float64).exp())


def _between_ends(ratios: Tensor) -> Tensor:
    return torch.cat([torch.ones(1), (ratios.atan() / (math.pi / 2)).float(), torch.zeros(1)])


def grid_with_jumps(spacing: Spacing, steps: int, jumps: Sequence[float]) -> Tensor:
    """(steps + 1,) from 1 to 0 with a point on every jump, and one soon after it: the step from a jump on is of first
    order, so it is kept short. A few steps have none to spare for that."""
    jumps = sorted({jump for jump in jumps if 0 < jump < 1}, reverse=True)
    short = steps > 4 * len(jumps)
    grid = spacing(steps - len(jumps) if short else steps)
    if len(grid) < 3:  # one step has no inner point
        return grid
    places = [1 + int((grid[1:-1] - jump).abs().argmin()) for jump in jumps]
    grid[places] = torch.tensor(jumps, dtype=torch.float32)
    after = [torch.lerp(grid[place], grid[place + 1], AFTER_JUMP) for place in places] if short else []
    return torch.cat([grid, *(t[None] for t in after)]).sort(descending=True).values


SPACINGS = {"uniform": uniform, "eased": eased, "cosine": cosine, "karras": karras, "exponential": exponential}
SAMPLERS = {  # each with the spacing that serves it best, see docs/performance.md
    "ddim": sample_ddim,
    "dpmpp-2m": partial(sample_multistep, order=2, rule=by_log_snr, spacing=exponential),
    "dpmpp-3m": partial(sample_multistep, order=3, rule=by_log_snr, spacing=exponential),
    "ab2": partial(sample_multistep, order=2, rule=by_angle, spacing=eased),
}
