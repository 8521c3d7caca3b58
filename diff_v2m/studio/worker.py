"""The process that does the tasks of the job folders, in the order in which they were asked for.

It reads nothing but the folders, so the page may close and the server restart. It ends when its standard input closes,
which the system does whenever the server ends, however it ends. A task that was running then is done again by the next
worker; one that ended two workers is marked as failed.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import write_json
from diff_v2m.common.locks import is_held, lock_file
from diff_v2m.common.progress import watched_by
from diff_v2m.common.stopping import check_not_stopped
from diff_v2m.generation.feature_cache import FeatureCache
from diff_v2m.studio.folders import ANALYSE, MODEL, JobFolder, Jobs, Task
from diff_v2m.studio.tasks import COMPOSE, REDO
from diff_v2m.studio.work import Studio

log = logging.getLogger("diff_v2m.studio")

LOCK = ".worker.lock"
PAUSE = 0.5  # seconds between two looks into the folders
OFTEN = 0.25  # seconds between two writings of progress
MOST_STARTS = 2  # of a task; more workers are not given to it


COUNTED = {ANALYSE: "features", COMPOSE: "composing", REDO: "composing"}  # the stage that lasts longest, by task


class Cancelled(KeyboardInterrupt):
    """The page cancelled the task. Not an Exception: it passes what handles errors of a clip."""


@dataclass
class Watch:
    """Progress of a task, written to its state now and then; the place where a cancellation is noticed."""

    task: Task
    state: dict[str, Any]
    piece: int = 0
    pieces: int = 1
    _written: float = 0.0
    _composing: float | None = None  # seconds at which the first step was done
    _first: float = 0.0  # share that was done then

    def begin(self, piece: int, pieces: int) -> None:
        self.piece, self.pieces, self._written = piece, pieces, 0.0
        self("", 0, None)

    def __call__(self, title: str, done: float, total: float | None) -> None:
        """As `common.progress.Watcher`. Raises Cancelled."""
        now = time.monotonic()
        if now - self._written < OFTEN and not (total and done >= total):
            return
        self._written = now
        if self.task.is_cancelled:
            raise Cancelled
        stage = title.split(" ")[0]
        if total and stage == COUNTED.get(self.task.kind, stage):
            self.state["share"] = (self.piece + min(1.0, done / total)) / self.pieces
            self.state["left"] = self._left(now, self.state["share"]) if stage == "composing" else None
        self.task.write_state(**self.state, piece=self.piece, pieces=self.pieces)

    def _left(self, now: float, share: float) -> float | None:
        """Seconds until the last step, by the pace since the first one."""
        if self._composing is None or share < self._first:
            self._composing, self._first = now, share
            return None
        gained = share - self._first
        return (now - self._composing) / gained * (1 - share) if gained > 0 else None


@dataclass
class Worker:
    """Does tasks one by one."""

    jobs: Jobs
    studio: Studio

    def run(self) -> None:
        """Until interrupted."""
        try:
            write_json(self.jobs.path / MODEL, self.studio.about())
        except InputError as error:  # every task will say so too
            log.error("error: %s", error)
        while True:
            if todo := self.jobs.open_tasks():
                self.do(todo[0])
            else:
                time.sleep(PAUSE)

    def do(self, task: Task) -> None:
        """Do a task; whatever happens to it is in its state. Skip it if the page removed its job meanwhile."""
        try:
            with _log_in(task.job):
                self._do(task)
        except FileNotFoundError:
            log.info("%s was removed: its task is skipped", task.job.id)

    def _do(self, task: Task) -> None:
        starts = task.state.get("starts", 0) + 1
        if starts > MOST_STARTS:
            task.write_state(state="failed", error="interrupted twice, perhaps by a lack of memory; see the log")
            return
        state = {"state": "running", "starts": starts, "started": time.time(), "share": 0.0, "left": None}
        watch = Watch(task, state)
        try:
            log.info("%s: %s", task.job.name, task.kind)
            task.write_state(**state)
            with watched_by(watch):
                result = self.studio.do(task, watch.begin)
        except Cancelled:
            task.write_state(state="cancelled")
        except InputError as error:
            check_not_stopped()
            log.error("error: %s", error)
            task.write_state(state="failed", error=task.job.without_paths(str(error)))
        except Exception as error:
            check_not_stopped()
            log.exception("unexpected error, please report it")
            task.write_state(state="failed", error=f"unexpected {type(error).__name__}: {error}")
        else:
            task.write_state(state="done", seconds=round(time.time() - state["started"], 1), **result)
            log.info("%s: %s done", task.job.name, task.kind)


class _Named(logging.Formatter):
    """Lines with a time, and without paths."""

    def __init__(self, job: JobFolder):
        super().__init__("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
        self.job = job

    def format(self, record: logging.LogRecord) -> str:
        return self.job.without_paths(super().format(record))


@contextmanager
def _log_in(job: JobFolder) -> Iterator[None]:
    """What is logged within this block goes to the job's log too. FileNotFoundError if the job was removed."""
    handler = logging.FileHandler(job.path / "log.txt", encoding="utf-8")
    handler.setFormatter(_Named(job))
    logging.getLogger("diff_v2m").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("diff_v2m").removeHandler(handler)
        handler.close()


def end_with_input() -> None:
    """End this process when its standard input closes: whoever started it has ended."""

    def wait() -> None:
        with suppress(OSError, ValueError):
            while os.read(sys.stdin.fileno(), 4096):
                pass
        os._exit(0)  # at once: unfinished work is in folders that the next worker removes

    threading.Thread(target=wait, daemon=True).start()


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m diff_v2m.studio.worker", description="The worker of the studio.")
    parser.add_argument("jobs", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--feature-cache", type=Path)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    end_with_input()
    options.jobs.mkdir(parents=True, exist_ok=True)
    with lock_file(options.jobs / LOCK) as lock:
        while is_held(lock):  # another studio works on these folders
            time.sleep(PAUSE)
        cache = FeatureCache(options.feature_cache) if options.feature_cache else None
        Worker(Jobs(options.jobs), Studio(options.weights, options.device, options.dtype, cache)).run()


if __name__ == "__main__":
    sys.exit(cli.main(parse, run))
