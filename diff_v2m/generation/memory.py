"""Where the parts of a model are, and how much work is done at a time, when the device's memory is short."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator

import torch
from torch import nn

from diff_v2m.common.errors import InputError
from diff_v2m.common.scratch import Scratch
from diff_v2m.model.dit import LatentDiffusion
from diff_v2m.model.precision import cpu_has

log = logging.getLogger(__name__)

LARGE = 500_000_000  # weights from which a lower precision is faster on a CPU
FIRST_CHUNK, SHORTEST_CHUNK = 5.0, 1.0  # seconds decoded at a time when memory runs out


class Memory:
    """When the device runs out of memory, the work is cut into smaller parts; these limits then stay."""

    def __init__(self, model: LatentDiffusion, device: torch.device, *, offload: bool):
        self.model, self.device, self.offload = model, device, offload
        self.most_windows: int | None = None  # denoised together; None: as many as asked for
        self.longest_chunk = math.inf  # seconds decoded at a time
        self.scratch = Scratch()  # where the sound of long clips lies

    @contextlib.contextmanager
    def on_device(self, part: nn.Module) -> Iterator[None]:
        """With `offload`, a part of the model is on the device inside this block only."""
        try:
            if self.offload:
                part.to(self.device)
            yield
        finally:
            if self.offload:
                part.to("cpu")

    def fewer_windows(self, tried: int, name: str) -> None:
        """After running out of memory with so many windows. Raises InputError if nothing is left to reduce."""
        if tried > 1:
            self.most_windows = tried // 2
            log.warning("out of memory: at most %d windows are denoised together", self.most_windows)
            self._free_cache()
        elif not self.offload:
            self._start_offloading()
        else:
            raise InputError(
                f"{name}: out of memory with one window, although the model is offloaded; use --dtype bf16 or another "
                "--device"
            )

    def shorter_chunks(self, seconds: float, name: str) -> None:
        """After running out of memory while `seconds` were decoded. Raises InputError if nothing is left to reduce."""
        if seconds > SHORTEST_CHUNK:
            self.longest_chunk = min(FIRST_CHUNK, max(SHORTEST_CHUNK, seconds / 2))
            log.warning("out of memory: at most %g s are decoded at a time", self.longest_chunk)
            self._free_cache()
        elif not self.offload:
            self._start_offloading(at_work=self.model.pretransform)
        else:
            raise InputError(f"{name}: out of memory while decoding {seconds:g} s; use another --device")

    def _start_offloading(self, at_work: nn.Module | None = None) -> None:
        log.warning("out of memory: each part of the model is on the device only while it works, as with --offload")
        self.offload = True
        for part in (self.model.conditioner, self.model.model, self.model.pretransform):
            if part is not at_work:
                part.to("cpu")
        self._free_cache()

    def _free_cache(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def advise_for_cpu(model: LatentDiffusion, dtype: str, offload: bool) -> None:
    """Say which flags have no effect, or would help, on a CPU."""
    if offload:
        log.warning("--offload: has no effect on a CPU, where the whole model is in one memory")
    if dtype == "float32" and sum(parameter.numel() for parameter in model.model.parameters()) > LARGE:
        faster = "bf16 0.5 of the time, with int8 0.3" if cpu_has("bf16") else "int8 0.6 of the time"
        log.info("on this CPU a step of this model takes with --dtype %s; the music differs slightly", faster)
