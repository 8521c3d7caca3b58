"""PaSST (Koutini et al. 2022): audio → embeddings and the logits of 527 AudioSet classes.

The network comes from the package hear21passt, which this project does not require. The package would download weights
by itself; here they come from --weights-dir.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash
from inference.encoders.base import (
    Embedding,
    WeightsFile,
    load_strictly,
    optional_module,
    read_state,
    windows,
)

WEIGHTS = WeightsFile("passt/passt-s-f128-p16-s10-ap.476-swa.pt", "PaSST on GitHub, release v0.0.1-audioset")
INSTALL = "hear21passt==0.0.26 timm==1.0.31"  # with --no-deps: its other requirements are here or not needed


def load(weights: Path, device: str) -> PasstEncoder:
    optional_module("hear21passt.models.passt", INSTALL)
    return PasstEncoder(WEIGHTS.at(weights), device)


class PasstEncoder:
    """One embedding and 527 logits for every window of 10 s. Windows overlap by half, the last ends with the clip. The
    logits of the clip are the mean over windows, as KL is usually computed.
    """

    name, sample_rate, shortest = "passt", 32000, 1.0
    window, hop = 320000, 160000

    def __init__(self, path: Path, device: str = "cpu", batch_size: int = 8, **sizes: int) -> None:
        code = optional_module("hear21passt.models.passt", INSTALL)
        front = optional_module("hear21passt.models.preprocess", INSTALL)
        code.first_RUN = False  # otherwise the first pass prints every shape
        sizes = {"embed_dim": 768, "depth": 12, "num_heads": 12, "num_classes": 527} | sizes
        # as hear21passt.base.get_basic_model builds it; fmax is the value that it prints and sets where none is given
        network = code.PaSST(img_size=(128, 998), patch_size=16, stride=(10, 10), in_chans=1, distilled=True, **sizes)
        state = read_state(path)
        try:
            state = code.checkpoint_filter_fn(state, network)
        except (KeyError, ValueError, RuntimeError, AttributeError) as error:
            raise InputError(f"{path}: no weights of PaSST ({error}); expected the published file") from None
        self.network = load_strictly(network, state, path).to(device)
        mel = front.AugmentMelSTFT(
            n_mels=128,
            sr=32000,
            win_length=800,
            hopsize=320,
            n_fft=1024,
            freqm=48,
            timem=192,
            htk=False,
            fmin=0.0,
            fmax=15000,
            norm=1,
            fmin_aug_range=10,
            fmax_aug_range=2000,
        )
        self.mel = mel.eval().to(device)
        self.identity = f"passt 1, 10 s windows every 5 s, weights {content_hash(path)} {sizes}"
        self.device, self.batch_size = device, batch_size

    @torch.inference_mode()
    def embed(self, audio: np.ndarray) -> Embedding:
        frames, logits = [], []
        parts = windows(audio, self.window, self.hop)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a short clip has 2 frames more than patches
            for first in range(0, len(parts), self.batch_size):
                batch = torch.from_numpy(np.stack(parts[first : first + self.batch_size])).float().to(self.device)
                found, features = self.network(self.mel(batch)[:, None])
                logits.append(found.cpu().numpy())
                frames.append(features.cpu().numpy())
        return Embedding(np.concatenate(frames), np.concatenate(logits).mean(axis=0))
