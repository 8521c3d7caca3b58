"""Log-mel statistics: mean and standard deviation of 32 bands over each second. No network and no weights.

They show trends and find copies, and are comparable with no published number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from diff_v2m.features import rhythm
from inference.encoders.base import Embedding


def load(weights: Path, device: str) -> MelEncoder:
    return MelEncoder()


class MelEncoder:
    """(S, 64): 32 means in dB, then 32 standard deviations."""

    name, sample_rate, shortest = "mel", 16000, 0.5
    identity = "log-mel 1, 32 bands, mean and spread a second"
    bands = 32

    def embed(self, audio: np.ndarray) -> Embedding:
        level = rhythm.mel(torch.from_numpy(audio).float(), self.sample_rate).numpy()
        level = level.reshape(len(level), self.bands, -1).mean(axis=2)
        time = np.arange(len(level)) * rhythm.scaled_hop(rhythm.HOP, self.sample_rate) / self.sample_rate
        seconds = max(1, round(len(audio) / self.sample_rate))
        parts = [level[(time >= second) & (time < second + 1)] for second in range(seconds)]
        return Embedding(np.stack([np.concatenate([part.mean(axis=0), part.std(axis=0)]) for part in parts]))
