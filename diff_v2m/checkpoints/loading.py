"""Weights files → models. Loading is strict: every key and shape must match the model."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from diff_v2m.checkpoints.files import AVERAGED, WeightsFile, listed, read_weights, warn_if_not_averaged
from diff_v2m.common.errors import InputError
from diff_v2m.config import ModelConfig, load_model_config, parse_model_config, whole_model
from diff_v2m.model.dit import LatentDiffusion
from diff_v2m.weights.names import config_names

log = logging.getLogger(__name__)

WeightSet = Literal["ema", "online"]  # a training checkpoint holds both: the moving average and the trained weights

AUTOENCODER_PREFIXES = ("diffusion.pretransform.", "pretransform.", "autoencoder.")

# Keys of a file that are not loaded: pattern of the whole key → reason. The only other keys that are skipped are those
# of the weight set that was not asked for, under names that the model knows.
DROPPED = {
    r"diffusion_ema\.(initted|step)": "progress of the moving average, needed only to resume training",
    r"losses\..*": "weights of the loss terms, needed only in training",
    r"(diffusion\.|diffusion_ema\.ema_)conditioner\.conditioners\.(semantic|rhythm|color)\.proj_out\.(weight|bias)": (
        "a projection that the published code builds and never calls"
    ),
}


def load_model(
    path: str | Path,
    *,
    config: ModelConfig | None = None,
    weights: WeightSet = "ema",
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> tuple[LatentDiffusion, ModelConfig]:
    """The model of a weights file, in evaluation mode, and its config.

    config: replaces the one in the file or in model_config.json beside it. weights: the moving average or the trained
    weights, if the file has both. dtype: default float32, whatever the precision on disk.
    Raises InputError if the file cannot be read, contains code, or does not fit the config.
    """
    file = read_weights(path)
    config = whole_model(config or config_of(file), path)
    with uninitialized():
        model = LatentDiffusion(config)
    load_into(model, file, weights, device=device, dtype=dtype or torch.float32, assign=True)
    return model.eval(), config


@contextlib.contextmanager
def uninitialized() -> Iterator[None]:
    """Build modules without initial values: no memory is written and no random numbers are drawn.

    The meta device would do this too, but arithmetic on it imports torch._dynamo and sympy, which takes seconds.
    """
    with torch.random.fork_rng(devices=[]), _SkipInitialisation():
        yield


class _SkipInitialisation(TorchFunctionMode):
    SKIPPED = (
        nn.init.kaiming_uniform_,
        nn.init.uniform_,
        nn.init.normal_,
        Tensor.uniform_,
        Tensor.normal_,
        Tensor.zero_,
        Tensor.mul_,  # initial values are halved, as released
    )

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func in self.SKIPPED:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def load_vae_weights(vae: nn.Module, path: str | Path, *, measured: bool = True) -> None:
    """Fill an autoencoder from Stable Audio's model, one of ours, or a training checkpoint of either kind.

    Keys outside the autoencoder are ignored; inside it, loading is strict. measured: refuse latent statistics of 0 and
    1, which an autoencoder has until its training ends. An error leaves the autoencoder unchanged.
    """
    file = read_weights(path)
    prefix = next((p for p in AUTOENCODER_PREFIXES if any(key.startswith(p) for key in file.state)), None)
    if prefix is None:
        raise InputError(
            f"{path}: holds no autoencoder; expected keys that start with {' or '.join(AUTOENCODER_PREFIXES)}, "
            f"got {listed(file.state)}"
        )
    wanted = {prefix + name: tensor for name, tensor in vae.state_dict().items()}
    extra = [key for key in file.state if key.startswith(prefix) and key not in wanted]
    _check(file, wanted, extra)
    state = {key.removeprefix(prefix): file.state[key] for key in wanted}
    if measured and "latent_std" in state and not state["latent_mean"].any() and state["latent_std"].eq(1).all():
        raise InputError(
            f"{path}: latent_mean is 0 and latent_std 1, as in a checkpoint; training measures them at its end; "
            "give the run's model.safetensors, or write one, where N is the checkpoint's step: "
            f"train.py --ckpt-path {path} --max-steps N"
        )
    vae.load_state_dict(state)


def check_resumable(path: str | Path, module: nn.Module) -> None:
    """InputError unless the file is a checkpoint from which training of this module can resume."""
    file = read_weights(path)
    if not file.resumable:
        raise InputError(
            f"{path}: holds weights alone; a run can start from it (--pretrained-ckpt-path), but not resume"
        )
    wanted = module.state_dict()
    _check(file, wanted, [key for key in file.state if key not in wanted])


def config_of(file: WeightsFile) -> ModelConfig:
    """The config in the file or beside it. Raises InputError if there is none."""
    if (config := find_config(file)) is not None:
        return config
    beside = file.path.parent / "model_config.json"
    raise InputError(f"{file.path}: has no model config; give --model_config_path, or put it beside it as {beside}")


def find_config(file: WeightsFile) -> ModelConfig | None:
    """The config in the file or beside it; None if there is none."""
    if file.raw_config is not None:
        return parse_model_config(file.raw_config, f"{file.path} (model_config in it)")
    beside = (file.path.parent / name for name in config_names(file.path.name))
    return next((load_model_config(path) for path in beside if path.is_file()), None)


class Loaded(NamedTuple):
    """Result of loading with optional keys."""

    taken: int  # tensors loaded
    absent: list[str]  # keys of the model that the file lacks
    unexpected: list[str]  # keys of the file that the model lacks


def load_into(
    model: LatentDiffusion,
    file: WeightsFile,
    weights: WeightSet,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    assign: bool = False,
    optional: Collection[str] = (),
) -> Loaded:
    """Fill a model from one weight set of a file.

    assign: use the file's tensors themselves (in dtype, on device) instead of copying their values. optional: patterns
    of keys that may be missing on either side; such weights of the model keep their values.
    Raises InputError, and changes nothing, if anything else does not fit.
    """
    if file.adapters is not None:
        raise InputError(
            f"{file.path}: holds low-rank adapters alone; merge them with python -m diff_v2m.checkpoints export"
        )
    prefixes = {
        online: averaged
        for online, averaged in AVERAGED.items()
        if weights == "ema" and any(key.startswith(averaged) for key in file.state)
    }
    if weights == "ema" and not prefixes:
        log.debug("%s has no moving average; using its only weights", file.path)
    if prefixes:
        warn_if_not_averaged(file.state, file.path)

    expected = model.state_dict()
    online = {"diffusion." + name: name for name in expected}
    wanted = {_renamed(key, prefixes): name for key, name in online.items()}
    known = online.keys() | {_renamed(key, AVERAGED) for key in online}
    dropped = {key: reason for key in file.state if key not in known and (reason := _reason_to_drop(key))}
    for key, reason in dropped.items():
        log.debug("%s: not loaded: %s (%s)", file.path, key, reason)
    unexpected = [key for key in file.state if key not in known and key not in dropped]
    absent = [key for key in wanted if key not in file.state and _matches(key, optional)]

    required = {key: expected[name] for key, name in wanted.items() if key not in absent}
    _check(file, required, [key for key in unexpected if not _matches(key, optional)])
    state = {wanted[key]: file.state[key] for key in required}
    if assign:
        state = {name: _in_memory(name, tensor, device, dtype) for name, tensor in state.items()}
    kept = {wanted[key]: expected[wanted[key]] for key in absent}
    model.load_state_dict(kept | state, strict=True, assign=assign)
    return Loaded(len(state), absent, unexpected)


def _renamed(key: str, prefixes: Mapping[str, str]) -> str:
    """The key with its prefix replaced, if it has one of these."""
    old = next((old for old in prefixes if key.startswith(old)), None)
    return key if old is None else prefixes[old] + key.removeprefix(old)


def _matches(key: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern matches the key's name among the trained weights."""
    online = _renamed(key, {averaged: online for online, averaged in AVERAGED.items()})
    return any(re.fullmatch(pattern, online) for pattern in patterns)


def _check(file: WeightsFile, wanted: Mapping[str, Tensor], extra: list[str]) -> None:
    """Raise an InputError that lists missing, extra and misshaped keys, if there are any."""
    missing = [key for key in wanted if key not in file.state]
    misshaped = [
        f"{key} {tuple(file.state[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in file.state and file.state[key].shape != tensor.shape
    ]
    faults = {"missing": missing, "not of this model": extra, "of another shape": misshaped}
    if any(faults.values()):
        text = "; ".join(f"{len(keys)} keys {fault}: {listed(keys)}" for fault, keys in faults.items() if keys)
        raise InputError(f"{file.path}: does not fit the model config, expected weights of that architecture: {text}")


def _reason_to_drop(key: str) -> str | None:
    return next((reason for pattern, reason in DROPPED.items() if re.fullmatch(pattern, key)), None)


def _in_memory(name: str, tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None) -> Tensor:
    # Rotary frequencies are multiplied by positions in the hundreds, for which half precision is too coarse.
    if not tensor.is_floating_point() or name.endswith("inv_freq"):
        return tensor.to(device)
    return tensor.to(device, dtype)
