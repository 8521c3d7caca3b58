"""`--dtype`: the precision of the diffusion transformer, set once before it runs.

Conditioner, sampler and autoencoder stay float32. bf16 and fp16 cast all weights. int8 and fp8 quantize the attention
and feed-forward layers: their weights once, their inputs at every call.

    float32                 any device
    bf16, fp16              GPUs, and CPUs with instructions for it; other CPUs convert at every product, several times
                            slower than float32
    int8                    CPU: one scale per input tensor. CUDA: one scale per token; the other layers are bf16
    fp8                     CUDA from compute capability 8.9: one scale per token; the other layers are bf16
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diff_v2m.common.errors import InputError
from diff_v2m.config import CAST_DTYPES, DTYPES, QUANTIZED_DTYPES

if TYPE_CHECKING:
    from diff_v2m.model.dit import GuidedDiT

log = logging.getLogger(__name__)

CASTS: dict[str, torch.dtype] = {name: getattr(torch, dtype) for name, dtype in CAST_DTYPES.items()}
QUANTIZED: dict[str, torch.dtype] = {name: getattr(torch, dtype) for name, dtype in QUANTIZED_DTYPES.items()}
CPU_INSTRUCTIONS = {  # keys of torch.cpu.get_capabilities() on x86 and Arm, any of which will do
    "bf16": ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"),
    "fp16": ("avx512_fp16", "amx_fp16", "fp16_arith"),
}
FP8_CAPABILITY = (8, 9)
INT8_MIN_TOKENS = 32  # of a matrix product on CUDA; shorter inputs are padded


def check_precision(dtype: str, device: torch.device) -> None:
    """Raise InputError if the device lacks the precision, and warn if it is slower there than float32."""
    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype}: unknown; expected one of {', '.join(DTYPES)}")
    if dtype in QUANTIZED and device.type not in ("cpu", "cuda") or dtype == "fp8" and device.type == "cpu":
        instead = "int8" if device.type == "cpu" else "bf16"
        raise InputError(f"--dtype {dtype} is not for {device}; there, use {instead}")
    if dtype == "fp8" and torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        raise InputError(f"--dtype fp8: {torch.cuda.get_device_name(device)} has no fp8; use int8 or bf16")
    if device.type == "cpu" and dtype in CPU_INSTRUCTIONS and not cpu_has(dtype):
        _warn_slow(dtype)


@cache  # once, although a run checks before loading and again when it casts
def _warn_slow(dtype: str) -> None:
    log.warning(
        "--dtype %s: this CPU has no instructions for it and converts at every product, which is several times slower "
        "than float32 and takes more memory; --dtype int8 is faster",
        dtype,
    )


def cpu_has(dtype: str) -> bool:
    """Whether this CPU multiplies numbers of this precision."""
    there = torch.cpu.get_capabilities()
    return any(there.get(name) for name in CPU_INSTRUCTIONS[dtype])


def set_precision(network: GuidedDiT, dtype: str, device: torch.device) -> None:
    """Cast or quantize a network, on any device, for use on `device`; see `check_precision`."""
    check_precision(dtype, device)
    if dtype in CASTS:
        network.lower_precision(CASTS[dtype])
    elif device.type == "cpu":
        quantize_per_tensor(network)
    else:
        network.lower_precision(torch.bfloat16)
        quantize_per_token(network, QUANTIZED[dtype])


def is_batch_invariant(dtype: str) -> bool:
    """Whether a clip's music is the same in any batch, to rounding. Quantization amplifies last-bit differences."""
    return dtype not in QUANTIZED


def quantize_per_tensor(network: GuidedDiT) -> None:
    """int8 for the CPU."""
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():  # torch will move this; requirements.txt pins torch
        warnings.filterwarnings("ignore", message=".*(deprecated|quantiz)")
        for part in _quantized_parts(network):
            quantize_dynamic(part, {nn.Linear}, dtype=torch.qint8, inplace=True)


def quantize_per_token(network: GuidedDiT, dtype: torch.dtype) -> None:
    """int8 or fp8 for CUDA. A CPU computes the same numbers, slowly."""
    for part in _quantized_parts(network):
        for parent in list(part.modules()):
            for name, layer in parent.named_children():
                if isinstance(layer, nn.Linear):
                    setattr(parent, name, QuantizedLinear(layer, dtype))


class QuantizedLinear(nn.Module):
    """A linear layer (…, in) → (…, out) with weights and inputs rounded to `dtype`.

    One scale per output of the weights, one per token of the inputs. `in` and `out` are multiples of 16.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype):
        super().__init__()
        weight, scale = _quantize(layer.weight.detach(), dtype)
        self.register_buffer("weight", weight)  # (out, in)
        self.register_buffer("scale", scale.T.contiguous())  # (1, out)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        tokens, scale = _quantize(x.flatten(0, -2), self.weight.dtype)  # (n, in), (n, 1)
        if tokens.dtype == torch.int8:
            padded = F.pad(tokens, (0, 0, 0, max(0, INT8_MIN_TOKENS - len(tokens))))
            # private for want of a public int8 product in torch
            out = torch._int_mm(padded, self.weight.T)[: len(tokens)] * scale * self.scale
        else:
            by_row = F.ScalingType.RowWise
            out = F.scaled_mm(tokens, self.weight.T, scale, by_row, self.scale, by_row, output_dtype=torch.bfloat16)
        out = out.to(x.dtype).unflatten(0, x.shape[:-1])
        return out if self.bias is None else out + self.bias


def _quantize(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x (n, in) → the same in `dtype`, and the float32 scales (n, 1)."""
    largest = 127.0 if dtype == torch.int8 else torch.finfo(dtype).max
    scale = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / largest
    scaled = x / scale
    return (scaled.round() if dtype == torch.int8 else scaled).to(dtype), scale


def _quantized_parts(network: GuidedDiT) -> Iterator[nn.Module]:
    """Attention and feed-forward of every layer: nearly all of the weights."""
    for layer in network.model.transformer.layers:
        yield from (layer.self_attn, layer.cross_attn0, layer.cross_attn1, layer.cross_attn2, layer.ff)
