"""Operations that make the host wait for a GPU, found on the CPU: reading a value back, or a blocking copy."""

import traceback

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# .item(), bool(), float() of a tensor; shapes that depend on values; torch.tensor(value), copied to a device
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "_unique2", "is_nonzero", "equal")


def waits_for_copy(tensor, *, device=None, non_blocking=False, **_) -> bool:
    """Whether the host waits until a tensor has arrived on another device."""
    return device is not None and tensor.device.type != torch.device(device).type and not non_blocking


class HostReads(TorchDispatchMode):
    """List in `found` every such operation, with the lines that called it."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
        name = str(function).split(".")[1]
        if name in WAITING or name == "_to_copy" and waits_for_copy(arguments[0], **kwargs or {}):
            frames = [f for f in traceback.extract_stack() if "torch/utils/_python_dispatch" not in f.filename]
            self.found.append(f"{name} at " + " < ".join(f"{f.filename}:{f.lineno}" for f in frames[-2:-6:-1]))
        return function(*arguments, **(kwargs or {}))
