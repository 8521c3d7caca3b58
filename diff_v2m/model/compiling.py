"""torch.compile of the network, block by block: `--compile`.

All blocks are alike, so that one is compiled, and names in checkpoints stay. Kernels are not chosen by timing them,
which could make other music of the same request; no CUDA graphs either: one would be of a single block's weights.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import torch

from diff_v2m.common.errors import InputError

if TYPE_CHECKING:
    from diff_v2m.model.dit import GuidedDiT

COMPILERS = ("g++", "gcc", "clang++", "clang")
VARIANTS = 64  # of a block: side of the choice between semantics and rhythm, guidance, number of clips. torch allows 8


def compile_blocks(network: GuidedDiT, **options: str) -> None:
    """Options as of torch.compile; it happens when a block meets something new. Raises InputError."""
    wanted = [name for name in (os.environ.get("CXX"), os.environ.get("CC")) if name] or COMPILERS
    if not any(map(shutil.which, wanted)):
        raise InputError(
            f"--compile: no C++ compiler found ({', '.join(wanted)}); install g++, name another by CXX=…, "
            "or leave --compile out"
        )
    torch._dynamo.config.suppress_errors = False  # stable-audio-tools sets it: what fails would quietly not be compiled
    torch._dynamo.config.recompile_limit = max(VARIANTS, torch._dynamo.config.recompile_limit)
    for block in network.model.transformer.layers:
        block.compile(**options)
