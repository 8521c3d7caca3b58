"""What makes a program wait for its GPU, told on the CPU: values that the host reads back, or makes to be sent."""

import traceback

from torch.utils._python_dispatch import TorchDispatchMode

# .item(), bool(), float() of a tensor; shapes that depend on values; torch.tensor(value), which is copied to a device
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "_unique2", "is_nonzero", "equal")


class HostReads(TorchDispatchMode):
    """Notes in `found` every such operation, with the line of ours that it comes from."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
        name = str(function).split(".")[1]
        if name in WAITING:
            frames = [f for f in traceback.extract_stack() if "torch/utils/_python_dispatch" not in f.filename]
            self.found.append(f"{name} at " + " < ".join(f"{f.filename}:{f.lineno}" for f in frames[-2:-6:-1]))
        return function(*arguments, **(kwargs or {}))
