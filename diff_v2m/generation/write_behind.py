"""Finish things while the next ones are being made: the other end of `read_ahead`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Name = TypeVar("Name")
Work = Callable[[], None]


@contextmanager
def write_behind(
    on_end: Callable[[Name, Exception | None], None], threads: int, most: float
) -> Iterator[Callable[[Name, Work, float], None]]:
    """Yields `do(name, work, size)`, which has `work` run on one of `threads` threads, or at once if there are none.

    on_end(name, None or what the work raised) is called on the caller's thread alone, in a later `do` or on leaving.
    `do` waits while work of more than `most` in all is under way, unless it is a single piece. Leaving by an exception
    waits for what is being worked on and begins nothing else.
    """
    if threads == 0:
        yield lambda name, work, size: on_end(name, _error_of(work))
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="write-behind") as pool:
        crew = _Crew(pool, on_end, most)
        try:
            yield crew.do
            crew.wait_for_room(None)
        finally:
            pool.shutdown(cancel_futures=True)
            crew.report()


@dataclass
class _Crew(Generic[Name]):
    pool: ThreadPoolExecutor
    on_end: Callable[[Name, Exception | None], None]
    most: float
    under_way: dict[Future, tuple[Name, float]] = field(default_factory=dict)  # not the work: it holds what it writes

    def do(self, name: Name, work: Work, size: float) -> None:
        self.wait_for_room(size)
        self.under_way[self.pool.submit(_error_of, work)] = name, size

    def wait_for_room(self, size: float | None) -> None:
        """For work of this size; None: until nothing is under way."""
        self.report()
        while self.under_way and (size is None or size + sum(s for _, s in self.under_way.values()) > self.most):
            wait(self.under_way, return_when=FIRST_COMPLETED)
            self.report()

    def report(self) -> None:
        for future in [future for future in self.under_way if future.done()]:
            name, _ = self.under_way.pop(future)
            if not future.cancelled():
                self.on_end(name, future.result())


def _error_of(work: Work) -> Exception | None:
    try:
        work()
    except Exception as error:
        return error
    return None
