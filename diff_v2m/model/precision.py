"""The precision in which the diffusion transformer computes, set once before it works: `--dtype`.

Conditioner, sampler and autoencoder around it stay float32. bf16 and fp16 are casts of the weights; int8 and fp8 are of
its large layers alone, weights once and what a layer is given as it comes:

    float32, bf16, fp16     anywhere
    int8                    CPU: one scale for all that a layer is given. CUDA: one for each token, the rest in bf16
    fp8                     CUDA from compute capability 8.9: one scale for each token, the rest in bf16
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diff_v2m.common.errors import InputError

if TYPE_CHECKING:
    from diff_v2m.model.dit import GuidedDiT

CASTS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
QUANTIZED = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
FP8_CAPABILITY = (8, 9)
FEWEST_ROWS = 32  # that CUDA multiplies in int8; shorter inputs are filled up


def set_precision(network: GuidedDiT, dtype: str, device: torch.device) -> None:
    """Prepare a network, wherever it is now, to work on `device`. Raises InputError where that cannot be done."""
    if dtype in CASTS:
        network.lower_precision(CASTS[dtype])
    elif dtype not in QUANTIZED:
        raise InputError(f"--dtype {dtype}: unknown; expected one of {', '.join([*CASTS, *QUANTIZED])}")
    elif dtype == "int8" and device.type == "cpu":
        quantize_by_layer(network)
    elif device.type == "cuda":
        if dtype == "fp8" and torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
            raise InputError(f"--dtype fp8: {torch.cuda.get_device_name(device)} has no fp8; use int8 or bf16")
        network.lower_precision(stored(dtype, device))
        quantize_by_token(network, QUANTIZED[dtype])
    else:
        instead = "int8" if device.type == "cpu" else "bf16"
        raise InputError(f"--dtype {dtype} is not for {device}; there, use {instead}")


def stored(dtype: str, device: torch.device) -> torch.dtype:
    """What the layers that are not quantized compute in; no weight takes more."""
    return CASTS.get(dtype, torch.float32 if device.type == "cpu" else torch.bfloat16)


def rounds_coarsely(dtype: str) -> bool:
    """Whether clips made together would change each other's music: what order of summation does to the last bit of a
    float32, rounding to int8 or fp8 makes a step of."""
    return dtype in QUANTIZED


def quantize_by_layer(network: GuidedDiT) -> None:
    """int8 for the CPU."""
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():  # that torch will move this; requirements.txt pins torch
        warnings.filterwarnings("ignore", message=".*(deprecated|quantiz)")
        for part in _large_parts(network):
            quantize_dynamic(part, {nn.Linear}, dtype=torch.qint8, inplace=True)


def quantize_by_token(network: GuidedDiT, dtype: torch.dtype) -> None:
    """int8 or fp8 for CUDA. (A CPU computes the same, very slowly.)"""
    for part in _large_parts(network):
        for parent in list(part.modules()):
            for name, layer in parent.named_children():
                if isinstance(layer, nn.Linear):
                    setattr(parent, name, QuantizedLinear(layer, dtype))


class QuantizedLinear(nn.Module):
    """A linear layer whose weights and inputs are rounded to `dtype`, with a scale for every output and every token:
    (…, in) → (…, out). `in` and `out` are multiples of 16."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype):
        super().__init__()
        weight, scale = _rounded(layer.weight.detach(), dtype)
        self.register_buffer("weight", weight)  # (out, in)
        self.register_buffer("scale", scale.T.contiguous())  # (1, out)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        tokens, scale = _rounded(x.flatten(0, -2), self.weight.dtype)
        if tokens.dtype == torch.int8:
            filled = F.pad(tokens, (0, 0, 0, max(0, FEWEST_ROWS - len(tokens))))
            out = torch._int_mm(filled, self.weight.T)[: len(tokens)] * scale * self.scale
        else:
            by_row = F.ScalingType.RowWise
            out = F.scaled_mm(tokens, self.weight.T, scale, by_row, self.scale, by_row, output_dtype=torch.bfloat16)
        out = out.to(x.dtype).unflatten(0, x.shape[:-1])
        return out if self.bias is None else out + self.bias


def _rounded(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows (n, in) → the same in `dtype`, and the float32 scale (n, 1) of each."""
    largest = 127.0 if dtype == torch.int8 else torch.finfo(dtype).max
    scale = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / largest
    scaled = x / scale
    return (scaled.round() if dtype == torch.int8 else scaled).to(dtype), scale


def _large_parts(network: GuidedDiT) -> Iterator[nn.Module]:
    """Attention and feed-forward of every layer."""
    for layer in network.model.transformer.layers:
        yield from (layer.self_attn, layer.cross_attn0, layer.cross_attn1, layer.cross_attn2, layer.ff)
