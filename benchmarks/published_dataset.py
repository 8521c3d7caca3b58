"""The work of the published dataset class per item, written from its description: the baseline of benchmarks.loader.

Where the description is unclear, it does less work: it decodes a file once and keeps the info file in memory.
"""

from __future__ import annotations

import json
import math

import librosa
import numpy as np
import soundfile
import torch
from scipy.signal import find_peaks
from torch import Tensor
from torch.utils.data import Dataset

from diff_v2m.config import DatasetEntry, ModelConfig

HOP, PROMINENCE, EPS = 512, 0.05, 1e-6
SILENCE = -60  # dBFS


class PublishedDataset(Dataset):
    """Item: (audio (channels, samples), metadata)."""

    def __init__(self, entry: DatasetEntry, config: ModelConfig):
        self.entry, self.config = entry, config
        self.files = sorted(entry.path.glob("*.wav"))
        self.info = json.loads(entry.video_info.read_text())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, dict]:
        path = self.files[index]
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        audio = torch.from_numpy(audio.T)
        window, start = self._pad_crop(audio)
        if 20 * torch.log10(window.flatten().abs().max()) < SILENCE:
            return self[int(torch.randint(len(self), ()))]
        if torch.rand(()) < 0.5:
            window = -window
        metadata = {
            "semantic": np.load(self.entry.video_feat / f"{path.stem}.npy"),
            "color": np.load(self.entry.video_color / f"{path.stem}.npy"),
            "rhythm": onsets_a_second(audio.mean(0).numpy(), rate),
            "scene_cut": self.info[f"{path.stem}.mp4"]["scene_cut"],
            "pseudo_beat": self.info[f"{path.stem}.mp4"]["pseudo_beats"],
            "class": self.entry.class_label,
            "seconds_start": math.floor(start / rate),
            "seconds_total": math.ceil(audio.shape[1] / rate),
        }
        return window, metadata

    def _pad_crop(self, audio: Tensor) -> tuple[Tensor, int]:
        """A window that starts at a random sample, padded with silence."""
        spare = max(0, audio.shape[1] - self.config.sample_size)
        start = int(torch.randint(spare + 1, ())) if spare else 0
        window = torch.zeros(self.config.audio_channels, self.config.sample_size)
        part = audio[:, start : start + self.config.sample_size]
        window[:, : part.shape[1]] = part
        return window, start


def onsets_a_second(mono: np.ndarray, rate: int) -> Tensor:
    """(n,) → (S, 1): the highest onset peak around each second."""
    strength = librosa.onset.onset_strength(y=mono, sr=rate, hop_length=HOP)
    z = (strength - strength.mean()) / (strength.std() + EPS)
    peaks, _ = find_peaks(z, prominence=PROMINENCE)
    curve = np.zeros(math.ceil(len(mono) / rate), np.float32)
    for frame in peaks:
        second = int(round(frame * HOP / rate))
        if second < len(curve):
            curve[second] = max(curve[second], z[frame])
    return torch.from_numpy(curve[1:] if len(curve) > 30 else curve)[:, None]


def published_batch(items: list[tuple[Tensor, dict]]) -> list[dict]:
    """Stack the audio; one dict per clip."""
    audio = torch.stack([window for window, _ in items])
    return [{"audio": sound, **metadata} for sound, (_, metadata) in zip(audio, items, strict=True)]
