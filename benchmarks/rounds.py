"""How contenders are compared: never one after the other, so that a machine's slow minutes are everybody's."""

from collections.abc import Callable, Mapping
from typing import TypeVar

Name = TypeVar("Name")
Measured = TypeVar("Measured")


def in_turn(contenders: Mapping[Name, Callable[[], Measured]], rounds: int) -> dict[Name, list[Measured]]:
    """What each contender measures of itself, once a round, all in turn in every round; one round before those does
    not count."""
    measured: dict[Name, list[Measured]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, measure in contenders.items():
            value = measure()
            if number:
                measured[name].append(value)
    return measured
