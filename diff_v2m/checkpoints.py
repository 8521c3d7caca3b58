"""Weights on disk: released-format Lightning checkpoints and our safetensors, loaded strictly and safely.

Every key of a file is loaded, named as dropped in `DROPPED`, or an error that lists it. Pickles are read with
`weights_only=True` and memory-mapped: nothing in a file is executed, and float32 weights are not copied to be loaded.

    released .ckpt     diffusion.*  diffusion_ema.ema_model.* (= diffusion.model.*)  losses.*   and perhaps model_config
    our .safetensors   diffusion.* (one set of weights), the model JSON in the metadata
    autoencoders       pretransform.* (Stable Audio), autoencoder.* (train.py), diffusion.pretransform.* (both above)
"""

import argparse
import contextlib
import functools
import hashlib
import json
import logging
import os
import pickle
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from diff_v2m import __version__
from diff_v2m.config import ModelConfig, parse_model_config
from diff_v2m.config.parsing import read_json
from diff_v2m.errors import InputError
from diff_v2m.model import LatentDiffusion
from diff_v2m.vae import OobleckVAE

log = logging.getLogger(__name__)

Weights = Literal["ema", "online"]

ONLINE, EMA = "diffusion.model.", "diffusion_ema.ema_model."
AUTOENCODER_PREFIXES = ("diffusion.pretransform.", "pretransform.", "autoencoder.")

# What a file may hold that a model does not take: pattern of the whole key → reason. The set of weights that was not
# asked for is the only other thing left out, and only under names the model knows.
DROPPED = {
    r"diffusion_ema\.(initted|step)": "progress of the moving average, needed only to resume training",
    r"losses\..*": "weights of the loss terms, needed only in training",
    r"diffusion\.conditioner\.conditioners\.(semantic|rhythm|color)\.proj_out\.(weight|bias)": (
        "a projection that the published code builds and never calls"
    ),
}

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Smaller tensors stay float32 on disk: frequencies, norms, statistics and biases, which cost next to nothing and of
# which some (rotary frequencies) would be useless in half precision.
SMALLEST_HALVED = 4096


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file, still on disk: tensors are memory-mapped."""

    path: Path
    state: Mapping[str, Tensor]
    raw_config: dict[str, Any] | None
    resumable: bool = False  # holds the optimiser's state too


def load_model(
    path: str | Path,
    *,
    config: ModelConfig | None = None,
    weights: Weights = "ema",
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> tuple[LatentDiffusion, ModelConfig]:
    """The model a file holds, in evaluation mode, and its config.

    config: taken instead of the one in the file or in model_config.json beside it. weights: of a checkpoint that has
    both, the moving average or the last step. dtype: default float32, whatever the precision on disk.
    Raises InputError if the file cannot be read, brings code, or does not fit the config.
    """
    file = read_weights(path)
    config = config or _config_of(file)
    if config.model_type != "diffusion_cond":
        raise InputError(f"{path}: its model_type is {config.model_type}; expected diffusion_cond, a whole model")
    with torch.device("meta"):  # no memory and no random numbers for values that are about to be replaced
        model = LatentDiffusion(config)
    _load(model, file, weights, device, dtype or torch.float32, assign=True)
    return model.eval(), config


def load_weights(model: LatentDiffusion, path: str | Path, *, weights: Weights = "ema") -> None:
    """Fill an existing model, as strictly as `load_model`; nothing is changed if the file does not fit."""
    _load(model, read_weights(path), weights, "cpu", None, assign=False)


def load_vae_weights(vae: OobleckVAE, path: str | Path) -> None:
    """Fill an autoencoder from Stable Audio's model, from one of ours, or from a training checkpoint of either kind.

    Everything else in the file is left alone; inside the autoencoder, loading is strict.
    """
    file = read_weights(path)
    prefix = next((p for p in AUTOENCODER_PREFIXES if any(key.startswith(p) for key in file.state)), None)
    if prefix is None:
        raise InputError(
            f"{path}: holds no autoencoder; expected keys that start with {' or '.join(AUTOENCODER_PREFIXES)}, "
            f"got {_listed(file.state)}"
        )
    wanted = {prefix + name: tensor for name, tensor in vae.state_dict().items()}
    extra = [key for key in file.state if key.startswith(prefix) and key not in wanted]
    _check(file, wanted, extra)
    vae.load_state_dict({key.removeprefix(prefix): file.state[key] for key in wanted})


def check_resumable(path: str | Path, module: nn.Module) -> None:
    """InputError unless the file is a checkpoint from which training this very module can go on."""
    file = read_weights(path)
    if not file.resumable:
        raise InputError(f"{path}: holds weights alone, which a run can start from (--pretrained-ckpt-path), not go on")
    wanted = module.state_dict()
    _check(file, wanted, [key for key in file.state if key not in wanted])


def save_model(
    model: LatentDiffusion | OobleckVAE | Mapping[str, Tensor],
    config: ModelConfig,
    path: str | Path,
    *,
    dtype: torch.dtype | None = torch.float16,
) -> None:
    """Write weights as safetensors with the model JSON inside; the file appears whole or not at all.

    model: a model, an autoencoder, or the state dict of a training wrapper (its moving average is taken if it has
    one). dtype: of all but the smallest tensors; None keeps what they have. Raises InputError if it cannot be written.
    """
    state = {key: _on_disk(tensor, dtype) for key, tensor in _released_names(model).items()}
    metadata = {"format": "pt", "model_config": json.dumps(config.raw), "diff_v2m_version": __version__}
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(state, temporary, metadata)
        temporary.chmod(mode)  # safetensors makes files that only their owner can read
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be written: {error}; free space or choose another folder") from error
    finally:
        with contextlib.suppress(OSError):  # the error above says more; after success there is nothing to remove
            temporary.unlink()


def read_weights(path: str | Path) -> WeightsFile:
    """A file's tensors by name and its model JSON, if any. The format is told from the content, not the name."""
    path = Path(path)
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


