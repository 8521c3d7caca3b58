"""Shared by all encoders: their interface, and weights that are read from a folder, checked, and never downloaded.

Weights are read without executing anything in the file, loaded strictly, and checked by hash: against the publisher's
where there is one, and against SHA256SUMS in the weights folder where it names the file.
"""

from __future__ import annotations

import importlib
import pickle
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash
from inference.metric import NotComputed


@dataclass(frozen=True)
class Embedding:
    """Output of an encoder for one clip."""

    frames: np.ndarray  # (f, d), f ≥ 1, in order of time
    logits: np.ndarray | None = None  # (c,) from a classifier

    @property
    def clip(self) -> np.ndarray:
        """(d,) mean over time."""
        return self.frames.mean(axis=0)


class Encoder(Protocol):
    """An audio encoder. `identity` names code, weights and settings: equal identities give equal embeddings."""

    name: str
    sample_rate: int
    shortest: float  # seconds of audio that it needs
    identity: str

    def embed(self, audio: np.ndarray) -> Embedding:
        """Mono (n,) in [-1, 1] at `sample_rate`, at least `shortest` seconds long."""


@dataclass(frozen=True)
class WeightsFile:
    """A file that is expected below --weights-dir."""

    name: str
    source: str
    sha256: str = ""  # or its first digits, as published

    def at(self, folder: Path) -> Path:
        """Return its checked path. Raises NotComputed if it is absent, InputError if it is another file."""
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


def folder_of(files: Sequence[WeightsFile], weights: Path) -> Path:
    """Return the checked folder that holds the files of one encoder. Raises as `WeightsFile.at`, naming all files that
    are absent.
    """
    folder = weights / Path(files[0].name).parent
    absent = [Path(file.name).name for file in files if not (weights / file.name).is_file()]
    if absent:
        raise NotComputed(f"no weights: put {', '.join(absent)} ({files[0].source}) into {folder}/")
    for file in files:
        file.at(weights)
    return folder


def read_state(path: Path) -> dict[str, Any]:
    """Read a .pth of tensors and plain values. Raises InputError for anything else, and executes nothing."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: refused: it holds more than tensors, and reading that could run code") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: truncated or damaged; get it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no weights by name; get it again")
    return content


def load_strictly(network: nn.Module, state: dict[str, Any], path: Path) -> nn.Module:
    """Load every weight of the network, none missing and none left over; in eval mode. Raises InputError, which names
    the first weight that does not fit.
    """
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


def optional_module(name: str, install: str) -> ModuleType:
    """Import a module of a package that users may install. Raises NotComputed, with the command that installs it, where
    the package or one of its own requirements is absent.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise NotComputed(f"{error}: pip install --no-deps {install}") from None


def windows(audio: np.ndarray, width: int, hop: int) -> list[np.ndarray]:
    """(n,) → windows of `width` samples every `hop`; the last ends with the clip. A shorter clip is one window."""
    starts = [*range(0, max(len(audio) - width, 1), hop), max(0, len(audio) - width)]
    return [audio[start : start + width] for start in dict.fromkeys(starts)]


def _listed_hashes(folder: Path) -> dict[str, str]:
    """SHA256SUMS of the weights folder, as sha256sum writes it: hash, two spaces, path."""
    try:
        lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.split(maxsplit=1) for line in lines if len(line.split(maxsplit=1)) == 2)
    return {name.strip().lstrip("*").removeprefix("./"): digest.lower() for digest, name in pairs}
