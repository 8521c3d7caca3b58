"""Decoding in a process of its own: a decoder that dies, hangs or eats memory spoils one video, not the run.

The process is a fork, which starts in milliseconds and knows what its parent knows. It computes one iterator and sends
the items, pickled, through a pipe. It calls neither torch nor OpenMP, and imports nothing: where another thread of the
parent was importing the same module at the fork, the import in the fork never ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from diff_v2m.common.errors import InputError

SILENCE = 300.0  # seconds without an item after which a decoder is taken to hang
MEMORY_BYTES = 4 << 30  # that a decoder may need beside what its parent has

Item = TypeVar("Item")


def isolated(path: Path, make: Callable[[], Iterator[Item]]) -> Iterator[Item]:
    """The items of `make()`, computed in another process. Raises InputError if it dies, and whatever `make` raises."""
    if not hasattr(os, "fork"):
        yield from make()
        return
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _send(writing, make)
    os.close(writing)
    finished = False
    try:
        with open(reading, "rb") as answers:
            while True:
                kind, value = _receive(answers, path)
                if kind == "item":
                    yield value
                    continue
                finished = True
                if kind == "error":
                    raise value
                return
    except EOFError:
        finished = True
        _, status = os.waitpid(child, 0)
        reason = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit status {status >> 8}"
        child = 0
        raise InputError(
            f"{path}: its decoder died ({reason}); the file is damaged; convert it or copy it again"
        ) from None
    finally:
        if child:
            if not finished:  # nobody wants the rest, or it hangs
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def isolated_call(path: Path, work: Callable[[], Item]) -> Item:
    """`work()`, computed in another process, as `isolated` does."""
    (result,) = isolated(path, lambda: iter([work()]))
    return result


def _receive(answers: BinaryIO, path: Path) -> tuple:
    if not select.select([answers], [], [], SILENCE)[0]:
        raise InputError(f"{path}: its decoder hangs; the file is damaged; convert it or copy it again")
    return pickle.load(answers)


def _send(writing: int, make: Callable[[], Iterator]) -> None:
    """Compute and send everything, and end the process without what its parent would clean up."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _limit_memory()
        with open(writing, "wb") as answers:
            try:
                for item in make():
                    pickle.dump(("item", item), answers, protocol=5)
                    answers.flush()
                last: tuple[str, Exception | None] = ("end", None)
            except Exception as error:
                last = ("error", _picklable(error))
            pickle.dump(last, answers, protocol=5)
        status = 0
    except BaseException:  # the pipe is closed: nobody listens
        status = 1
    finally:
        os._exit(status)


def _picklable(error: Exception) -> Exception:
    """The error itself, or one that says the same."""
    with contextlib.suppress(Exception):
        pickle.loads(pickle.dumps(error))
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _limit_memory() -> None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
