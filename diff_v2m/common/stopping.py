"""Stop signals of a command, raised as KeyboardInterrupt so that clean-up runs."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_received: list[int] = []  # signal numbers, within the block


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """SIGTERM, which Slurm sends when the time limit is reached, and SIGINT raise KeyboardInterrupt in the block.

    A signal that arrives during an import is raised after it, because libraries catch exceptions of their imports. Only
    the main thread may set signal handlers; on another the block just runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signums = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores SIGINT
        signums.append(signal.SIGINT)
    before = {signum: signal.signal(signum, _interrupt) for signum in signums}
    try:
        yield
    except (Exception, SystemExit):  # Lightning ends an interrupted run with SystemExit
        check_not_stopped()
        raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _received.clear()


def check_not_stopped() -> None:
    """Raise KeyboardInterrupt if a signal has come.

    Call this in an `except Exception` that continues, for example with the next clip. A library may turn the interrupt
    into an exception of its own; torch does so while it reads a tensor.
    """
    if _received:
        raise KeyboardInterrupt


def _interrupt(signum: int, frame: FrameType | None) -> None:
    if not _importing(frame):
        _received.append(signum)
        raise KeyboardInterrupt
    again = threading.Timer(0.05, _send_again, [signum])
    again.daemon = True
    again.start()


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _send_again(signum: int) -> None:
    if signal.getsignal(signum) is _interrupt:  # the program has not ended meanwhile
        signal.pthread_kill(threading.main_thread().ident, signum)
