"""Objectives and samplers: functions of `denoise(x, t)`, independent of the network.

Time t runs from 1 (noise) to 0 (clean latents). x_t = α z + σ ε with α = cos(tπ/2) and σ = sin(tπ/2).
The samplers expect v = α ε − σ z; an `Objective` converts other predictions to v.
Shapes: t (B,), everything else (B, channels, N).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_t, t (B,) on the CPU) -> v
Callback = Callable[[int, Tensor, Tensor, Tensor], None]  # (step, t (), x after the step, denoised)
Rule = Callable[[list[float], float], list[float]]  # (times of predictions, latest first; end) -> weight of each
Coefficients = tuple[float, list[float]]  # of a step: factor of x, weights of the latest denoised predictions
Spacing = Callable[[int], Tensor]  # steps -> (steps + 1,) float32 on the CPU, from 1 down to 0

SHORT_STEP = 0.2  # of a regular one: the step that follows a discontinuity and has order 1
GAUSS = np.polynomial.legendre.leggauss(16)  # nodes and weights of the integral over a step
UNCORRECTED_STEP = 0.5  # of a regular one: the step that ends at a discontinuity and is not taken again
USUAL_STEPS = 30  # with more, the first and last steps are shortened too
CLOSEST = 1e-4  # discontinuities closer than this count as one
LONGEST_STEP = {2: 8.0, 3: 2.0}  # by order, in distances between the first and last prediction that it extrapolates


def alphas_sigmas(t: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise scales at time t; α² + σ² = 1."""
    return torch.cos(t * math.pi / 2), torch.sin(t * math.pi / 2)


