"""Work on the next things while the last ones are being used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], count: int
) -> Iterator[tuple[Item, Callable[[], Result]]]:
    """Yield every item, in order, with a function that gives `work(item)` or raises what it raised.

    One thread of its own works on up to `count` items beyond the one that was yielded last; with count 0 there is none
    and the function does the work. A consumer that stops early waits for the item being worked on, and no other.
    """
    if count == 0:
        for item in items:
            yield item, lambda item=item: work(item)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append((item, thread.submit(work, item)))
                if len(waiting) > count:
                    done, future = waiting.popleft()
                    yield done, future.result
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result
        finally:
            thread.shutdown(wait=False, cancel_futures=True)
