"""Audiobox aesthetics (Tjandra et al. 2025): audio → four scores from 1 to 10, fitted to human ratings.

The network comes from the package audiobox_aesthetics, which this project does not require. The package would download
weights by itself; here they come from --weights-dir.
"""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path

import numpy as np
import torch

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash
from inference.encoders.base import Embedding, WeightsFile, folder_of, optional_module

SOURCE = "facebook/audiobox-aesthetics on the Hugging Face hub"
WEIGHTS = tuple(WeightsFile(f"audiobox-aesthetics/{name}", SOURCE) for name in ("config.json", "model.safetensors"))
INSTALL = "audiobox_aesthetics==0.0.4"  # with --no-deps: its other requirements are here or not needed
MODULE = "audiobox_aesthetics.model.aes"
AXES = {
    "CE": "content enjoyment",
    "CU": "content usefulness",
    "PC": "production complexity",
    "PQ": "production quality",
}


def load(weights: Path, device: str) -> AudioboxEncoder:
    optional_module(MODULE, INSTALL)
    logging.getLogger("audiobox_aesthetics").setLevel(logging.WARNING)
    return AudioboxEncoder(folder_of(WEIGHTS, weights), device)


class AudioboxEncoder:
    """(1, 4) scores in the order of AXES: the mean over 10 s windows, weighted by their length, as the package's own
    predictor computes it.
    """

    name, sample_rate, shortest = "aesthetics", 16000, 1.0
    window = 160000

    def __init__(self, folder: Path, device: str = "cpu", batch_size: int = 4) -> None:
        code = optional_module(MODULE, INSTALL)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self.network = code.AesMultiOutput.from_pretrained(str(folder), local_files_only=True, strict=True)
            scales = [self.network.target_transform[axis] for axis in AXES]
            self.scale = np.array([[s["std"], s["mean"]] for s in scales]).T
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{folder}: Audiobox aesthetics cannot be loaded ({reason})") from error
        self.network.eval().to(device)
        hashes = " ".join(content_hash(folder / Path(file.name).name) for file in WEIGHTS)
        self.identity = f"audiobox aesthetics 1, files {hashes}"
        self.device, self.batch_size = device, batch_size

    @torch.inference_mode()
    def embed(self, audio: np.ndarray) -> Embedding:
        parts = [audio[start : start + self.window] for start in range(0, len(audio), self.window)]
        scores = []
        for first in range(0, len(parts), self.batch_size):
            batch = parts[first : first + self.batch_size]
            padded = np.stack([np.pad(part, (0, self.window - len(part))) for part in batch])[:, None]
            mask = np.arange(self.window) < np.array([len(part) for part in batch])[:, None]
            inputs = {"wav": torch.from_numpy(padded).float(), "mask": torch.from_numpy(mask)[:, None]}
            found = self.network({key: value.to(self.device) for key, value in inputs.items()})
            scores.append(np.stack([found[axis].float().cpu().numpy() for axis in AXES], axis=-1))
        lengths = np.array([len(part) for part in parts], dtype=float)
        mean = np.average(np.concatenate(scores) * self.scale[0] + self.scale[1], axis=0, weights=lengths)
        return Embedding(mean[None])
