"""InputError, which reaches the user as one line, and warnings of libraries, which do not reach the user."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line and says what was given, what was expected and what to do, naming the file, key or clip.
    Command lines print it and exit with status 1; it never reaches a user as a traceback.
    """


_FILTERS = threading.Lock()  # warning filters belong to the process, and results are written by several threads


@contextmanager
def ignore_warnings(message: str = "") -> Iterator[None]:
    """Ignore warnings that begin with this pattern; one thread at a time."""
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message)
        yield
