"""Reading numpy's files from several threads at once.

numpy reads a header with `ast.literal_eval`, and in some releases of Python 3.11 two threads that parse at the same
time may both fail with "AST constructor recursion depth mismatch" (python/cpython gh-106905).
"""

from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np

_parsing = Lock()


def parse_npy(content: bytes) -> np.ndarray:
    """The array in the bytes of a .npy file. Raises ValueError or EOFError if they are not one."""
    with _parsing:
        return np.load(BytesIO(content), allow_pickle=False)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file. Raises OSError, ValueError, EOFError or BadZipFile if it cannot be read as one."""
    with _parsing, np.load(path, allow_pickle=False) as stored:
        return dict(stored)
