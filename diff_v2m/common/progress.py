"""Progress of the stages of a run: a bar on a terminal, one line each in a log file, and whoever watches."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Watcher = Callable[[str, float, float | None], None]  # title, units done, units in all (None: unknown)

SHORTEST = 2.0  # seconds: a shorter stage has neither a bar nor a line
_watchers: list[Watcher] = []


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Within this block, call `watcher` whenever a stage of this process advances. What it raises ends the stage."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


class _Bar(tqdm):
    """Counts what is done even if nothing is shown, and tells the watchers."""

    def update(self, n: float | None = 1) -> bool | None:
        shown = super().update(n)
        if self.disable:
            self.n += n or 0
        for watcher in _watchers:
            watcher(self.title, self.n, self.total)
        return shown


@contextmanager
def stage(title: str, total: float | None, unit: str, **options: Any) -> Iterator[tqdm]:
    """A bar to update. Where stderr is no terminal, a line says at the end how long the stage took.

    total: in units; None: unknown. options: of tqdm. A stage that ends by an exception leaves no line.
    """
    shown, start = sys.stderr.isatty(), time.monotonic()
    with _Bar(
        total=total, desc=title, unit=unit, delay=SHORTEST, leave=False, disable=None if shown else True, **options
    ) as bar:
        bar.title, bar.total = title, total
        yield bar
    seconds = time.monotonic() - start
    if not shown and seconds >= SHORTEST:
        log.info("%s: %.0f s", title, seconds)


def in_stage(items: Iterable[Item], title: str, unit: str, total: int) -> Iterator[Item]:
    """The `total` items one by one, as the stage that processes them."""
    with stage(title, total, unit) as bar:
        for item in items:
            yield item
            bar.update()
