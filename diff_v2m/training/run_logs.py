"""The csv logs of a run, as curves over all its starts. Imports neither torch nor numpy."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diff_v2m.common.errors import InputError

Curve = Mapping[int, float]  # optimiser step, counted from 0 → value, in the order of steps


@dataclass(frozen=True)
class Logs:
    curves: Mapping[str, Curve]  # by column, as "train/loss"
    restarts: tuple[int, ...]  # the first step logged by each start after the first


def read_logs(folder: Path) -> Logs:
    """The logs in a run's folder; no curves if nothing was logged to csv.

    If a restart repeats steps, the later value counts. Raises InputError for a file that cannot be read as a log.
    """
    pieces = sorted(folder.glob("logs/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[-1]))
    curves: dict[str, dict[int, float]] = {}
    restarts = []
    for number, path in enumerate(pieces):
        steps = []
        try:
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    step = int(row.pop("step"))
                    steps.append(step)
                    for name, value in row.items():
                        if value:
                            curves.setdefault(name, {})[step] = float(value)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: cannot be read as a log of values by step ({error!r})") from None
        if number and steps:
            restarts.append(min(steps))
    return Logs({name: dict(sorted(curve.items())) for name, curve in sorted(curves.items())}, tuple(restarts))


def last(curve: Curve) -> float:
    """The newest value."""
    return curve[max(curve)]
