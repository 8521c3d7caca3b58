"""Flags → Lightning's strategy (how a step is distributed over devices) and precision."""

from __future__ import annotations

import argparse
import importlib.util
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import DeepSpeedStrategy, ModelParallelStrategy, Strategy
from torch import nn

from diff_v2m.common.devices import pick_device
from diff_v2m.common.errors import InputError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

log = logging.getLogger(__name__)

DEEPSPEED = "deepspeed==0.19.8"

# As released, some projections are never called, and some fusions never cross-attend to a stream. Their parameters get
# no gradient, which plain ddp refuses.
DDP = "ddp_find_unused_parameters_true"


def build_strategy(settings: argparse.Namespace) -> str | Strategy:
    """The strategy that the flags ask for. Raises InputError if it needs a package that is not installed."""
    devices = settings.num_gpus * settings.num_nodes
    if settings.strategy is None:
        return DDP if devices > 1 else "auto"
    return STRATEGIES.get(settings.strategy, lambda settings: settings.strategy)(settings)


def _fsdp2(settings: argparse.Namespace) -> Strategy:
    if settings.precision in ("16", "16-mixed"):
        raise InputError("--strategy fsdp2 with --precision 16: expected --precision bf16-mixed or 32")
    # A checkpoint is one file with the whole model, whatever the number of processes.
    return ModelParallelStrategy(
        data_parallel_size=settings.num_gpus * settings.num_nodes,
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,
    )


def _deepspeed(settings: argparse.Namespace) -> Strategy:
    if importlib.util.find_spec("deepspeed") is None:
        raise InputError(
            f"--strategy deepspeed: not installed: pip install '{DEEPSPEED}'; or use --strategy fsdp2, which needs "
            "no extra package and also shards the optimiser's state"
        )
    return DeepSpeedStrategy(stage=2)


STRATEGIES: dict[str, Callable[[argparse.Namespace], str | Strategy]] = {
    "ddp": lambda settings: DDP,
    "fsdp2": _fsdp2,
    "deepspeed": _deepspeed,
}


def apply_fsdp(part: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the weights of a network or of the conditioners over the mesh (FSDP2).

    Each block of a network gathers its weights when it runs, one block at a time.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = mesh["data_parallel"]
    for block in part.model.transformer.layers if hasattr(part, "model") else ():
        fully_shard(block, mesh=mesh)
        register_fsdp_forward_method(block, "keys_values")
    fully_shard(part, mesh=mesh, reshard_after_forward=True)  # the average is updated between forward and backward


class FusedMixedPrecision(MixedPrecision):
    """Mixed precision that unscales and clips the gradients of a fused optimiser before its step.

    Lightning leaves unscaling of fp16 gradients to the fused step, so their norm would be that of scaled gradients, and
    refuses to clip them. A fused step skips overflowed gradients on the device, where others make the host wait.
    """

    def optimizer_step(self, optimizer: Any, model: Any, closure: Callable[[], Any], **kwargs: Any) -> Any:
        def unscaled() -> Any:
            loss = closure()
            self.scaler.unscale_(optimizer)
            return loss

        unscales_here = self.scaler is not None and optimizer.param_groups[0]["fused"]
        return super().optimizer_step(optimizer, model, unscaled if unscales_here else closure, **kwargs)

    def clip_gradients(self, optimizer: Any, clip_val: float = 0.0, *arguments: Any, **kwargs: Any) -> None:
        super(MixedPrecision, self).clip_gradients(optimizer, clip_val, *arguments, **kwargs)


def build_precision(settings: argparse.Namespace) -> tuple[str | None, list[MixedPrecision]]:
    """The Trainer's `precision`, or None and a plugin that replaces it."""
    name = {"16": "16-mixed"}.get(settings.precision, settings.precision)
    if name == "32" or settings.strategy == "deepspeed":
        return name, []
    device = settings.accelerator
    if device == "auto":
        device = pick_device()
    if name == "16-mixed" and device == "cpu":
        log.info("--precision %s: bf16-mixed on a CPU", settings.precision)
        name = "bf16-mixed"
    return None, [FusedMixedPrecision(name, device)]
