"""Finish things while the next ones are being made: the other end of `read_ahead`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def write_behind(
    work: Callable[[Item], None], on_end: Callable[[Item, Exception | None], None], threads: int
) -> Iterator[Callable[[Item], None]]:
    """Yields a function that takes items for `work`, which so many threads of its own do; with none, it does it itself.

    on_end(item, None or what work raised) is called in the order of the items and always by the caller's thread: when
    it brings another item, and for the last of them on leaving. At most two items a thread are under way; then the
    caller waits. One who leaves by an exception waits for what is being worked on, and nothing else is begun.
    """
    if threads == 0:
        yield lambda item: on_end(item, _error_of(work, item))
        return
    waiting: deque = deque()

    def end_first() -> None:
        item, future = waiting.popleft()
        on_end(item, future.result())

    def take(item: Item) -> None:
        waiting.append((item, pool.submit(_error_of, work, item)))
        while waiting and (waiting[0][1].done() or len(waiting) > 2 * threads):
            end_first()

    with ThreadPoolExecutor(threads, thread_name_prefix="write-behind") as pool:
        try:
            yield take
            while waiting:
                end_first()
        finally:
            pool.shutdown(cancel_futures=True)


def _error_of(work: Callable[[Item], None], item: Item) -> Exception | None:
    try:
        work(item)
    except Exception as error:
        return error
    return None
