"""CLAP for music (Wu et al. 2023), laion/larger_clap_music, by transformers: 10 s of audio → 512 numbers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import ClapFeatureExtractor, ClapModel

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash
from inference.encoders.base import Embedding, WeightsFile, folder_of, windows

SOURCE = "laion/larger_clap_music on the Hugging Face hub"
WEIGHTS = tuple(
    WeightsFile(f"larger_clap_music/{name}", SOURCE)
    for name in ("config.json", "preprocessor_config.json", "model.safetensors")
)


def load(weights: Path, device: str) -> ClapEncoder:
    return ClapEncoder(folder_of(WEIGHTS, weights), device)


class ClapEncoder:
    """One embedding of unit length for every window of CLAP's training length (10 s).

    Windows lie side by side and the last ends with the clip, so that the feature extractor crops nothing at random. A
    clip shorter than a window is repeated, as in training.
    """

    name, shortest = "clap", 0.5

    def __init__(self, folder: Path, device: str = "cpu", batch_size: int = 8) -> None:
        try:
            self.extractor = ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
            self.network, found = ClapModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise InputError(f"{folder}: CLAP cannot be loaded ({str(error).strip().splitlines()[0]})") from error
        wrong = [*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]]
        if wrong:
            raise InputError(f"{folder}: {len(wrong)} weights do not fit its config.json, the first is {wrong[0]}")
        if self.network.config.audio_config.enable_fusion:
            raise InputError(f"{folder}: a CLAP with feature fusion, which crops at random; expected {SOURCE}")
        hashes = "".join(content_hash(folder / Path(file.name).name) for file in WEIGHTS)
        digest = hashlib.sha256(hashes.encode())
        self.identity = f"clap 1, whole windows side by side, files {digest.hexdigest()}"
        self.sample_rate = self.extractor.sampling_rate
        self.network.eval().to(device)
        self.device, self.batch_size = device, batch_size

    @torch.inference_mode()
    def embed(self, audio: np.ndarray) -> Embedding:
        width, frames = self.extractor.nb_max_samples, []
        parts = windows(audio, width, width)
        for first in range(0, len(parts), self.batch_size):
            batch = parts[first : first + self.batch_size]
            inputs = self.extractor(batch, sampling_rate=self.sample_rate, return_tensors="pt")
            output = self.network.get_audio_features(**inputs.to(self.device))
            frames.append(output.pooler_output.float().cpu().numpy())
        return Embedding(np.concatenate(frames))
