"""The device that a command works on, from its flag `--device`.

Commands check it before they work: torch answers an unknown or missing device with a traceback.
"""

from diff_v2m.common.errors import InputError


def pick_device(name: str = "auto") -> str:
    """auto → the fastest device available: cuda, mps or cpu. Other names are returned as they are.

    Raises InputError for a name that torch does not know and for a device that is not here.
    """
    import torch  # imported here: --help does without

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name}: expected auto, cpu, cuda, cuda:1 or mps; use --device auto") from None
    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    count = counts.get(device.type, 0)
    if count == 0:
        raise InputError(f"--device {name}: not available here; use --device auto or cpu")
    if (device.index or 0) >= count or str(device) != name:  # torch keeps 8 bits of the index
        raise InputError(f"--device {name}: the last one here is {device.type}:{count - 1}; use --device auto or cpu")
    return name
