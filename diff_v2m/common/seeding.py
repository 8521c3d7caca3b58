"""Seeds derived from names and indices, so that results do not depend on the order of work or on other work.

There are three formulas: for music, order of batches, and encoded latents. They must not change, because results depend
on them.
"""

import hashlib
import zlib

import numpy as np


def noise_seed(seed: int, name: str, variation: int, window: int) -> int:
    """56 bits for the noise of one window of a clip: SHA-256, since names are arbitrary and many."""
    digest = hashlib.sha256(f"{seed}\n{name}\n{variation}\n{window}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def mixed_seed(*numbers: int) -> int:
    """32 bits from non-negative numbers such as (seed, epoch, item): order and noise of training batches."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def text_seed(*parts: object) -> int:
    """32 bits from text, CRC-32 of the parts joined by blanks: crops and posterior noise of a clip.

    A file name that is not UTF-8 counts with its own bytes.
    """
    return zlib.crc32(" ".join(map(str, parts)).encode(errors="surrogateescape"))
