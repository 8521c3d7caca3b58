"""The precision in which the diffusion transformer computes, set once before it works: `--dtype`.

Conditioner, sampler and autoencoder around it stay float32. bf16 and fp16 are casts of the weights; int8 and fp8 are of
its large layers alone, weights once and activations as they come:

    float32, bf16, fp16     anywhere
    int8                    CPU: one scale for all that a layer is given. CUDA: one for each token, the rest in bf16
    fp8                     CUDA from compute capability 8.9: one scale for each token, the rest in bf16
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from diff_v2m.errors import InputError

if TYPE_CHECKING:
    from diff_v2m.model import GuidedDiT

CASTS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FP8_CAPABILITY = (8, 9)


def set_precision(network: GuidedDiT, dtype: str, device: torch.device) -> None:
    """Prepare a network, wherever it is now, to work on `device`. Raises InputError where that cannot be done."""
    if dtype in CASTS:
        network.lower_precision(CASTS[dtype])
    elif dtype == "int8" and device.type == "cpu":
        quantize_by_layer(network)
    elif device.type == "cuda":
        if dtype == "fp8" and torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
            raise InputError(f"--dtype fp8: {torch.cuda.get_device_name(device)} has no fp8; use int8 or bf16")
        network.lower_precision(stored(dtype, device))
        quantize_by_token(network, dtype)
    else:
        instead = "int8" if device.type == "cpu" else "bf16"
        raise InputError(f"--dtype {dtype} is not for {device}; there, use {instead}")


def stored(dtype: str, device: torch.device) -> torch.dtype:
    """What the layers that are not quantized compute in; no weight takes more."""
    return CASTS.get(dtype, torch.float32 if device.type == "cpu" else torch.bfloat16)


def rounds_coarsely(dtype: str) -> bool:
    """Whether clips made together would change each other's music: what order of summation does to the last bit of a
    float32, rounding to int8 or fp8 makes a step of."""
    return dtype not in CASTS


def quantize_by_layer(network: GuidedDiT) -> None:
    """int8 for the CPU."""
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():  # of a day when torch will have it elsewhere; requirements.txt pins torch
        warnings.filterwarnings("ignore", message=".*(deprecated|quantiz)")
        for part in _large_parts(network):
            quantize_dynamic(part, {nn.Linear}, dtype=torch.qint8, inplace=True)


def quantize_by_token(network: GuidedDiT, dtype: str) -> None:
    """int8 or fp8 for CUDA. (torchao has this int8 for the CPU as well, correct and very slow.)"""
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        Int8DynamicActivationInt8WeightConfig,
        PerRow,
        quantize_,
    )

    if dtype == "int8":
        scheme = Int8DynamicActivationInt8WeightConfig()
    else:
        scheme = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())
    for part in _large_parts(network):
        quantize_(part, scheme)


def _large_parts(network: GuidedDiT) -> Iterator[nn.Module]:
    """Attention and feed-forward of every layer."""
    for layer in network.model.transformer.layers:
        yield from (layer.self_attn, layer.cross_attn0, layer.cross_attn1, layer.cross_attn2, layer.ff)
