"""Order of convergence of every sampler, and the spacings that only the benchmark uses."""

import math
from functools import lru_cache

import pytest
import torch
from helpers.denoisers import mixture

from benchmarks.samplers import BEST_SPACINGS, MULTISTEP, SPACINGS, angle_weights, mean_spacing
from diff_v2m.model.diffusion import grid_with_discontinuities, sample_ddim

EVERY = {"ddim": sample_ddim, **MULTISTEP}


@lru_cache
def solution(sampler, steps, switch=None, **spacing):
    noise = torch.randn(1, 1, 100, generator=torch.Generator().manual_seed(0))
    options = spacing | {"discontinuities": [] if switch is None else [switch]}
    return EVERY[sampler](lambda x, t: mixture(x, t, switch=switch), noise, steps, **options)


def error(sampler, steps, switch=None, **spacing):
    """Root mean square distance to a solution in many more steps."""
    return (solution(sampler, steps, switch, **spacing) - solution("ab2", 800, switch)).square().mean().sqrt().item()


@pytest.mark.parametrize(
    ("sampler", "least"),
    [("ddim", 1.7), ("dpmpp-2m", 2.4), ("dpmpp-3m", 3.0), ("ab2", 3.5), ("unipc", 3.0), ("adams", 3.0)],
)
def test_twice_the_steps_divide_the_error_as_the_order_says(sampler, least):
    """On a grid that gets finer everywhere; the last step of an exponential one keeps its length."""
    spacing = {} if sampler == "ddim" else {"spacing": mean_spacing}
    assert error(sampler, 80, **spacing) / error(sampler, 160, **spacing) > least


@pytest.mark.parametrize("switch", [None, 0.2])
def test_unipc_is_more_accurate_than_the_sampler_that_it_corrects(switch):
    assert error("unipc", 40, switch) < 0.8 * error("dpmpp-3m", 40, switch)


@pytest.mark.parametrize("sampler", MULTISTEP)
@pytest.mark.parametrize("switch", [None, 0.2])
def test_a_third_of_the_published_steps_are_more_accurate(sampler, switch):
    assert error(sampler, 80, switch) < error("ddim", 250, switch)


@pytest.mark.parametrize("sampler", MULTISTEP)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50])
def test_a_perfect_denoiser_ends_at_its_latents(sampler, steps):
    z = torch.randn(2, 3, 8)

    def denoise(x, t):
        alpha, sigma = (torch.cos(t * math.pi / 2)[:, None, None], torch.sin(t * math.pi / 2)[:, None, None])
        return (alpha * x - z) / sigma

    assert torch.allclose(MULTISTEP[sampler](denoise, torch.randn(2, 3, 8), steps), z, atol=1e-4)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [2, 3, 10, 33, 40, 250])
def test_spacings_step_on_a_discontinuity(spacing, steps):
    grid = grid_with_discontinuities(SPACINGS[spacing], steps, [0.2])
    assert len(grid) == steps + 1 and grid[0] == 1 and grid[-1] == 0 and (grid.diff() < 0).all()
    (on_it,) = grid[(grid - 0.2).abs() < 1e-5]
    assert grid.dtype == torch.float32 and not on_it > 0.2


def test_angle_weights_integrate_lines_over_the_step():
    times, end = [0.6, 0.64], 0.52
    at = torch.linspace(times[0], end, 20001, dtype=torch.float64) * math.pi / 2
    for k in range(2):
        exact = torch.trapezoid(at**k, 1 / at.tan()) / (1 / at[-1].tan() - 1 / at[0].tan())
        ours = sum(w * (t * math.pi / 2) ** k for w, t in zip(angle_weights(times, end), times, strict=True))
        assert ours == pytest.approx(exact.item(), abs=1e-6), k


def test_every_multistep_sampler_has_its_spacings():
    assert BEST_SPACINGS.keys() == MULTISTEP.keys()
    assert all(set(spacings) <= SPACINGS.keys() for spacings in BEST_SPACINGS.values())
