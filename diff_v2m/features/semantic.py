"""Semantic encoders: video frame → 512 numbers, by CLIP, ImageNet classes or histograms of oriented gradients."""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open

from diff_v2m.common.devices import pick_device
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash
from diff_v2m.features.imagenet import IMAGENET_NAME, ImageNetEncoder, check_imagenet
from diff_v2m.features.video_features import SEMANTIC_DIM
from diff_v2m.weights import hub
from diff_v2m.weights.known import KNOWN
from diff_v2m.weights.names import parse_name

log = logging.getLogger(__name__)

CLIP_NAME = "clip-vit-base-patch32"
CLIP_HUB_ID = KNOWN["clip"].repo
CLIP_FOLDER = KNOWN["clip"].folder
CLIP_SIZES = {"hidden_size": 768, "num_hidden_layers": 12, "patch_size": 32}  # of the vision model, also its defaults
CLIP_PROJECTION = "visual_projection.weight"  # (width of the embedding, hidden_size)
CLIP_FILES = ["config.json", "preprocessor_config.json", "model.safetensors"]


class SemanticEncoder(Protocol):
    """Frames → embeddings.

    name: what computes them, in model JSON. identity: the name, and a hash of weights that may vary, in features.json,
    manifests and the feature cache.
    smoothing: how many seconds the row of a second averages, itself in the middle; 1: itself alone.
    """

    name: str
    identity: str
    smoothing: int

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """(n, H, W, 3) uint8 RGB → (n, 512) float32."""


class HogEncoder:
    """Histogram of oriented gradients of the grey frame at 64×64 pixels: shape without colour. Needs no download.

    4×4 blocks of 2×2 cells of 8×8 pixels, 8 orientations: 512 numbers. The norm of a block is at most 1.
    """

    name = identity = "hog"
    smoothing = 1

    def __init__(self):
        if not hasattr(cv2, "HOGDescriptor"):
            raise InputError(f"OpenCV {cv2.__version__} has no HOGDescriptor; pip install 'opencv-python-headless<5'")
        self.descriptor = cv2.HOGDescriptor((64, 64), (16, 16), (16, 16), (8, 8), 8)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        small = (cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA) for frame in frames)
        return np.stack([self.descriptor.compute(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)) for frame in small])


class ClipEncoder:
    """Projected image embedding of CLIP ViT-B/32 (paper: at 1 fps), not normalised, after CLIP's preprocessing.

    model: a local folder or a hub id; None: saved_model/clip-vit-base-patch32 if it exists, else the hub.
    device: as `pick_device` takes it.
    """

    smoothing = 1

    def __init__(self, model: str | Path | None = None, device: str = "cpu"):
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        model = _clip(model)
        folder = clip_folder(model)
        self.name, self.identity = _clip_name(folder), _clip_identity(folder)
        try:
            with _quiet_transformers():
                self.processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
                self.network, about = CLIPVisionModelWithProjection.from_pretrained(
                    folder, local_files_only=True, output_loading_info=True
                )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # RuntimeError: of other shapes
            raise _no_clip(model, error) from error
        if about["missing_keys"]:  # transformers fills them with random numbers
            raise _no_clip(model, f"its weights lack {min(about['missing_keys'])}")
        _check_width(model, self.network.config.projection_dim)
        self.device = pick_device(device)
        self.network.eval().to(self.device)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        import torch

        pixels = self.processor(images=list(frames), return_tensors="pt")["pixel_values"].to(self.device)
        with torch.inference_mode():
            return self.network(pixel_values=pixels).image_embeds.float().cpu().numpy()


def _clip(model: str | Path | None) -> str | Path:
    return model or (CLIP_FOLDER if CLIP_FOLDER.is_dir() else CLIP_HUB_ID)


def clip_folder(model: str | Path | None = None, *, download: bool = True) -> str:
    """The folder with CLIP's files: the given one, or that of a hub model, which is downloaded if necessary.

    Raises InputError if it is not there, or lacks a file.
    """
    model = _clip(model)
    try:
        folder = str(model) if Path(model).is_dir() else _from_hub(str(model), download)
    except (OSError, ValueError) as error:
        raise _no_clip(model, error) from error
    names = os.listdir(folder)
    missing = [name for name in CLIP_FILES if name not in names]
    if "model.safetensors" in missing and any(name.startswith(("model-", "pytorch_model")) for name in names):
        missing.remove("model.safetensors")  # the weights have another name that transformers reads
    if missing:
        raise _no_clip(model, f"missing: {', '.join(missing)}")
    return folder


def _check_clip(folder: str) -> None:
    """InputError for a damaged file, a Git LFS pointer, or an embedding of another width. Only headers are read.

    Weights in another file than model.safetensors are checked when they are loaded.
    """
    for name in ("config.json", "preprocessor_config.json"):
        _json_of(Path(folder) / name)
    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        return
    try:
        with safe_open(path, framework="np") as weights:
            width = weights.get_slice(CLIP_PROJECTION).get_shape()[0]
    except (OSError, SafetensorError) as error:
        raise _no_clip(folder, f"model.safetensors is damaged or another model's: {error}") from error
    _check_width(folder, width)


def _check_width(model: str | Path, width: int) -> None:
    if width != SEMANTIC_DIM:
        raise InputError(f"{model}: its image embedding has {width} numbers, expected {SEMANTIC_DIM}")


