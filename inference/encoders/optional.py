"""Networks whose code is in packages that this project does not need: PaSST, Audiobox aesthetics.

Where a package or its weights are absent the metric is not computed, and says what to install and what to put where.
Both packages would fetch weights themselves; only their networks are used here, and weights come from --weights-dir.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash
from inference.encoders.registry import Embedding, WeightsFile, folder_of, load_strictly, read_state, windows
from inference.metric import NotComputed

PASST = WeightsFile("passt/passt-s-f128-p16-s10-ap.476-swa.pt", "PaSST on GitHub, release v0.0.1-audioset")
AESTHETICS_SOURCE = "facebook/audiobox-aesthetics on the Hugging Face hub"
AESTHETICS = tuple(
    WeightsFile(f"audiobox-aesthetics/{name}", AESTHETICS_SOURCE) for name in ("config.json", "model.safetensors")
)
INSTALL = {  # package → what to install; without what they ask for, which is here or not needed
    "hear21passt": "hear21passt==0.0.26 timm==1.0.31",
    "audiobox_aesthetics": "audiobox_aesthetics==0.0.4",
}
AXES = {
    "CE": "content enjoyment",
    "CU": "content usefulness",
    "PC": "production complexity",
    "PQ": "production quality",
}


def module(name: str) -> ModuleType:
    """Import it. Raises NotComputed where the package, or something that it needs, is absent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise NotComputed(f"{error}: pip install --no-deps {INSTALL[name.partition('.')[0]]}") from None


class PasstEmbedder:
    """PaSST (Koutini et al. 2022): a row and 527 logits for every 10 s, half overlapping, the last window ending with
    the clip; the clip's logits are their mean, from which the usual KL is taken."""

    name, sample_rate, shortest = "passt", 32000, 1.0
    window, hop = 320000, 160000

    def __init__(self, path: Path, device: str = "cpu", batch_size: int = 8, **sizes: int) -> None:
        code = module("hear21passt.models.passt")
        front = module("hear21passt.models.preprocess")
        code.first_RUN = False  # it prints every shape of its first pass
        sizes = {"embed_dim": 768, "depth": 12, "num_heads": 12, "num_classes": 527} | sizes
        # as hear21passt.base.get_basic_model builds it; fmax: what it sets itself, with a print, where none is given
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

    def embed(self, audio: np.ndarray) -> Embedding:
        import torch

        rows, logits = [], []
        parts = windows(audio, self.window, self.hop)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a second of sound is 2 frames longer than its patches
            for first in range(0, len(parts), self.batch_size):
                batch = torch.from_numpy(np.stack(parts[first : first + self.batch_size])).float().to(self.device)
                found, features = self.network(self.mel(batch)[:, None])
                logits.append(found.cpu().numpy())
                rows.append(features.cpu().numpy())
        return Embedding(np.concatenate(rows), np.concatenate(logits).mean(axis=0))


class AestheticsEmbedder:
    """Audiobox aesthetics (Tjandra et al. 2025): a row of four scores, 1 to 10, in the order of AXES; the mean over
    10 s windows by their length, as the package's own predictor takes it."""

    name, sample_rate, shortest = "aesthetics", 16000, 1.0
    window = 160000

    def __init__(self, folder: Path, device: str = "cpu", batch_size: int = 4) -> None:
        code = module("audiobox_aesthetics.model.aes")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self.network = code.AesMultiOutput.from_pretrained(str(folder), local_files_only=True, strict=True)
            scales = [self.network.target_transform[axis] for axis in AXES]
            self.scale = np.array([[s["std"], s["mean"]] for s in scales]).T
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{folder}: Audiobox aesthetics cannot be loaded ({reason})") from error
        self.network.eval().to(device)
        hashes = " ".join(content_hash(folder / Path(file.name).name) for file in AESTHETICS)
        self.identity = f"audiobox aesthetics 1, files {hashes}"
        self.device, self.batch_size = device, batch_size

    def embed(self, audio: np.ndarray) -> Embedding:
        import torch

        parts = [audio[start : start + self.window] for start in range(0, len(audio), self.window)]
        scores = []
        for first in range(0, len(parts), self.batch_size):
            batch = parts[first : first + self.batch_size]
            padded = np.stack([np.pad(part, (0, self.window - len(part))) for part in batch])[:, None]
            mask = np.arange(self.window) < np.array([len(part) for part in batch])[:, None]
            given = {"wav": torch.from_numpy(padded).float(), "mask": torch.from_numpy(mask)[:, None]}
            with torch.inference_mode():
                found = self.network({key: value.to(self.device) for key, value in given.items()})
            scores.append(np.stack([found[axis].float().cpu().numpy() for axis in AXES], axis=-1))
        lengths = np.array([len(part) for part in parts], dtype=float)
        mean = np.average(np.concatenate(scores) * self.scale[0] + self.scale[1], axis=0, weights=lengths)
        return Embedding(mean[None])


def passt(weights: Path, device: str) -> PasstEmbedder:
    """Raises NotComputed where the package or the weights are absent, InputError where the weights are wrong."""
    module("hear21passt.models.passt")
    return PasstEmbedder(PASST.at(weights), device)


def aesthetics(weights: Path, device: str) -> AestheticsEmbedder:
    """Raises as `passt`."""
    module("audiobox_aesthetics.model.aes")
    logging.getLogger("audiobox_aesthetics").setLevel(logging.WARNING)
    return AestheticsEmbedder(folder_of(AESTHETICS, weights), device)
