"""Derived seeds are pinned: results of a seed, batches of an epoch and latents on disk depend on them."""

import os
import zlib

from diff_v2m.common.seeding import mixed_seed, noise_seed, text_seed


def test_seeds_are_pinned():
    assert noise_seed(42, "clip", 1, 0) == 33840905705840051
    assert mixed_seed(42, 3) == 2541583436 and mixed_seed(42, 0, 1, 2) == 2886031247
    assert text_seed("a", 3, True) == 2306547832 and text_seed("a") == 3904355907


def test_a_name_that_is_not_utf8_has_the_seed_of_its_bytes():
    assert text_seed(os.fsdecode(b"caf\xe9"), 3) == zlib.crc32(b"caf\xe9 3")
