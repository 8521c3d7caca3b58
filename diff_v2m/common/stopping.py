"""Stop signals of a command, raised as KeyboardInterrupt so that clean-up runs."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_received: list[int] = []  # signal numbers, since the block was entered


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """SIGTERM, which Slurm sends when the time limit is reached, and SIGINT raise KeyboardInterrupt in the block.

    During an import after it, because libraries catch what is raised in their imports. Only the main thread may set
    signal handlers; on another the block just runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    signums = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores SIGINT
        signums.append(signal.SIGINT)
    before = {signum: signal.signal(signum, _interrupt) for signum in signums}
    try:
        yield
    except Exception:
        check_not_stopped()
        raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def check_not_stopped() -> None:
    """Raise KeyboardInterrupt if a signal has come.

    For what catches an Exception, above all to go on with the next clip: a library may have made it of the interrupt,
    as torch does while it reads a tensor.
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
