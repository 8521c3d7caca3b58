"""Warnings of libraries that mean nothing to our users, kept from them."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_FILTERS = threading.Lock()  # they are the whole process's, and results are written by several threads


@contextmanager
def quiet(message: str = "") -> Iterator[None]:
    """Ignore warnings that begin with this pattern; one block at a time."""
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message)
        yield
