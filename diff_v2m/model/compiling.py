"""`--compile`: torch.compile of the network, block by block.

All blocks share their code, so one compilation serves all of them, and names in checkpoints do not change. Kernels are
not autotuned: their choice could change the music of a request. CUDA graphs are not used: a graph holds the weights of
one block.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from diff_v2m.common.errors import InputError

if TYPE_CHECKING:
    from diff_v2m.model.dit import GuidedDiT

COMPILERS = ("g++", "gcc", "clang++", "clang")
VARIANTS = 64  # compiled versions of a block: side of a hard fusion × guidance × number of clips; torch's default is 8


def compile_blocks(network: GuidedDiT, **options: str) -> None:
    """Mark the blocks for compilation, which happens at the first call and for every new shape.

    Options as of torch.compile. Raises InputError if there is no C++ compiler.
    """
    check_compiler()
    for block in network.model.transformer.layers:
        block.compile(recompile_limit=VARIANTS, **options)


def check_compiler() -> None:
    """Raise InputError if there is no C++ compiler."""
    wanted = [name for name in (os.environ.get("CXX"), os.environ.get("CC")) if name] or COMPILERS
    if not any(map(shutil.which, wanted)):
        raise InputError(
            f"--compile: no C++ compiler found ({', '.join(wanted)}); install g++, name another by CXX=…, "
            "or omit --compile"
        )


@contextmanager
def compiler_errors(compiled: bool) -> Iterator[None]:
    """A failure of the compiler inside becomes an InputError."""
    try:
        yield
    except RuntimeError as error:
        if not (compiled and isinstance(error, torch._dynamo.exc.BackendCompilerFailed)):
            raise
        reason = str(error.inner_exception).strip().partition("\n")[0]
        raise InputError(f"--compile: torch cannot compile the network ({reason}); omit --compile") from None
