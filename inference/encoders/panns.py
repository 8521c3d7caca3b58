"""CNN14 of PANNs (Kong et al. 2020), 16 kHz version: audio → 2048 numbers and the logits of 527 AudioSet classes.

Attribute names are those of the published weights file, Cnn14_16k_mAP=0.438.pth, so that it loads strictly. The file
also holds the Fourier and mel matrices of the front end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from diff_v2m.common.files import content_hash
from inference.encoders.base import Embedding, WeightsFile, load_strictly, read_state

WEIGHTS = WeightsFile("panns/Cnn14_16k_mAP=0.438.pth", "PANNs on Zenodo, record 3987831")
SAMPLE_RATE = 16000
N_FFT, HOP, MELS = 512, 160, 64
CLASSES = 527


def load(weights: Path, device: str) -> Cnn14Encoder:
    return Cnn14Encoder(WEIGHTS.at(weights), device)


class Cnn14Encoder:
    """One embedding and 527 logits for the whole clip."""

    name, sample_rate, shortest = "panns", SAMPLE_RATE, 0.32

    def __init__(self, path: Path, device: str = "cpu", **sizes: Any) -> None:
        self.identity = f"panns cnn14 16k 1, whole clip, weights {content_hash(path)} {sizes or ''}"
        state = read_state(path)
        self.network = load_strictly(Cnn14(**sizes), state.get("model", state), path).to(device)
        self.device = device

    @torch.inference_mode()
    def embed(self, audio: np.ndarray) -> Embedding:
        embedding, logits = self.network(torch.from_numpy(audio).float()[None].to(self.device))
        return Embedding(embedding.cpu().numpy(), logits[0].cpu().numpy())


class Cnn14(nn.Module):
    """(n, samples) mono at 16 kHz → embedding (n, d), logits (n, classes). Tests use smaller sizes."""

    def __init__(self, channels: Sequence[int] = (64, 128, 256, 512, 1024, 2048), classes: int = CLASSES) -> None:
        super().__init__()
        self.spectrogram_extractor = _Spectrogram()
        self.logmel_extractor = _LogMel()
        self.bn0 = nn.BatchNorm2d(MELS)
        for number, (before, width) in enumerate(zip((1, *channels), channels), start=1):  # noqa: B905  (one longer)
            self.add_module(f"conv_block{number}", _Block(before, width))
        self.fc1 = nn.Linear(channels[-1], channels[-1])
        self.fc_audioset = nn.Linear(channels[-1], classes)

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        x = self.logmel_extractor(self.spectrogram_extractor(audio))  # (n, 1, frames, mels)
        x = self.bn0(x.transpose(1, 3)).transpose(1, 3)
        for block in (self.conv_block1, self.conv_block2, self.conv_block3, self.conv_block4, self.conv_block5):
            x = functional.avg_pool2d(block(x), 2)
        x = self.conv_block6(x).mean(dim=3)  # (n, d, frames / 32)
        embedding = functional.relu(self.fc1(x.amax(dim=2) + x.mean(dim=2)))
        return embedding, self.fc_audioset(embedding)


class _Block(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)))


class _Spectrogram(nn.Module):
    """(n, samples) → power (n, 1, frames, 257). The Fourier transform is two convolutions with loaded weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stft = nn.Module()
        self.stft.conv_real = nn.Conv1d(1, N_FFT // 2 + 1, N_FFT, stride=HOP, bias=False)
        self.stft.conv_imag = nn.Conv1d(1, N_FFT // 2 + 1, N_FFT, stride=HOP, bias=False)

    def forward(self, audio: Tensor) -> Tensor:
        padded = functional.pad(audio[:, None], (N_FFT // 2, N_FFT // 2), mode="reflect")
        power = self.stft.conv_real(padded).square() + self.stft.conv_imag(padded).square()
        return power.transpose(1, 2)[:, None]


class _LogMel(nn.Module):
    """Power (n, 1, frames, 257) → dB (n, 1, frames, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.melW = nn.Parameter(torch.zeros(N_FFT // 2 + 1, MELS))

    def forward(self, power: Tensor) -> Tensor:
        return 10 * torch.log10((power @ self.melW).clamp(min=1e-10))
