"""The v-prediction algebra, the time grid and the sampler, against denoisers whose answer is known."""

import math
from itertools import pairwise

import pytest
import torch
from helpers.denoisers import mixture

from diff_v2m.generation.settings import DEFAULT_SAMPLER, DEFAULT_STEPS
from diff_v2m.model.diffusion import (
    CLOSEST,
    OBJECTIVES,
    SAMPLERS,
    add_noise,
    alphas_sigmas,
    ddim_step,
    exponential_spacing,
    grid_with_discontinuities,
    line_weights,
    log_snr_weights,
    middle_spacing,
    midpoint_step,
    multistep_coefficients,
    sample_adams,
    sample_ddim,
    sample_multistep,
    time_grid,
    v_target,
    velocity_between,
)

ALL = pytest.mark.parametrize("sampler", SAMPLERS)


def test_signal_and_noise_shares():
    alpha, sigma = alphas_sigmas(torch.tensor([0.0, 0.5, 1.0]))
    assert torch.allclose(alpha**2 + sigma**2, torch.ones(3))
    assert torch.allclose(alpha, torch.tensor([1.0, 0.5**0.5, 0.0]), atol=1e-6)


def test_v_and_x_give_back_latents_and_noise():
    z, noise, t = torch.randn(3, 4, 5), torch.randn(3, 4, 5), torch.tensor([0.1, 0.5, 0.9])
    alpha, sigma = (s[:, None, None] for s in alphas_sigmas(t))
    x, v = add_noise(z, noise, t), v_target(z, noise, t)
    assert torch.allclose(alpha * x - sigma * v, z, atol=1e-5)
    assert torch.allclose(sigma * x + alpha * v, noise, atol=1e-5)


def test_every_objective_is_named_in_the_manifest():
    assert {name: objective.prediction for name, objective in OBJECTIVES.items()} == {
        "v": "v-prediction",
        "rectified_flow": "rectified flow",
    }


@ALL
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50])
def test_samplers_reach_the_latents_of_a_perfect_denoiser(sampler, steps):
    z = torch.randn(2, 3, 8)

    def denoise(x, t):
        alpha, sigma = (s[:, None, None] for s in alphas_sigmas(t))
        return (alpha * x - z) / sigma  # the v that points from x at z

    assert torch.allclose(SAMPLERS[sampler](denoise, torch.randn(2, 3, 8), steps), z, atol=1e-4)


def test_gaussian_data_comes_out_with_its_deviation():
    """For z ~ N(0, s²) the best v is linear in x; sampled finely, noise of deviation 1 becomes deviation s."""
    s = 0.3

    def denoise(x, t):
        alpha, sigma = (a[:, None, None] for a in alphas_sigmas(t))
        total = alpha**2 * s**2 + sigma**2
        return (alpha * sigma * (1 - s**2) / total) * x

    noise = torch.randn(1, 1, 20000, generator=torch.Generator().manual_seed(0))
    assert sample_ddim(denoise, noise, 400).std() == pytest.approx(s, rel=0.02)


def test_the_first_multistep_step_is_ddims():
    noise, seen = torch.randn(2, 3, 8), []
    alphas, sigmas = alphas_sigmas(exponential_spacing(6))
    sample_multistep(mixture, noise, 6, callback=lambda i, t, x, denoised: seen.append((x, denoised)))
    x, denoised = seen[0]
    assert torch.allclose(x, alphas[1] * denoised + sigmas[1] * noise, atol=1e-5)  # at t = 1, x is noise alone


@pytest.mark.parametrize("steps", [2, 3, 10, 33, 40, 250])
def test_a_step_ends_on_the_discontinuity_and_takes_the_rhythm_branch(steps):
    grid = grid_with_discontinuities(exponential_spacing, steps, [0.2])
    assert len(grid) == steps + 1 and grid[0] == 1 and grid[-1] == 0 and (grid.diff() < 0).all()
    (on_it,) = grid[(grid - 0.2).abs() < 1e-5]
    assert grid.dtype == torch.float32 and not on_it > 0.2
    assert torch.equal(grid_with_discontinuities(exponential_spacing, steps, [0.0, 1.0]), exponential_spacing(steps))


