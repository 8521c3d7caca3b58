"""Processes that have to end, and a stop signal that a library does not let through."""

import os
import signal
import time
from contextlib import contextmanager

WAIT = 900  # seconds after which a process is taken to hang


@contextmanager
def run_to_the_end(processes):
    """Start processes, and after the block wait for them. If one fails, the other waits for ever."""
    for process in processes:
        process.start()
    try:
        yield
        for process in processes:
            process.join(WAIT)
        assert [process.exitcode for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()


def swallow_a_stop(*_, **__):
    """Send this process a stop signal and make another error of it, as torch does while it reads a tensor."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
    except KeyboardInterrupt:
        raise ValueError("could not determine the shape of an object") from None