def weights_hash(path: str | Path) -> str:
    """SHA-256 of a weights file, in hex; read once a process unless it changes."""
    found = Path(path).stat()
    return _hash(Path(path), found.st_size, found.st_mtime_ns)


@functools.lru_cache
def _hash(path: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    bar = tqdm(total=size, desc=f"hashing {path.name}", unit="B", unit_scale=True, delay=2, leave=False)
    with path.open("rb") as stream, bar:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


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
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: holds no state_dict of tensors; expected a Lightning checkpoint of Diff-V2M")
    raw_config = content.get("model_config")
    raw_config = raw_config if isinstance(raw_config, dict) else None
    return WeightsFile(path, state, raw_config, resumable=bool(content.get("optimizer_states")))


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


def _config_of(file: WeightsFile) -> ModelConfig:
    if file.raw_config is not None:
        return parse_model_config(file.raw_config, f"{file.path} (model_config in it)")
    beside = file.path.parent / "model_config.json"
    if beside.is_file():
        return parse_model_config(read_json(beside), str(beside))
    raise InputError(f"{file.path}: brings no model config; give --model_config_path, or put it beside it as {beside}")


def _load(
    model: LatentDiffusion,
    file: WeightsFile,
    weights: Weights,
    device: torch.device | str,
    dtype: torch.dtype | None,
    assign: bool,
) -> None:
    """assign: the model takes the file's tensors themselves (in dtype, on device) instead of copying their values."""
    ema = weights == "ema" and any(key.startswith(EMA) for key in file.state)
    if weights == "ema" and not ema:
        log.debug("%s holds one set of weights, not a moving average beside it; using those", file.path)
    if ema and not file.state.get("diffusion_ema.initted", torch.ones(1)).any():
        log.warning("%s: the moving average was never updated; --weights online may be what you want", file.path)

    taken, other = (EMA, ONLINE) if ema else (ONLINE, EMA)
    names = {"diffusion." + name: name for name in model.state_dict()}
    wanted = {key.replace(ONLINE, taken, 1) if key.startswith(ONLINE) else key: name for key, name in names.items()}
    twins = {key.replace(taken, other, 1) for key in wanted if key.startswith(taken)}
    left = [key for key in file.state if key not in wanted and key not in twins]
    for key in left:
        if reason := _reason_to_drop(key):
            log.debug("%s: not loaded: %s (%s)", file.path, key, reason)
    expected = model.state_dict()
    _check(file, {key: expected[name] for key, name in wanted.items()}, [k for k in left if not _reason_to_drop(k)])

    state = {name: file.state[key] for key, name in wanted.items()}
    if assign:
        state = {name: _in_memory(name, tensor, device, dtype) for name, tensor in state.items()}
    model.load_state_dict(state, strict=True, assign=assign)


def _check(file: WeightsFile, wanted: Mapping[str, Tensor], extra: list[str]) -> None:
    """InputError that lists what is missing, extra or of another shape."""
    missing = [key for key in wanted if key not in file.state]
    misshaped = [
        f"{key} {tuple(file.state[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in file.state and file.state[key].shape != tensor.shape
    ]
    faults = {"missing": missing, "not of this model": extra, "of another shape": misshaped}
    if any(faults.values()):
        text = "; ".join(f"{len(keys)} keys {fault}: {_listed(keys)}" for fault, keys in faults.items() if keys)
        raise InputError(f"{file.path}: does not fit the model config, expected weights of that architecture: {text}")


def _reason_to_drop(key: str) -> str | None:
    return next((reason for pattern, reason in DROPPED.items() if re.fullmatch(pattern, key)), None)


def _listed(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ", ".join(keys[:10]) + (f", … ({len(keys)} in all)" if len(keys) > 10 else "")


def _in_memory(name: str, tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None) -> Tensor:
    # Rotary frequencies are multiplied by positions in the hundreds: too coarse in half precision.
    if not tensor.is_floating_point() or name.endswith("inv_freq"):
        return tensor.to(device)
    return tensor.to(device, dtype)


def _released_names(model: LatentDiffusion | OobleckVAE | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One set of weights, named as in a file."""
    if isinstance(model, nn.Module):
        prefix = "autoencoder." if isinstance(model, OobleckVAE) else "diffusion."
        return {prefix + name: tensor for name, tensor in model.state_dict().items()}
    averaged = {ONLINE + key.removeprefix(EMA): tensor for key, tensor in model.items() if key.startswith(EMA)}
    return {key: tensor for key, tensor in model.items() if key.startswith(("diffusion.", "autoencoder."))} | averaged


def _on_disk(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    halved = dtype if tensor.is_floating_point() and tensor.numel() >= SMALLEST_HALVED else None
    return tensor.detach().to("cpu", halved).contiguous()


def export(
    source: Path,
    target: Path,
    *,
    weights: Weights = "ema",
    dtype: torch.dtype | None = torch.float16,
    vae: Path | None = None,
) -> None:
    """A checkpoint of a training run, or a released one → one set of its weights, as safetensors with its config.

    dtype: as in `save_model`. vae: a file whose autoencoder takes the place of the checkpoint's.
    Raises InputError if the source does not fit its config or the target cannot be written.
    """
    model, config = load_model(source, weights=weights)
    if vae is not None:
        load_vae_weights(model.pretransform, vae)
    save_model(model, config, target, dtype=dtype)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m diff_v2m.checkpoints", description="Weights files.")
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "export", help="a training checkpoint → model.safetensors, with the model JSON inside"
    )
    command.add_argument("checkpoint", type=Path, help=".ckpt or .safetensors; its model JSON in it or beside it")
    command.add_argument("output", type=Path, help="the .safetensors file to write")
    command.add_argument("--weights", choices=("ema", "online"), default="ema", help="which set (default: %(default)s)")
    command.add_argument("--dtype", choices=DTYPES, default="fp16", help="precision on disk (default: %(default)s)")
    command.add_argument("--pretransform-ckpt-path", "--pretransform_ckpt_path", type=Path,
                         help="take the autoencoder from this file instead: one trained on with a frozen encoder")
    args = parser.parse_args(arguments)
    if args.output.suffix != ".safetensors":
        raise InputError(f"{args.output}: expected a name that ends in .safetensors")
    export(args.checkpoint, args.output, weights=args.weights, dtype=DTYPES[args.dtype],
           vae=args.pretransform_ckpt_path)
    log.info("wrote %s: the %s weights of %s", args.output, args.weights, args.checkpoint)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"diff_v2m.checkpoints: {error}")
