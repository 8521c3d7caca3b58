"""Progress of the stages of a run: a bar on a terminal, one line each in a log file."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

Item = TypeVar("Item")

SHORTEST = 2.0  # seconds: a shorter stage has neither a bar nor a line


@contextmanager
def stage(title: str, total: float | None, unit: str, **options: Any) -> Iterator[tqdm]:
    """A bar to update. Where stderr is no terminal, a line says at the end how long the stage took.

    total: in units; None: unknown. options: of tqdm. A stage that ends by an exception leaves no line.
    """
    shown, start = sys.stderr.isatty(), time.monotonic()
    with tqdm(
        total=total, desc=title, unit=unit, delay=SHORTEST, leave=False, disable=None if shown else True, **options
    ) as bar:
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
