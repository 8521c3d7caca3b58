"""Arrays in files: the same numbers as in memory; a full disk is an error, not the end of the process."""

import os

import numpy as np
import pytest
from helpers import robustness

from diff_v2m.common.errors import InputError
from diff_v2m.common.scratch import BLOCK, Scratch, parts


def test_large_arrays_lie_in_files_that_have_no_name(tmp_path):
    scratch = Scratch(tmp_path, in_memory=1000)
    array = scratch.zeros(2, 3 * BLOCK)
    assert array.dtype == np.float32 and not array.any() and not list(tmp_path.iterdir())
    array += np.arange(3 * BLOCK, dtype=np.float32)
    np.testing.assert_array_equal(scratch.copy(array), array)
    gain = np.linspace(0, 1, 3 * BLOCK, dtype=np.float32)
    np.testing.assert_array_equal(scratch.multiplied(array, gain), array * gain)


def test_parts_cover_everything_once():
    for samples in (0, 1, BLOCK, 2 * BLOCK + 5):
        assert np.concatenate([np.zeros(0), *(np.arange(samples)[part] for part in parts(samples))]).size == samples


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk to fill")
def test_a_full_disk_is_one_line(tmp_path):
    try:
        with robustness.mounted(tmp_path / "disk", "size=65536"), pytest.raises(InputError, match=r"0\.4 GB.*No space"):
            Scratch(tmp_path / "disk", in_memory=0).zeros(100_000_000)
    except OSError as error:
        pytest.skip(f"no file system to fill: {error}")