def add_noise(latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = α z + σ ε, with t (B,)."""
    alpha, sigma = alphas_sigmas(t[:, None, None])
    return alpha * latents + sigma * noise


def v_target(latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """v = α ε − σ z, the training target at x_t."""
    alpha, sigma = alphas_sigmas(t[:, None, None])
    return alpha * noise - sigma * latents


def add_noise_linear(latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 − t) z + t ε."""
    return torch.lerp(latents, noise, t[:, None, None])


def velocity_target(latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """u = ε − z, the constant velocity from latents to noise."""
    return noise - latents


def velocity_as_v(denoise: Denoise) -> Denoise:
    """Convert a network that predicts u: x / (α + σ) lies on the line from z to ε at time σ / (α + σ)."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = alphas_sigmas(t.double())
        # rounded, so that the network receives exactly the t of a discontinuity that the sampler steps on
        time = (sigma / (alpha + sigma)).round(decimals=6).float()
        share, length = ((values[:, None, None]).to(x, non_blocking=True) for values in (alpha - sigma, alpha + sigma))
        return (share * x + denoise(x / length, time)) / length

    return predict


@dataclass(frozen=True)
class Objective:
    """Training target of a network, and its conversion to v."""

    prediction: str  # its name in the manifest
    add_noise: Callable[[Tensor, Tensor, Tensor], Tensor]  # (latents, noise, t) -> x_t
    target: Callable[[Tensor, Tensor, Tensor], Tensor]  # (latents, noise, t) -> the target at x_t
    as_v: Callable[[Denoise], Denoise]
    v_time: Callable[[float], float]  # the network's t -> the samplers' t


OBJECTIVES = {
    "v": Objective("v-prediction", add_noise, v_target, as_v=lambda denoise: denoise, v_time=lambda t: t),
    # Liu et al., arXiv 2209.03003, with stable-audio-tools' signs
    "rectified_flow": Objective(
        "rectified flow",
        add_noise_linear,
        velocity_target,
        velocity_as_v,
        v_time=lambda t: math.atan2(t, 1 - t) / (math.pi / 2),
    ),
}


def time_grid(steps: int) -> Tensor:
    """(steps,) float32 on the CPU, from 1 down to 1/steps, as released.

    Many step counts put a point on t = 0.2, where hard fusion switches. In float32 on the CPU that point is never above
    0.2, so it takes the rhythm branch; float64 or a GPU may round it up.
    """
    _check_steps(steps)
    return torch.linspace(1, 0, steps + 1, dtype=torch.float32)[:-1]


@torch.no_grad()
def sample_ddim(
    denoise: Denoise,
    noise: Tensor,
    steps: int,
    callback: Callback | None = None,
    discontinuities: Sequence[float] = (),
) -> Tensor:
    """Deterministic DDIM (η = 0) on v: noise (B, channels, N) → latents of the same shape.

    As released: t from `time_grid`, which ignores discontinuities, and the denoised prediction of the last step is
    returned.
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


def ddim_step(x: Tensor, v: Tensor, t: Tensor, end: Tensor) -> Tensor:
    """x at `end` (B,) of x and v at t (B,), if the denoised prediction stays."""
    angle = ((t - end) * (math.pi / 2))[:, None, None]
    return angle.cos() * x - angle.sin() * v


def velocity_between(x: Tensor, x_end: Tensor, t: Tensor, end: Tensor) -> Tensor:
    """The v (B, channels, N) with which `ddim_step` leads from x at t (B,) to x_end at `end` (B,)."""
    angle = ((t - end) * (math.pi / 2))[:, None, None]
    return (angle.cos() * x - x_end) / angle.sin()


def midpoint_step(denoise: Denoise, x: Tensor, t: Tensor, end: Tensor) -> Tensor:
    """x at `end` (B,), of order 2 in two evaluations: the denoised prediction is that in the middle of the step."""
    middle = (t + end) / 2
    at_middle = ddim_step(x, denoise(x, t), t, middle)
    alpha, sigma = alphas_sigmas(middle[:, None, None])
    denoised = alpha * at_middle - sigma * denoise(at_middle, middle)
    (alpha, sigma), (alpha_end, sigma_end) = alphas_sigmas(t[:, None, None]), alphas_sigmas(end[:, None, None])
    keep = sigma_end / sigma
    return keep * x + (alpha_end - alpha * keep) * denoised


def log_snr_weights(times: list[float], end: float) -> list[float]:
    """DPM-Solver++ (Lu et al., arXiv 2211.01095): a polynomial in λ = log(α / σ).

    λ is infinite at t = 1 and t = 0: the prediction at t = 1 is not extrapolated, and the last step uses the latest
    prediction alone. A step much longer than those before it has a lower order: it ends at a discontinuity near t = 0.
    """
    nodes = [log_snr(t) for t in times if t < 1]
    if end == 0 or len(nodes) < 2:
        return [1.0]
    h = log_snr(end) - nodes[0]
    while len(nodes) > 1 and h > LONGEST_STEP[len(nodes)] * (nodes[0] - nodes[-1]):
        nodes.pop()
    return interpolation_weights([node - nodes[0] for node in nodes], log_snr_means(h))


def log_snr_means(h: float) -> list[float]:
    """Means of 1, s and s² over a step of length h in λ, s from its start, weighted by what D adds to x there: e^s."""
    total = math.expm1(h)
    return [1.0, ((h - 1) * math.exp(h) + 1) / total, (((h - 2) * h + 2) * math.exp(h) - 2) / total]


def interpolation_weights(nodes: list[float], means: list[float]) -> list[float]:
    """w with Σ w_j node_j^k = means_k for k < len(nodes): the mean of any polynomial from its values at the nodes."""
    powers = torch.tensor([[node**k for node in nodes] for k in range(len(nodes))], dtype=torch.float64)
    return torch.linalg.solve(powers, torch.tensor(means[: len(nodes)], dtype=torch.float64)).tolist()


def exponential_spacing(steps: int) -> Tensor:
    """Evenly spaced in log signal-to-noise ratio, from σ/α = 80 to 0.02, between t = 1 and t = 0.

    The steps beyond these ratios have order 1. Above `USUAL_STEPS` steps both ratios move outward, by the factor that
    makes the error of these steps shrink like that of the others.
    """
    further = max(1.0, steps / USUAL_STEPS) ** 1.5  # their error falls with its square, the others' with steps³
    ends = math.log(80.0 * further), math.log(0.02 / further)
    return spacing_of_ratios(torch.linspace(*ends, steps - 1, dtype=torch.float64).exp())


def middle_spacing(steps: int) -> Tensor:
    """In log signal-to-noise ratio, denser in the middle. The ends move outward with the number of steps.

    Fitted to 15 steps of `sample_adams` with saved_model/tiny and the first saved_model/film_music_teacher.
    """
    ends = math.log(4.9 * steps), math.log(0.52 / steps)  # of σ/α
    u = torch.linspace(0, 1, steps - 1, dtype=torch.float64)
    bent = u + 0.36 * torch.sin(2 * math.pi * u) / (2 * math.pi) - 0.22 * u * (1 - u)
    return spacing_of_ratios((ends[0] + (ends[1] - ends[0]) * bent).exp())


def spacing_of_ratios(ratios: Tensor) -> Tensor:
    """Noise-to-signal ratios σ/α (n,) float64, descending → times (n + 2,) with 1 and 0 at the ends."""
    return torch.cat([torch.ones(1), (ratios.atan() / (math.pi / 2)).float(), torch.zeros(1)])


@torch.no_grad()
def sample_multistep(
    denoise: Denoise,
    noise: Tensor,
    steps: int,
    callback: Callback | None = None,
    discontinuities: Sequence[float] = (),
    *,
    order: int = 3,
    rule: Rule = log_snr_weights,
    spacing: Spacing = exponential_spacing,
) -> Tensor:
    """Exponential multistep solver, DPM-Solver++ 3M by default: like `sample_ddim`, in fewer steps.

    A step integrates x exactly except for the denoised prediction, which is a polynomial through its latest `order`
    values; order 1 is DDIM. discontinuities: times at which the network changes abruptly; t exactly at a
    discontinuity uses the branch below it. A step ends at each. No prediction from above it is used below.
    """
    _check_steps(steps)
    grid = grid_with_discontinuities(spacing, steps, discontinuities, after=SHORT_STEP)
    coefficients = multistep_coefficients(grid, order, rule, discontinuities)
    alphas, sigmas = (values.tolist() for values in alphas_sigmas(grid))
    x, latest = noise, []
    for i in range(steps):
        denoised = alphas[i] * x - sigmas[i] * denoise(x, grid[i].expand(len(x)))
        latest = [denoised, *latest[: order - 1]]
        keep, weights = coefficients[i]
        x = keep * x + sum(weight * value for weight, value in zip(weights, latest, strict=False))
        if callback is not None:
            callback(i, grid[i], x, denoised)
    return x


@torch.no_grad()
def sample_adams(
    denoise: Denoise,
    noise: Tensor,
    steps: int,
    callback: Callback | None = None,
    discontinuities: Sequence[float] = (),
    *,
    spacing: Spacing = middle_spacing,
) -> Tensor:
    """Adams-Bashforth-Moulton of order 2 on v, the derivative of x with respect to tπ/2: like `sample_ddim`, in few
    steps.

    Over a step, v is taken as the line in log-SNR through its two latest values. When v at the end of the step is
    known, the step is taken again along the line through both its ends, without a further evaluation. The steps from
    t = 1 and to t = 0, where log-SNR is infinite, and the step after a discontinuity are ddim's. The step to a
    discontinuity is not taken again, since v differs there, and is half as long. The last but one is not taken again
    either, so that the result is the denoised prediction, as released.
    """
    _check_steps(steps)
    grid = grid_with_discontinuities(spacing, steps, discontinuities, before=UNCORRECTED_STEP)
    times = grid.tolist()
    restarts = crossed(times, discontinuities)
    before = x = last = noise
    for i, (t, end) in enumerate(pairwise(times)):
        v = denoise(x, grid[i].expand(len(x)))
        denoised = math.cos(t * math.pi / 2) * x - math.sin(t * math.pi / 2) * v
        if end == 0 or i < 2 or restarts[i]:
            angle = (t - end) * math.pi / 2
            before, x = x, math.cos(angle) * x - math.sin(angle) * v
        else:
            nodes = (times[i - 1], t)
            before = _along(before, line_weights(nodes, times[i - 1], t), last, v)  # x at t, corrected
            x = _along(before, line_weights(nodes, t, end), last, v)
        last = v
        if callback is not None:
            callback(i, grid[i], x, denoised)
    return x


def _along(x: Tensor, weights: tuple[float, float], earlier: Tensor, later: Tensor) -> Tensor:
    return x + weights[0] * earlier + weights[1] * later


def line_weights(times: tuple[float, float], start: float, end: float) -> tuple[float, float]:
    """Weights of v at two times in what a step adds to x: the line in log-SNR through them, integrated over tπ/2."""
    nodes, weights = GAUSS
    places = (start + end) / 2 + (end - start) / 2 * nodes
    mean = float(weights @ [log_snr(place) for place in places]) / 2
    first, second = (log_snr(t) for t in times)
    share, length = (mean - first) / (second - first), (end - start) * math.pi / 2
    return (1 - share) * length, share * length


def multistep_coefficients(
    grid: Tensor, order: int, rule: Rule, discontinuities: Sequence[float] = ()
) -> list[Coefficients]:
    """For each step the factor of x and the weights of the latest denoised predictions D, latest first:
    x' = (σ'/σ) x + σ' ∫ D dcot(tπ/2), integrated from t to t'.
    """
    times, coefficients, known = grid.tolist(), [], 0
    restarts = crossed(times, discontinuities)
    for i, (t, end) in enumerate(pairwise(times)):
        known = 1 if restarts[i] else min(known + 1, order)
        keep = math.sin(end * math.pi / 2) / math.sin(t * math.pi / 2)
        gain = math.cos(end * math.pi / 2) - math.cos(t * math.pi / 2) * keep
        weights = rule(times[i - known + 1 : i + 1][::-1], end)
        coefficients.append((keep, [gain * weight for weight in weights]))
    return coefficients


def crossed(times: Sequence[float], discontinuities: Sequence[float]) -> list[bool]:
    """For each time whether a discontinuity lies at it, or between it and the time before."""
    places = torch.tensor(discontinuities, dtype=torch.float32).tolist()  # rounded like the grid
    return [False, *(any(t <= place < before for place in places) for before, t in pairwise(times))]


def log_snr(t: float) -> float:
    return -math.log(math.tan(t * math.pi / 2))


def grid_with_discontinuities(
    spacing: Spacing, steps: int, discontinuities: Sequence[float], *, before: float = 1.0, after: float = 1.0
) -> Tensor:
    """(steps + 1,) strictly decreasing times from 1 to 0 with a point on every discontinuity.

    Between discontinuities the steps are as even as in the spacing, but for the one that ends at a discontinuity and
    the one that starts there: they are `before` and `after` times as long. With fewer inner points than
    discontinuities, the lowest ones are used.
    """
    grid = spacing(steps)
    wanted: list[float] = []
    for t in sorted((t for t in discontinuities if 0 < t < 1), reverse=True):
        if not wanted or wanted[-1] - t >= CLOSEST:
            wanted.append(t)
    wanted = wanted[max(0, len(wanted) - (steps - 1)) :]
    if not wanted:
        return grid
    scale = Scale(grid.double().numpy())
    ends = [0.0, *map(scale.place, wanted), float(steps)]
    shorter = [(1 - before) * (j < len(wanted)) + (1 - after) * (j > 0) for j in range(len(ends) - 1)]
    counts = [1] * len(shorter)  # of steps from one discontinuity to the next

    def regular(j: int) -> float:  # length of a step of this part
        return (ends[j + 1] - ends[j]) / (counts[j] - (shorter[j] if counts[j] > 1 else 0))

    while sum(counts) < steps:
        counts[max(range(len(counts)), key=regular)] += 1
    times: list[float] = []
    for j, count in enumerate(counts):
        first = ends[j] + regular(j) * (after if j > 0 else 1.0)
        times += [wanted[j - 1] if j else 1.0, *(scale.time(first + regular(j) * k) for k in range(count - 1))]
    return torch.tensor([*times, 0.0], dtype=torch.float32)


@dataclass(frozen=True)
class Scale:
    """Places between the points of a time grid: even in log-SNR from its second to its last but one, else in t."""

    grid: np.ndarray  # (steps + 1,) float64, from 1 down to 0

    def place(self, t: float) -> float:
        """A time between 1 and 0 → its place, from 0 to the number of steps."""
        count = len(self.grid) - 1
        if t > self.grid[1]:
            return float((1 - t) / (1 - self.grid[1]))
        if t < self.grid[-2]:
            return float(count - t / self.grid[-2])
        return float(np.interp(log_snr(t), self._inner, np.arange(1, count)))

    def time(self, place: float) -> float:
        """The time of a place."""
        count = len(self.grid) - 1
        if place < 1:
            return float(1 - place * (1 - self.grid[1]))
        if place > count - 1:
            return float((count - place) * self.grid[-2])
        return math.atan(math.exp(-np.interp(place, np.arange(1, count), self._inner))) / (math.pi / 2)

    @property
    def _inner(self) -> np.ndarray:
        return -np.log(np.tan(self.grid[1:-1] * math.pi / 2))


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, got {steps}")


SAMPLERS = {
    "ddim": sample_ddim,
    "dpmpp-3m": sample_multistep,
    "adams": sample_adams,
}
