"""The v-prediction algebra, the time grid and the sampler, against denoisers whose answer is known."""

import pytest
import torch

from diff_v2m.diffusion import add_noise, alphas_sigmas, sample_ddim, time_grid, v_target


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


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_a_perfect_denoiser_is_followed_home(steps):
    z = torch.randn(2, 3, 8)

    def denoise(x, t):
        alpha, sigma = (s[:, None, None] for s in alphas_sigmas(t))
        return (alpha * x - z) / sigma  # the v that points from x at z

    assert torch.allclose(sample_ddim(denoise, torch.randn(2, 3, 8), steps), z, atol=1e-4)


def test_gaussian_data_comes_out_with_its_deviation():
    """For z ~ N(0, s²) the best v is linear in x; sampled finely, noise of deviation 1 becomes deviation s."""
    s = 0.3

    def denoise(x, t):
        alpha, sigma = (a[:, None, None] for a in alphas_sigmas(t))
        total = alpha**2 * s**2 + sigma**2
        return (alpha * sigma * (1 - s**2) / total) * x

    noise = torch.randn(1, 1, 20000, generator=torch.Generator().manual_seed(0))
    assert sample_ddim(denoise, noise, 400).std() == pytest.approx(s, rel=0.02)


def test_every_step_is_reported_from_one_downwards():
    steps = []
    sample_ddim(lambda x, t: 0 * x, torch.randn(2, 1, 4), 4, callback=lambda i, t, x, d: steps.append((i, t.item())))
    assert steps == [(0, 1.0), (1, 0.75), (2, 0.5), (3, 0.25)]


def test_result_does_not_depend_on_the_rest_of_the_batch():
    noise = torch.randn(3, 2, 6)
    denoise = lambda x, t: torch.tanh(x) * t[:, None, None]  # noqa: E731
    together = sample_ddim(denoise, noise, 9)
    assert torch.allclose(sample_ddim(denoise, noise[1:2], 9), together[1:2], atol=1e-6)


@pytest.mark.parametrize("steps", [10, 20, 25, 50, 100, 150, 200, 250, 500])
def test_the_grid_point_at_two_tenths_takes_the_rhythm_branch(steps):
    grid = time_grid(steps)
    tie = grid[(grid - 0.2).abs() < 1e-5]
    assert grid.dtype == torch.float32 and len(tie) == 1
    assert not (tie > 0.2).any()


def test_no_steps_is_an_error():
    with pytest.raises(ValueError, match="at least one step"):
        sample_ddim(lambda x, t: x, torch.randn(1, 1, 1), 0)