def _no_clip(model: str | Path, reason: object) -> InputError:
    where = model if Path(model).is_dir() else CLIP_FOLDER
    return InputError(
        f"{model}: CLIP cannot be loaded; put {', '.join(CLIP_FILES)} of {CLIP_HUB_ID} into {where}/ "
        f"(from https://huggingface.co/{CLIP_HUB_ID}) ({str(reason).strip().partition(chr(10))[0]})"
    )


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without its table of weights that are not used (those of CLIP's text half) and its own bar."""
    from transformers.utils import logging as settings

    level, bar = settings.get_verbosity(), settings.is_progress_bar_enabled()
    settings.set_verbosity_error()
    settings.disable_progress_bar()
    try:
        yield
    finally:
        settings.set_verbosity(level)
        if bar:
            settings.enable_progress_bar()


def _from_hub(model: str, download: bool) -> str:
    """The folder of a hub model in the Hugging Face cache, else downloaded. Raises InputError or OSError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    clip = parse_name("clip") if model == CLIP_HUB_ID else None
    if clip is not None and hub.find(clip):
        return str(hub.fetch(clip)[0].parent)
    try:
        folder = snapshot_download(model, allow_patterns=CLIP_FILES, local_files_only=True)
        if clip is None or any("model." in name for name in os.listdir(folder)):  # of main, by transformers
            return folder
    except LocalEntryNotFoundError:
        if not download:
            raise
    if clip is not None:
        if not download:
            raise FileNotFoundError(f"{model}: not in the Hugging Face cache")
        return str(hub.fetch(clip)[0].parent)
    log.info("%s: not on this machine; downloading it from the Hugging Face hub (600 MB, once)", model)
    return snapshot_download(model, allow_patterns=CLIP_FILES)


def encoder_identity(choice: str, *, download: bool = True) -> str:
    """The `identity` of the encoder that `build_encoder(choice)` returns. CLIP is not loaded, but hashed.

    Raises InputError if it lacks a file.
    """
    if choice == HogEncoder.name:
        return HogEncoder.identity
    if choice in ("imagenet", IMAGENET_NAME):
        return ImageNetEncoder.identity
    if choice in ("clip", CLIP_NAME, CLIP_HUB_ID):
        return _clip_identity(clip_folder(download=download))
    if _is_clip_of_its_own(choice):
        return _clip_identity(clip_folder(choice, download=download))
    raise _unknown(choice)


def encoder_name(identity: str) -> str:
    """Identity → name. Identities of older versions are names, or hub ids."""
    return identity.partition("@")[0].rsplit("/", 1)[-1]


def _clip_name(folder: str | Path) -> str:
    """The name of a CLIP model by its sizes, whatever its folder is called. Raises InputError."""
    config = _json_of(Path(folder) / "config.json")
    vision = config.get("vision_config", config)
    sizes = [vision.get(key, default) for key, default in CLIP_SIZES.items()]
    if sizes == list(CLIP_SIZES.values()):
        return CLIP_NAME
    width, layers, patch = sizes
    return f"clip-vit-{width}-{layers}-patch{patch}"


def _clip_identity(folder: str | Path) -> str:
    """Name and hash of what an embedding depends on: the weights and the preprocessing. Raises InputError."""
    names = sorted(os.listdir(folder))
    weights = [name for name in names if name.endswith((".safetensors", ".bin")) and "model" in name]
    weights = ["model.safetensors"] if "model.safetensors" in weights else weights
    digest = hashlib.sha256()
    for name in weights:
        digest.update(content_hash(Path(folder) / name).encode())
    digest.update(json.dumps(_json_of(Path(folder) / "preprocessor_config.json"), sort_keys=True).encode())
    return f"{_clip_name(folder)}@{digest.hexdigest()[:16]}"


def _json_of(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _no_clip(path.parent, f"{path.name}: {error}") from error
    return content if isinstance(content, dict) else {}


def _unknown(choice: str) -> InputError:
    return InputError(
        f"encoder {choice!r}: expected hog, imagenet, clip, an existing folder with a CLIP model, or a hub id"
    )


def build_encoder(choice: str, device: str = "cpu") -> SemanticEncoder:
    """choice: hog, imagenet, clip (clip-vit-base-patch32), a folder with a CLIP model, or a hub id.

    The `name` of an encoder is accepted too. Raises InputError.
    """
    if choice == HogEncoder.name:
        return HogEncoder()
    if choice in ("imagenet", IMAGENET_NAME):
        return ImageNetEncoder(device)
    if choice in ("clip", CLIP_NAME, CLIP_HUB_ID):
        return ClipEncoder(device=device)
    if _is_clip_of_its_own(choice):
        return ClipEncoder(choice, device)
    raise _unknown(choice)


def check_encoder(choice: str) -> None:
    """InputError if `build_encoder(choice)` would fail. No weights are loaded; CLIP is downloaded if necessary."""
    if choice in ("clip", CLIP_NAME, CLIP_HUB_ID):
        _check_clip(clip_folder())
    elif _is_clip_of_its_own(choice):
        _check_clip(clip_folder(choice))
    elif choice in ("imagenet", IMAGENET_NAME):
        check_imagenet()
    else:
        build_encoder(choice)


def _is_clip_of_its_own(choice: str) -> bool:
    """Whether it is a folder or a hub id."""
    return Path(choice).is_dir() or (choice.count("/") == 1 and not choice.startswith((".", "/")))
