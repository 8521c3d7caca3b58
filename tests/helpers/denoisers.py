"""A denoiser whose exact answer is known."""

import torch

from diff_v2m.model.diffusion import alphas_sigmas


def mixture(x, t, *, scale=0.6, switch=None):
    """The exact v for a mixture of two Gaussians at ±1; at t ≤ switch, for one Gaussian at 0.5."""
    alpha, sigma = (a[:, None, None].double() for a in alphas_sigmas(t.double()))
    x, total = x.double(), alpha**2 * scale**2 + sigma**2
    mean = torch.tanh(alpha * x / total)  # of the two centres, given x
    if switch is not None:
        mean = torch.where((t > switch)[:, None, None], mean, 0.5)
    z = mean + alpha * scale**2 / total * (x - alpha * mean)
    return ((alpha * x - z) / sigma).float()