@pytest.mark.parametrize("steps", [11, 30])
@pytest.mark.parametrize(("before", "after"), [(1.0, 0.2), (0.5, 1.0), (1.0, 1.0)])
def test_steps_are_even_between_discontinuities_but_for_those_beside_them(steps, before, after):
    grid = grid_with_discontinuities(exponential_spacing, steps, [0.2, 0.8], before=before, after=after)
    assert len(grid) == steps + 1 and (grid.diff() < 0).all()
    log_snr = -(grid[1:-1].double() * math.pi / 2).tan().log()
    places = [int((grid[1:-1] - t).abs().argmin()) for t in (0.8, 0.2)]
    assert grid[1:-1][places].tolist() == torch.tensor([0.8, 0.2]).tolist()
    ends = [0, *places, steps - 2]
    for part, (first, last) in enumerate(pairwise(ends)):
        lengths = log_snr[first : last + 1].diff()
        wanted = torch.ones_like(lengths)
        wanted[0] = after if part > 0 else 1.0
        wanted[-1] = before if part < 2 else 1.0
        ends_of_all = slice(part == 0, len(lengths) - (part == 2))  # the steps beside t = 1 and t = 0 are their own
        ratios = (lengths / wanted)[ends_of_all]
        torch.testing.assert_close(ratios, ratios.mean().expand_as(ratios), rtol=1e-3, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 12, 13, 20, 30, 100])
def test_any_guidance_interval_beside_hard_fusion_gives_distinct_steps(steps):
    marks = [i / 50 for i in range(51)] + [0.2 + 1e-9, 0.20005, 0.995, 0.999, 0.001]
    for low in marks:
        for high in (mark for mark in marks if mark >= low):
            wanted = [0.2, low, high]
            for spacing in (exponential_spacing, middle_spacing):
                grid = grid_with_discontinuities(spacing, steps, wanted, before=0.5)
                assert len(grid) == steps + 1 and (grid.diff() < 0).all(), (low, high)
                if steps >= 4:
                    missed = [t for t in wanted if 0 < t < 1 and (grid - t).abs().min() >= CLOSEST]
                    assert not missed, (low, high)
    coefficients = multistep_coefficients(grid, 3, log_snr_weights, wanted)
    assert all(math.isfinite(weight) for keep, weights in coefficients for weight in (keep, *weights))


@pytest.mark.parametrize("sampler", [sample_multistep, sample_adams])
def test_no_prediction_from_above_a_discontinuity_is_used_below(sampler):
    """The prediction above is wrong on purpose: it may change where the step at the discontinuity starts, no more."""
    seen = []

    def denoise(x, t):
        seen.append((t[0].item(), x))
        return torch.zeros_like(x) if t[0] > 0.2 else mixture(x, t)

    result = sampler(denoise, torch.randn(1, 1, 50), 12, discontinuities=[0.2])
    below = [(t, x) for t, x in seen if t < 0.2001]
    alphas, sigmas = alphas_sigmas(torch.tensor([t for t, _ in below]))
    start = below[0][1]
    denoised = alphas[0] * start - sigmas[0] * mixture(start, torch.tensor([below[0][0]]))
    epsilon = (start - alphas[0] * denoised) / sigmas[0]
    assert torch.allclose(below[1][1], alphas[1] * denoised + sigmas[1] * epsilon, atol=1e-5)
    assert result.isfinite().all()


@pytest.mark.parametrize("switch", [None, 0.2])
def test_the_default_steps_have_less_error_than_the_published_ones(switch):
    noise = torch.randn(4, 1, 200, generator=torch.Generator().manual_seed(0))

    def solve(sampler, steps):
        places = [] if switch is None else [switch]
        return sampler(lambda x, t: mixture(x, t, switch=switch), noise, steps, discontinuities=places)

    exact = solve(sample_multistep, 600)
    default, published = (
        (solve(SAMPLERS[name], steps) - exact).square().mean().sqrt()
        for name, steps in ((DEFAULT_SAMPLER, DEFAULT_STEPS[DEFAULT_SAMPLER]), ("ddim", 250))
    )
    assert default < 0.8 * published


def test_where_the_denoised_prediction_is_known_adams_ends_with_it():
    """As in a redone span, whose surroundings are kept: some latents are z at every step, the others are generated."""
    z = torch.randn(1, 1, 50)

    def denoise(x, t):
        alpha, sigma = alphas_sigmas(t[:, None, None])
        return torch.cat([(alpha * x[..., :50] - z) / sigma, mixture(x[..., 50:], t)], dim=-1)

    for steps in (3, 8, 20):
        made = sample_adams(denoise, torch.randn(1, 1, 100), steps)
        torch.testing.assert_close(made[..., :50], z, rtol=0, atol=1e-5)


def test_line_weights_integrate_lines_over_the_step():
    """Lines in log-SNR, integrated over the angle: extrapolated from a step's start, and between its ends."""
    for times, start, end in (((0.64, 0.6), 0.6, 0.52), ((0.6, 0.52), 0.6, 0.52), ((0.04, 0.02), 0.02, 0.01)):
        at = torch.linspace(start, end, 20001, dtype=torch.float64) * math.pi / 2
        values = -at.tan().log()
        nodes = [-math.log(math.tan(t * math.pi / 2)) for t in times]
        for k in range(2):
            ours = sum(w * node**k for w, node in zip(line_weights(times, start, end), nodes, strict=True))
            assert ours == pytest.approx(torch.trapezoid(values**k, at).item(), rel=1e-6), (times, k)


