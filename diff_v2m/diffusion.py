"""The v-prediction algebra and the sampler: pure functions over `denoise(x, t)`, knowing no network.

Time t runs from 1 (pure noise) to 0 (clean latents); x_t = α z + σ ε with α = cos(tπ/2), σ = sin(tπ/2); the network
predicts v = α ε − σ z. Shapes: t (B,), everything else (B, channels, N).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_t, t (B,)) -> v
Callback = Callable[[int, Tensor, Tensor, Tensor], None]  # (step, t (), x_t after the step, denoised)


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
    denoise: Denoise, noise: Tensor, steps: int, callback: Callback | None = None, progress: bool = False
) -> Tensor:
    """Deterministic DDIM (η = 0) in the v parametrisation: noise (B, channels, N) → latents of the same shape.

    As released: t from `time_grid`, and the denoised prediction of the last step is returned.
    """
    grid = time_grid(steps)
    alphas, sigmas = (values.tolist() for values in alphas_sigmas(grid))
    x = denoised = noise
    for i in tqdm(range(steps), desc="sampling", disable=not progress, leave=False):
        v = denoise(x, grid[i].expand(len(x)).to(x.device))
        denoised = alphas[i] * x - sigmas[i] * v
        if i + 1 < steps:
            epsilon = sigmas[i] * x + alphas[i] * v
            x = alphas[i + 1] * denoised + sigmas[i + 1] * epsilon
        if callback is not None:
            callback(i, grid[i], x, denoised)
    return denoised
