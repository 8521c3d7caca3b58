"""VGGish (Hershey et al. 2017): 0.96 s of audio at 16 kHz → 128 numbers.

Attribute names are those of the PyTorch port's weights file, vggish-10086976.pth, so that it loads strictly. The
embedding is the output of the last linear layer, before its ReLU and without PCA, as FAD is usually computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diff_v2m.common.files import content_hash
from inference.encoders.base import Embedding, WeightsFile, load_strictly, read_state

WEIGHTS = WeightsFile("vggish/vggish-10086976.pth", "torchvggish on GitHub, release v0.1", sha256="10086976")
SAMPLE_RATE = 16000
WINDOW, HOP, N_FFT = 400, 160, 512  # samples: 25 ms every 10 ms
MELS, LOWEST, HIGHEST, OFFSET = 64, 125.0, 7500.0, 0.01
FRAMES = 96  # of 10 ms in one example


def load(weights: Path, device: str) -> VggishEncoder:
    return VggishEncoder(WEIGHTS.at(weights), device)


class VggishEncoder:
    """One embedding every 0.96 s."""

    name, sample_rate, shortest = "vggish", SAMPLE_RATE, 0.98

    def __init__(self, path: Path, device: str = "cpu", batch_size: int = 32, **sizes: Any) -> None:
        self.identity = f"vggish 1, pre-activation, no PCA, weights {content_hash(path)} {sizes or ''}"
        self.network = load_strictly(Vggish(**sizes), read_state(path), path).to(device)
        self.device, self.batch_size = device, batch_size

    @torch.inference_mode()
    def embed(self, audio: np.ndarray) -> Embedding:
        batches = examples(audio).split(self.batch_size)
        return Embedding(np.concatenate([self.network(batch.to(self.device)).cpu().numpy() for batch in batches]))


class Vggish(nn.Module):
    """(n, 96, 64) log-mel examples → (n, 128). The defaults are the published sizes; tests use smaller ones."""

    def __init__(self, channels: Sequence[int] = (64, 128, 256, 512), hidden: int = 4096, dims: int = 128) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width, convolutions in zip(channels, (1, 1, 2, 2), strict=True):
            for _ in range(convolutions):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(before * 6 * 4, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, dims)
        )

    def forward(self, examples: Tensor) -> Tensor:
        maps = self.features(examples[:, None])  # (n, channels, 6, 4)
        return self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))  # the weights come from channels-last


def examples(audio: np.ndarray) -> Tensor:
    """Mono (samples,) at 16 kHz in [-1, 1] → (n, 96, 64) natural log of mel magnitudes; a remainder is dropped."""
    audio = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))
    frames = audio.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW)
    log_mel = torch.log(torch.fft.rfft(frames, N_FFT).abs() @ _mel_bands() + OFFSET)
    return log_mel[: len(log_mel) // FRAMES * FRAMES].reshape(-1, FRAMES, MELS)


@lru_cache(maxsize=1)
def _mel_bands() -> Tensor:
    """(257, 64) bands, triangular on the mel axis as TensorFlow builds them; the DC bin is in none."""

    def mel(hertz):
        return 1127.0 * np.log(1.0 + hertz / 700.0)

    bins = mel(np.linspace(0.0, SAMPLE_RATE / 2, N_FFT // 2 + 1))[:, None]
    edges = np.linspace(mel(LOWEST), mel(HIGHEST), MELS + 2)
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    bands = np.maximum(0.0, np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)))
    bands[0] = 0.0
    return torch.from_numpy(bands).float()