def test_weights_integrate_polynomials_over_the_step():
    """Polynomials in log SNR, integrated against cot(tπ/2)."""
    times, end = [0.6, 0.64, 0.7], 0.52
    at = torch.linspace(times[0], end, 20001, dtype=torch.float64) * math.pi / 2
    log_snr = lambda angle: -angle.tan().log()  # noqa: E731
    nodes = log_snr(torch.tensor(times).double() * math.pi / 2)
    for k in range(3):
        exact = torch.trapezoid(log_snr(at) ** k, 1 / at.tan()) / (1 / at[-1].tan() - 1 / at[0].tan())
        ours = sum(w * node**k for w, node in zip(log_snr_weights(times, end), nodes, strict=True))
        assert ours.item() == pytest.approx(exact.item(), abs=1e-6), k


def test_every_step_is_reported_from_one_downwards():
    steps = []
    sample_ddim(lambda x, t: 0 * x, torch.randn(2, 1, 4), 4, callback=lambda i, t, x, d: steps.append((i, t.item())))
    assert steps == [(0, 1.0), (1, 0.75), (2, 0.5), (3, 0.25)]


@ALL
def test_result_does_not_depend_on_the_rest_of_the_batch(sampler):
    noise = torch.randn(3, 2, 6)
    denoise = lambda x, t: torch.tanh(x) * t[:, None, None]  # noqa: E731
    together = SAMPLERS[sampler](denoise, noise, 9)
    assert torch.allclose(SAMPLERS[sampler](denoise, noise[1:2], 9), together[1:2], atol=1e-6)


@pytest.mark.parametrize("steps", [10, 20, 25, 50, 100, 150, 200, 250, 500])
def test_the_grid_point_at_two_tenths_takes_the_rhythm_branch(steps):
    grid = time_grid(steps)
    tie = grid[(grid - 0.2).abs() < 1e-5]
    assert grid.dtype == torch.float32 and len(tie) == 1
    assert not (tie > 0.2).any()


@ALL
def test_no_steps_is_an_error(sampler):
    with pytest.raises(ValueError, match="at least one step"):
        SAMPLERS[sampler](lambda x, t: x, torch.randn(1, 1, 1), 0)


def gaussian_error(scale, steps, discontinuities=(), sampler=sample_multistep):
    """Relative error on data of this deviation, whose probability flow has a closed form: noise times the deviation."""

    def denoise(x, t):
        alpha, sigma = alphas_sigmas(t[:, None, None].double())
        return (1 - scale**2 / (alpha**2 * scale**2 + sigma**2)) * alpha * x / sigma

    noise = torch.randn(1, 2, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made = sampler(denoise, noise, steps, discontinuities=discontinuities)
    return float((made - scale * noise).norm() / (scale * noise).norm())


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_the_error_on_a_gaussian_falls_with_the_steps(scale):
    assert gaussian_error(scale, 60) < 4e-4
    assert gaussian_error(scale, 120) < 4e-5 and gaussian_error(scale, 480) < 1e-6


@pytest.mark.parametrize("low", [1e-6, 1e-4, 5e-4, 0.001, 0.003, 0.01, 0.16, 0.199, 0.201, 0.9, 0.999])
@pytest.mark.parametrize("sampler", [sample_multistep, sample_adams])
def test_a_discontinuity_costs_little_accuracy_wherever_it_is(low, sampler):
    """Also near t = 0, where the step that ends there is many times as long as the one before."""
    worst = max(gaussian_error(scale, 30, [low, 0.2], sampler) for scale in (0.3, 1.0, 3.0))
    assert worst < 0.011


def test_a_step_of_ddim_and_its_velocity():
    """With the true v a step stays on the path of latents and noise, and the v of a step leads to its end."""
    z, noise = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    t, end = torch.tensor([0.25, 0.6, 1.0]), torch.tensor([0.0, 0.5, 0.875])
    x, v = add_noise(z, noise, t), v_target(z, noise, t)
    assert torch.allclose(ddim_step(x, v, t, end), add_noise(z, noise, end), atol=1e-5)
    assert torch.allclose(velocity_between(x, add_noise(z, noise, end), t, end), v, atol=1e-4)


def test_midpoint_steps_have_order_two_at_a_t_of_each_clips_own():
    x = torch.randn(2, 1, 200, generator=torch.Generator().manual_seed(0))

    def solve(steps: int) -> torch.Tensor:
        now, first = x, torch.tensor([1.0, 0.7])
        for number in range(steps):
            now = midpoint_step(mixture, now, first * (1 - number / steps), first * (1 - (number + 1) / steps))
        return now

    exact = solve(400)
    errors = [(solve(steps) - exact).square().mean((1, 2)).sqrt() for steps in (10, 20)]
    assert (errors[0] > 3 * errors[1]).all()
