"""The frames shown at a few times of a video, by random access.

decord seeks to each frame; PyAV decodes everything between the first and the last. decord runs in a process of its own
(decord_worker.py): some damaged files end the process that reads them, and its readers hang across forks and threads.
"""

import contextlib
import importlib.util
import logging
import os
import pickle
import subprocess
import sys
import threading
import weakref
from functools import lru_cache
from pathlib import Path

import numpy as np

from diff_v2m.media.container import SAME_TIME, existing_file
from diff_v2m.media.video import VideoInfo, View, iter_views, probe

log = logging.getLogger(__name__)

WORKER = Path(__file__).with_name("decord_worker.py")
TIME_LIMIT = 60.0  # seconds for one call


def sample_frames(path: str | Path, times: np.ndarray, size: int | None = None) -> np.ndarray:
    """The frame shown at each of the times (n,), n ≥ 1, sorted seconds: (n, H, W, 3) uint8 RGB.

    size: longer side in pixels at most, never enlarged; None: the video's own size. Frames equal those of `iter_views`
    bit for bit. PyAV reads what decord would read differently (scaled frames, `VideoInfo.random_access`) and takes over
    where decord fails. Raises InputError.
    """
    path, info = existing_file(path), probe(path)
    times = np.asarray(times, dtype=float)
    if _decord_reads(info, size):
        numbers = np.maximum(0, np.searchsorted(info.times, times + SAME_TIME, side="right") - 1)
        try:
            return _worker(os.getpid()).read(path, numbers.tolist(), len(info.times))
        except _DecordFailedError as error:
            log.info("%s: read with PyAV, because decord %s", path, error)
    return np.concatenate([frames for _, _, frames in iter_views(path, [View(times, size)])])


def _decord_reads(info: VideoInfo, size: int | None) -> bool:
    own_size = size is None or size >= max(info.width, info.height)  # decord scales with another filter
    return own_size and info.random_access and importlib.util.find_spec("decord") is not None


@lru_cache(maxsize=1)
def _worker(_process: int) -> "_Worker":
    """The worker of this process; a forked process starts its own."""
    return _Worker()


class _DecordFailedError(Exception):
    """decord cannot read this video, or its process ended."""


class _Worker:
    """A running decord_worker.py. It serves one thread at a time and ends with this process."""

    def __init__(self):
        command = [sys.executable, "-P", str(WORKER)]  # -P: its folder is not a place to import from
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.lock = threading.Lock()
        weakref.finalize(self, _end, self.process)

    def read(self, path: Path, numbers: list[int], count: int) -> np.ndarray:
        """The frames with these numbers, of `count` in the video. Raises _DecordFailedError."""
        with self.lock:
            limit = threading.Timer(TIME_LIMIT, self.process.kill)
            limit.start()
            try:
                pickle.dump((str(path), numbers, count), self.process.stdin)
                self.process.stdin.flush()
                frames, reason = pickle.load(self.process.stdout)
            except (OSError, EOFError, pickle.UnpicklingError) as error:
                _worker.cache_clear()
                raise _DecordFailedError("ended without an answer") from error
            except BaseException:  # interrupted: the process would answer this request next
                _worker.cache_clear()
                raise
            finally:
                limit.cancel()
        if frames is None:
            raise _DecordFailedError(reason)
        return frames


def _end(process: subprocess.Popen) -> None:
    process.kill()  # does nothing in a forked process, whose child it is not
    process.wait()
    with contextlib.suppress(OSError):  # a request that nobody reads
        process.stdin.close()
    process.stdout.close()
