"""torch.compile of the network, block by block: `--compile`.

All blocks are alike, so that one is compiled, and names in checkpoints stay. No CUDA graphs: a graph would be of one
block's weights.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from diff_v2m.errors import InputError

if TYPE_CHECKING:
    from diff_v2m.model import GuidedDiT

FOR_SAMPLING = {"cpu": {}, "mps": {}, "cuda": {"mode": "max-autotune-no-cudagraphs"}}  # by type of device


def compile_blocks(network: GuidedDiT, **options: str) -> None:
    """Options as of torch.compile; it happens when a block is first used. Raises InputError."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # as torch looks for it
    if shutil.which(compiler) is None:
        raise InputError(f"--compile: no C++ compiler, {compiler}, found; install it, name another by CXX=…, or leave "
                         "--compile out")  # fmt: skip
    for block in network.model.transformer.layers:
        block.compile(**options)
