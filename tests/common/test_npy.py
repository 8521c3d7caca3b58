"""Arrays read by several threads at once; thread switches within the parser are made likely."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest

from diff_v2m.common.files import parse_npy, read_npz


class Garbage:
    """Its collection runs Python code, so another thread may run at any point. It creates new garbage."""

    def __init__(self, renewed: list[bool]) -> None:
        self.itself, self.renewed = self, renewed

    def __del__(self) -> None:
        if self.renewed:
            Garbage(self.renewed)


@pytest.fixture
def busy_threads():
    interval, threshold, renewed = sys.getswitchinterval(), gc.get_threshold(), [True]
    sys.setswitchinterval(1e-6)
    gc.set_threshold(2)
    for _ in range(8):
        Garbage(renewed)
    yield
    renewed.clear()
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)


def at_depth(depth, call, *args):
    return call(*args) if depth == 0 else at_depth(depth - 1, call, *args)


def test_threads_parse_at_the_same_time(busy_threads, tmp_path):
    array, file = np.arange(8, dtype=np.float32).reshape(2, 4), BytesIO()
    np.save(file, array)
    np.savez(tmp_path / "arrays.npz", array=array)

    def read(depth: int) -> bool:
        for _ in range(100):
            one = at_depth(depth, parse_npy, file.getvalue())
            other = at_depth(depth, read_npz, tmp_path / "arrays.npz")["array"]
            if not (np.array_equal(one, array) and np.array_equal(other, array)):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(0, 56, 7)))
