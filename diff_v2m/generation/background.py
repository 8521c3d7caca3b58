"""Reading the next clips and writing finished ones while music is generated, on threads of concurrent.futures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class InlineExecutor(Executor):
    """Runs work at once on the caller's thread, for machines without an idle core."""

    def submit(self, function: Callable[..., Result], /, *args, **kwargs) -> Future[Result]:
        future: Future[Result] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def build_executor(threads: int) -> Executor:
    return ThreadPoolExecutor(threads) if threads else InlineExecutor()


@contextmanager
def executor(threads: int) -> Iterator[Executor]:
    """`threads` threads, or an `InlineExecutor` for 0. Leaving waits for running work and drops the rest."""
    pool = build_executor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def meanwhile(work: Callable[..., object], *args, **kwargs) -> Iterator[None]:
    """Run `work` on a thread of its own during the block. Leaving waits for it, and raises what it raised."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work, *args, **kwargs)
        yield
    future.result()


def read_ahead(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], count: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Every item in order with the future of `work(item)`, which is submitted up to `count` items in advance."""
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(work, item)))
        if len(waiting) > count:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


class Writer(Generic[Item]):
    """Context manager that writes items on `threads` threads, 0: on the caller's.

    At most `capacity` in total size is pending, or a single larger item. on_end(item, error or None) is called on the
    caller's thread only. Leaving waits for all work; by an exception, only for work that runs.
    """

    def __init__(self, threads: int, capacity: float, on_end: Callable[[Item, Exception | None], None]):
        self.pool, self.capacity, self.on_end = build_executor(threads), capacity, on_end
        self.pending: dict[Future, tuple[Item, float]] = {}

    def __enter__(self) -> Writer[Item]:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is None:
            self._wait_until(lambda: False)
        self.pool.shutdown(cancel_futures=True)
        self._report()

    def submit(self, item: Item, work: Callable[[], None], size: float) -> None:
        """Have `work` run, once there is room for `size`."""
        self._wait_until(lambda: sum(size for _, size in self.pending.values()) + size <= self.capacity)
        self.pending[self.pool.submit(work)] = item, size

    def _wait_until(self, has_room: Callable[[], bool]) -> None:
        self._report()
        while self.pending and not has_room():
            wait(self.pending, return_when=FIRST_COMPLETED)
            self._report()

    def _report(self) -> None:
        for future in [future for future in self.pending if future.done()]:
            item, _ = self.pending.pop(future)
            if future.cancelled():
                continue
            try:
                future.result()
            except Exception as error:
                self.on_end(item, error)
            else:
                self.on_end(item, None)
