"""How a step is spread over devices, and in what precision: flags → Lightning's strategy and precision."""

from __future__ import annotations

import argparse
import importlib.util
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import DeepSpeedStrategy, ModelParallelStrategy, Strategy
from torch import nn

from diff_v2m.common.errors import InputError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

log = logging.getLogger(__name__)

DEEPSPEED = "deepspeed==0.19.8"

# As released, the model has projections that nothing calls, and some fusions never listen to a stream: their parameters
# get no gradient, and plain ddp stops at that.
DDP = "ddp_find_unused_parameters_true"


def build_strategy(settings: argparse.Namespace) -> str | Strategy:
    """The strategy of these flags. Raises InputError for one that needs what is not installed."""
    devices = settings.num_gpus * settings.num_nodes
    if settings.strategy is None:
        return DDP if devices > 1 else "auto"
    return STRATEGIES.get(settings.strategy, lambda settings: settings.strategy)(settings)


def _fsdp2(settings: argparse.Namespace) -> Strategy:
    if settings.precision in ("16", "16-mixed"):
        raise InputError("--strategy fsdp2 with --precision 16: expected --precision bf16-mixed or 32")
    # one file for the whole model, whatever the number of processes, like any other checkpoint
    return ModelParallelStrategy(
        data_parallel_size=settings.num_gpus * settings.num_nodes,
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,
    )


def _deepspeed(settings: argparse.Namespace) -> Strategy:
    if importlib.util.find_spec("deepspeed") is None:
        raise InputError(
            f"--strategy deepspeed: not installed: pip install '{DEEPSPEED}'; or use --strategy fsdp2, which needs "
            "nothing more and also deals the optimiser's state out to the GPUs"
        )
    return DeepSpeedStrategy(stage=2)


STRATEGIES: dict[str, Callable[[argparse.Namespace], str | Strategy]] = {
    "ddp": lambda settings: DDP,
    "fsdp2": _fsdp2,
    "deepspeed": _deepspeed,
}


def shard(part: nn.Module, mesh: DeviceMesh) -> None:
    """Let each process of the mesh keep its share of every weight of a network or of the conditioners (FSDP2).

    The blocks of a network gather their weights one at a time, each time they are used.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = mesh["data_parallel"]
    for block in part.model.transformer.layers if hasattr(part, "model") else ():
        fully_shard(block, mesh=mesh)
        register_fsdp_forward_method(block, "keys_values")
    fully_shard(part, mesh=mesh, reshard_after_forward=True)  # the average is updated between forward and backward


class FusedMixedPrecision(MixedPrecision):
    """Mixed precision in which a fused optimiser's gradients are measured and clipped like those of any other.

    Lightning leaves unscaling fp16 gradients to such an optimiser's step, so that before it they are scaled, and
    refuses to clip them, bf16 ones too. The fused step leaves out by itself what overflowed, where others make the host
    wait to know.
    """

    def optimizer_step(self, optimizer: Any, model: Any, closure: Callable[[], Any], **kwargs: Any) -> Any:
        if self.scaler is None:
            return super().optimizer_step(optimizer, model, closure, **kwargs)
        closure()
        self.scaler.unscale_(optimizer)
        self._after_closure(model, optimizer)
        output = self.scaler.step(optimizer, **kwargs)
        self.scaler.update()
        return output

    def clip_gradients(self, optimizer: Any, clip_val: float = 0.0, *arguments: Any, **kwargs: Any) -> None:
        super(MixedPrecision, self).clip_gradients(optimizer, clip_val, *arguments, **kwargs)


def build_precision(settings: argparse.Namespace) -> tuple[str | None, list[MixedPrecision]]:
    """The Trainer's `precision`, or None and a plugin in its place."""
    name = {"16": "16-mixed"}.get(settings.precision, settings.precision)
    if name == "32" or settings.strategy == "deepspeed":
        return name, []
    device = settings.accelerator
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "16-mixed" and device == "cpu":
        log.info("--precision %s: bf16-mixed on a CPU", settings.precision)
        name = "bf16-mixed"
    return None, [FusedMixedPrecision(name, device)]
