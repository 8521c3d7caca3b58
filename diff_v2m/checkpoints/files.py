"""Reads and writes weights files: named tensors, with the model JSON if there is one."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from diff_v2m.common.errors import InputError
from diff_v2m.common.progress import stage
from diff_v2m.common.versions import VERSION
from diff_v2m.config import ModelConfig
from diff_v2m.weights.finding import find_weights

log = logging.getLogger(__name__)

PREFIXES = {"diffusion_cond": "diffusion.", "autoencoder": "autoencoder."}  # of released names, by model_type

# Prefix of the trained weights → prefix of their moving average. The conditioners have one only if the config says so.
AVERAGED = {
    "diffusion.model.": "diffusion_ema.ema_model.",
    "diffusion.conditioner.": "diffusion_ema.ema_conditioner.",
}

# Smaller tensors stay float32 on disk: rotary frequencies, norms, statistics and biases. They need little space, and
# rotary frequencies are too coarse in half precision.
SMALLEST_HALVED = 4096

SAFETENSORS_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file. Tensors are memory-mapped."""

    path: Path
    state: Mapping[str, Tensor]
    raw_config: dict[str, Any] | None
    resumable: bool = False  # has the optimiser's state too
    adapters: dict[str, Any] | None = None  # if it holds LoRA adapters only: their rank and base model


def read_weights(path: str | Path) -> WeightsFile:
    """Tensors by name and the model JSON, if any, of a file or of the one in a folder.

    The content decides the format, not the file's name. Raises InputError.
    """
    path = find_weights(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; expected a .ckpt or .safetensors file") from error
    if head.startswith(b"PK\x03\x04"):
        return _read_checkpoint(path)
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith((b"version https://git-lfs", b"<")):
        raise InputError(f"{path}: holds a Git LFS pointer or a web page, not weights; download the file itself")
    if head.startswith(b"\x80"):
        raise InputError(f"{path}: refused: a bare pickle, which could run code; expected a .ckpt or .safetensors file")
    kind = "is empty" if not head else "is neither a PyTorch checkpoint nor safetensors"
    raise InputError(f"{path}: {kind}; expected a .ckpt or .safetensors file, perhaps download it again")


def save_model(
    model: nn.Module, config: ModelConfig, path: str | Path, *, dtype: torch.dtype | None = torch.float16
) -> None:
    """Write the model of this config, as `save_state`."""
    save_state(model.state_dict(prefix=PREFIXES[config.model_type]), config, path, dtype=dtype)


def save_state(
    state: Mapping[str, Tensor], config: ModelConfig, path: str | Path, *, dtype: torch.dtype | None = torch.float16
) -> None:
    """Write a training state dict as safetensors with the model JSON inside, atomically.

    Trained weights are replaced by their moving average, if there is one. dtype: of all but the smallest tensors; None
    keeps each tensor's. Tensors are read from `state` and converted one at a time. Raises InputError if the file cannot
    be written.
    """
    metadata = {"format": "pt", "model_config": json.dumps(config.raw), "diff_v2m_version": VERSION}
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            _write_safetensors(file, state, _one_set(state), dtype, metadata)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error}; free space or choose another folder") from error
    finally:
        with contextlib.suppress(OSError):  # after success there is nothing to remove
            temporary.unlink()


def _write_safetensors(
    file: BinaryIO,
    state: Mapping[str, Tensor],
    names: Mapping[str, str],
    dtype: torch.dtype | None,
    metadata: dict[str, str],
) -> None:
    """names: in the file → in `state`. safetensors' own writer needs all tensors in memory at once."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    kinds = {name: _kind_on_disk(state[key], dtype) for name, key in names.items()}
    order = sorted(names, key=lambda name: (-kinds[name].itemsize, name))  # large items first, so all are aligned
    for name in order:
        tensor, begin = state[names[name]], end
        end += tensor.numel() * kinds[name].itemsize
        header[name] = {
            "dtype": SAFETENSORS_DTYPES[kinds[name]],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    with stage("writing the weights", end, "B", unit_scale=True) as bar:
        for name in order:
            tensor = state[names[name]].detach().to("cpu", kinds[name]).contiguous()
            bar.update(file.write(tensor.reshape(-1).view(torch.uint8).numpy()))


def _read_checkpoint(path: Path) -> WeightsFile:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise InputError(
            f"{path}: refused: it holds {found[1] if found else 'something'} where only tensors and plain values "
            "belong, and reading that could run code; expected a checkpoint from a source you trust"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: truncated or damaged; download or copy it again") from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    items = state.items() if isinstance(state, Mapping) else [(None, None)]
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in items):
        raise InputError(f"{path}: holds no state_dict of tensors; expected a Lightning checkpoint of Diff-V2M")
    raw_config, adapters = (content.get(key) for key in ("model_config", "adapters"))
    return WeightsFile(
        path,
        state,
        raw_config if isinstance(raw_config, dict) else None,
        resumable=bool(content.get("optimizer_states")),
        adapters=adapters if isinstance(adapters, dict) else None,
    )


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
        raw_config = json.loads(metadata["model_config"]) if "model_config" in metadata else None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: truncated or damaged safetensors; download or copy it again") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: its metadata model_config is not JSON; give the model JSON beside it") from error
    return WeightsFile(path, state, raw_config)


def _one_set(keys: Iterable[str]) -> dict[str, str]:
    """Names of the trained weights → keys of the state; those of averaged weights, where there are some."""
    keys = list(keys)
    averaged = {
        online + key.removeprefix(prefix): key
        for online, prefix in AVERAGED.items()
        for key in keys
        if key.startswith(prefix)
    }
    return {key: key for key in keys if key.startswith(tuple(PREFIXES.values()))} | averaged


def warn_if_not_averaged(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Warn if the moving average in a training state is still the initial weights: the run had fewer than 3 steps."""
    if not state.get("diffusion_ema.initted", torch.ones(1)).any():
        log.warning("%s: the moving average was never updated; consider --weights online", path)


def _kind_on_disk(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    halved = dtype is not None and tensor.is_floating_point() and tensor.numel() >= SMALLEST_HALVED
    return dtype if halved else tensor.dtype


def listed(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(keys[:10]) + (f", … ({len(keys)} in all)" if len(keys) > 10 else "")
