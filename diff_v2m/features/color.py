"""Colour features: one RGB-uv histogram per frame, as in HistoGAN (Afifi et al., arXiv 2011.11731)."""

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from diff_v2m.features.video_features import COLOR_BINS


def rgb_uv_histogram(frames: np.ndarray) -> np.ndarray:
    """(n, H, W, 3) uint8 RGB → (n, 3072) float32: HistoGAN's RGB-uv histogram [I, with high confidence].

    For each channel c and the other channels a < b: u = log c − log a, v = log c − log b. Every pixel spreads its
    intensity over the 32×32 bins (u, v) in [−3, 3]² by an inverse-quadratic kernel of width 0.02. All three histograms
    together sum to 1.
    """
    with threadpool_limits(1, user_api="blas"):  # a contended second thread makes these matmuls 50 times slower
        return np.stack([_rgb_uv(frame) for frame in frames])


def _rgb_uv(frame: np.ndarray) -> np.ndarray:
    epsilon, sigma, bins = 1e-6, 0.02, np.linspace(-3, 3, COLOR_BINS, dtype=np.float32)
    height, width = frame.shape[:2]
    small = cv2.resize(frame, (min(width, 150), min(height, 150)), interpolation=cv2.INTER_LINEAR)
    pixels = small.reshape(-1, 3).astype(np.float32) / 255
    intensity = np.sqrt((pixels**2).sum(axis=1, keepdims=True) + epsilon)  # ε as in HistoGAN: black pixels count too
    red, green, blue = np.log(pixels + epsilon).T

    def kernel(difference: np.ndarray) -> np.ndarray:
        return 1 / (1 + ((difference[:, None] - bins) / sigma) ** 2)

    # The bins are symmetric, so k(−d) is k(d) reversed: three kernels serve all six differences.
    rg, rb, gb = kernel(red - green), kernel(red - blue), kernel(green - blue)
    weighted = (intensity * rg).T
    histogram = np.stack([weighted @ rb, (weighted @ gb)[::-1], ((intensity * rb).T @ gb)[::-1, ::-1]])
    return (histogram / histogram.sum()).reshape(-1).astype(np.float32)
