"""The cache of arrays computed from files."""

import numpy as np
import pytest
from helpers.eval_toys import music, write

from diff_v2m.common.cache import Cache
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash


def test_a_file_is_computed_once_for_each_maker_whatever_its_name(tmp_path):
    cache, calls = Cache(tmp_path / "cache"), []
    first, copy = write(tmp_path / "a.wav", music(0, 1)), write(tmp_path / "copy.wav", music(0, 1))

    def compute():
        calls.append(1)
        return {"frames": np.arange(3.0)}

    for path, maker in ((first, "one"), (first, "one"), (copy, "one"), (first, "two")):
        np.testing.assert_array_equal(cache.get(path, maker, compute)["frames"], [0, 1, 2])
    assert len(calls) == 2
    before = content_hash(first)
    write(first, music(1, 1))
    assert content_hash(first) != before
    cache.get(first, "one", compute)
    assert len(calls) == 3
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".npz" or path.name.startswith(".")]


def test_a_damaged_entry_is_computed_again_and_a_failure_leaves_none(tmp_path):
    cache, path = Cache(tmp_path / "cache"), write(tmp_path / "a.wav", music(0, 1))
    with pytest.raises(InputError):
        cache.get(path, "m", lambda: (_ for _ in ()).throw(InputError("no")))
    assert not (tmp_path / "cache").exists()
    cache.get(path, "m", lambda: {"x": np.ones(2)})
    entry = next((tmp_path / "cache").iterdir())
    entry.write_bytes(entry.read_bytes()[:40])
    np.testing.assert_array_equal(cache.get(path, "m", lambda: {"x": np.zeros(2)})["x"], [0, 0])


def test_without_a_folder_everything_is_computed(tmp_path):
    path = write(tmp_path / "a.wav", music(0, 1))
    assert [Cache(None).get(path, "m", lambda k=k: {"x": k})["x"] for k in (1, 2)] == [1, 2]
