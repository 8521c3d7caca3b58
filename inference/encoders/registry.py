"""Networks that listen: sound → embeddings and logits. Weights come from a folder and are never downloaded.

Where weights are missing, `build` raises NotComputed with what to put where. They are read without executing anything
in them, strictly, and checked by hash: where the publisher gives one, and where the folder's SHA256SUMS names the file.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash
from inference.metric import NotComputed


@dataclass(frozen=True)
class Embedding:
    """What a network makes of one clip."""

    frames: np.ndarray  # (f, d), f ≥ 1, in order of time
    logits: np.ndarray | None = None  # (c,) of a tagger

    @property
    def clip(self) -> np.ndarray:
        """(d,) the mean over time."""
        return self.frames.mean(axis=0)


class Embedder(Protocol):
    """One that listens. `identity` names code, weights and settings: the same identity makes the same embeddings."""

    name: str
    sample_rate: int
    shortest: float  # seconds of sound that it needs
    identity: str

    def embed(self, audio: np.ndarray) -> Embedding:
        """Mono (n,) in [-1, 1] at `sample_rate`, at least `shortest` long."""


@dataclass(frozen=True)
class WeightsFile:
    """A file that is expected below --weights-dir."""

    name: str
    source: str
    sha256: str = ""  # as much of it as the publisher gives

    def at(self, folder: Path) -> Path:
        """Its path, checked. Raises NotComputed when absent, InputError when it is another file."""
        path = folder / self.name
        if not path.is_file():
            raise NotComputed(f"no weights: put {Path(self.name).name} ({self.source}) at {path}")
        listed = _listed_hashes(folder).get(self.name, self.sha256)
        if listed and not content_hash(path).startswith(listed):
            raise InputError(
                f"{path}: its sha256 begins {content_hash(path)[:16]}, expected {listed[:16]}; it is another or a "
                "damaged file, get it again"
            )
        return path


VGGISH = WeightsFile("vggish/vggish-10086976.pth", "torchvggish on GitHub, release v0.1", sha256="10086976")
CNN14 = WeightsFile("panns/Cnn14_16k_mAP=0.438.pth", "PANNs on Zenodo, record 3987831")
IMAGEBIND = WeightsFile("imagebind/imagebind_huge.pth", "ImageBind on GitHub, 4.5 GB, for non-commercial use")
CLAP_SOURCE = "laion/larger_clap_music on the Hugging Face hub"
CLAP_FILES = tuple(
    WeightsFile(f"larger_clap_music/{name}", CLAP_SOURCE)
    for name in ("config.json", "preprocessor_config.json", "model.safetensors")
)


def folder_of(files: Sequence[WeightsFile], weights: Path) -> Path:
    """Where the files of one network are, checked. Raises as `WeightsFile.at`, naming all that are absent at once."""
    place = weights / Path(files[0].name).parent
    absent = [Path(file.name).name for file in files if not (weights / file.name).is_file()]
    if absent:
        raise NotComputed(f"no weights: put {', '.join(absent)} ({files[0].source}) into {place}/")
    for file in files:
        file.at(weights)
    return place


def windows(audio: np.ndarray, width: int, hop: int) -> list[np.ndarray]:
    """(n,) → whole windows of `width` samples every `hop`, the last ending with the clip; a shorter clip as it is."""
    starts = [*range(0, max(len(audio) - width, 1), hop), max(0, len(audio) - width)]
    return [audio[start : start + width] for start in dict.fromkeys(starts)]


class VggishEmbedder:
    """A row for every 0.96 s."""

    name, sample_rate, shortest = "vggish", 16000, 0.98

    def __init__(self, path: Path, device: str = "cpu", batch_size: int = 32, **sizes: Any) -> None:
        from inference.encoders.vggish import Vggish

        self.identity = f"vggish 1, pre-activation, no PCA, weights {content_hash(path)} {sizes or ''}"
        self.network = load_strictly(Vggish(**sizes), read_state(path), path).to(device)
        self.device, self.batch_size = device, batch_size

    def embed(self, audio: np.ndarray) -> Embedding:
        import torch

        from inference.encoders.vggish import examples

        with torch.inference_mode():
            batches = examples(audio).split(self.batch_size)
            return Embedding(np.concatenate([self.network(b.to(self.device)).cpu().numpy() for b in batches]))


class Cnn14Embedder:
    """One row and 527 logits for the whole clip."""

    name, sample_rate, shortest = "panns", 16000, 0.32

    def __init__(self, path: Path, device: str = "cpu", **sizes: Any) -> None:
        from inference.encoders.panns import Cnn14

        self.identity = f"panns cnn14 16k 1, whole clip, weights {content_hash(path)} {sizes or ''}"
        state = read_state(path)
        self.network = load_strictly(Cnn14(**sizes), state.get("model", state), path).to(device)
        self.device = device

    def embed(self, audio: np.ndarray) -> Embedding:
        import torch

        with torch.inference_mode():
            embedding, logits = self.network(torch.from_numpy(audio).float()[None].to(self.device))
        return Embedding(embedding.cpu().numpy(), logits[0].cpu().numpy())


class ClapEmbedder:
    """A row of unit length for every window that CLAP was trained on (10 s), side by side, the last one ending with the
    clip; a shorter clip is repeated, as in its training. Whole windows only, so that nothing is cropped at random."""

    name, shortest = "clap", 0.5

    def __init__(self, folder: Path, device: str = "cpu", batch_size: int = 8) -> None:
        from safetensors import SafetensorError
        from transformers import ClapFeatureExtractor, ClapModel

        try:
            self.extractor = ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
            self.network, found = ClapModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise InputError(f"{folder}: CLAP cannot be loaded ({str(error).strip().splitlines()[0]})") from error
        wrong = [*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]]
        if wrong:
            raise InputError(f"{folder}: {len(wrong)} weights do not fit its config.json, the first is {wrong[0]}")
        if self.network.config.audio_config.enable_fusion:
            raise InputError(f"{folder}: a CLAP with feature fusion, which crops at random; expected {CLAP_SOURCE}")
        hashes = "".join(content_hash(folder / Path(file.name).name) for file in CLAP_FILES)
        digest = hashlib.sha256(hashes.encode())
        self.identity = f"clap 1, whole windows side by side, files {digest.hexdigest()}"
        self.sample_rate = self.extractor.sampling_rate
        self.network.eval().to(device)
        self.device, self.batch_size = device, batch_size

    def embed(self, audio: np.ndarray) -> Embedding:
        import torch

        width, rows = self.extractor.nb_max_samples, []
        parts = windows(audio, width, width)
        for first in range(0, len(parts), self.batch_size):
            inputs = self.extractor(
                parts[first : first + self.batch_size], sampling_rate=self.sample_rate, return_tensors="pt"
            )
            with torch.inference_mode():
                output = self.network.get_audio_features(**inputs.to(self.device))
            rows.append(output.pooler_output.float().cpu().numpy())
        return Embedding(np.concatenate(rows))


class ImageBindEmbedder:
    """A row of unit length for each of three pieces of a sound; and for fifteen of a film, in the same space."""

    name, sample_rate, shortest = "imagebind", 16000, 0.1
    unused = (".text.", ".depth.", ".thermal.", ".imu.", "modality_postprocessors.")  # scales, which cosines ignore

    def __init__(self, path: Path, device: str = "cpu", batch_size: int = 5, **sizes: Any) -> None:
        from inference.encoders.imagebind import ImageBind

        self.identity = f"imagebind 1, weights {content_hash(path)} {sizes or ''}"
        state = {key: value for key, value in read_state(path).items() if not any(part in key for part in self.unused)}
        self.network = load_strictly(ImageBind(**sizes), state, path).to(device)
        self.device, self.batch_size = device, batch_size

    def embed(self, audio: np.ndarray) -> Embedding:
        import torch

        from inference.encoders.imagebind import spectrograms

        with torch.inference_mode():
            return Embedding(self.network.hear(spectrograms(audio).to(self.device)).cpu().numpy())

    def watch(self, film: Path) -> Embedding:
        """InputError for what is no video."""
        import torch

        from inference.encoders.imagebind import crops

        with torch.inference_mode():
            batches = crops(film).split(self.batch_size)
            return Embedding(np.concatenate([self.network.see(b.to(self.device)).cpu().numpy() for b in batches]))


class MelEmbedder:
    """Mean and spread of 32 log-mel bands over each second: no network and no weights, so a coarse ear. Good for trends
    and for finding copies; comparable with no published number."""

    name, sample_rate, shortest = "mel", 16000, 0.5
    identity = "log-mel 1, 32 bands, mean and spread a second"
    bands = 32

    def embed(self, audio: np.ndarray) -> Embedding:
        import torch

        from diff_v2m.features import rhythm

        level = rhythm.mel(torch.from_numpy(audio).float(), self.sample_rate).numpy()
        level = level.reshape(len(level), self.bands, -1).mean(axis=2)
        time = np.arange(len(level)) * rhythm.scaled_hop(rhythm.HOP, self.sample_rate) / self.sample_rate
        seconds = max(1, round(len(audio) / self.sample_rate))
        parts = [level[(time >= second) & (time < second + 1)] for second in range(seconds)]
        return Embedding(np.stack([np.concatenate([part.mean(axis=0), part.std(axis=0)]) for part in parts]))


def build(name: str, weights: Path, device: str = "cpu") -> Embedder:
    """vggish, panns, clap, imagebind, mel, passt or aesthetics. Raises NotComputed where its weights or its package are
    absent, InputError where the weights are wrong."""
    from inference.encoders import optional

    builders = {
        "vggish": lambda: VggishEmbedder(VGGISH.at(weights), device),
        "panns": lambda: Cnn14Embedder(CNN14.at(weights), device),
        "clap": lambda: ClapEmbedder(folder_of(CLAP_FILES, weights), device),
        "imagebind": lambda: ImageBindEmbedder(IMAGEBIND.at(weights), device),
        "mel": MelEmbedder,
        "passt": lambda: optional.passt(weights, device),
        "aesthetics": lambda: optional.aesthetics(weights, device),
    }
    return builders[name]()


def read_state(path: Path) -> dict[str, Any]:
    """A .pth of tensors and plain values. Raises InputError for anything else, and executes nothing."""
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: refused: it holds more than tensors, and reading that could run code") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: truncated or damaged; get it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no weights by name; get it again")
    return content


def load_strictly(network, state: dict[str, Any], path: Path):
    """Every weight of the network from `state` and none left over, or an InputError that names the first misfit."""
    wanted = network.state_dict()
    wrong = sorted(wanted.keys() ^ state.keys()) or sorted(
        key for key, value in wanted.items() if getattr(state[key], "shape", None) != value.shape
    )
    if wrong:
        raise InputError(
            f"{path}: {len(wrong)} weights do not fit {type(network).__name__}, the first is {wrong[0]}; expected the "
            "published file"
        )
    network.load_state_dict(state, strict=True)
    return network.eval()


def _listed_hashes(folder: Path) -> dict[str, str]:
    """SHA256SUMS of the weights folder, as sha256sum writes it: hash, two spaces, path."""
    try:
        lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.split(maxsplit=1) for line in lines if len(line.split(maxsplit=1)) == 2)
    return {name.strip().lstrip("*").removeprefix("./"): digest.lower() for digest, name in pairs}
