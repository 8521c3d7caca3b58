"""What the values of command line flags may be: types for argparse, which shows no other message than theirs."""

import argparse
import math
from collections.abc import Callable

from diff_v2m.generation.inputs import Shard


def whole_number(least: int) -> Callable[[str], int]:
    """A whole number from `least` up."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from {least} up")
        return int(text)

    return parse


def number(least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf) -> Callable[[str], float]:
    """A finite number from `least` to `most`, and more than `above`."""
    limits = {f"from {least:g}": least, f"up to {most:g}": most, f"above {above:g}": above}
    expected = " ".join(["a finite number", *(limit for limit, value in limits.items() if math.isfinite(value))])

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most and value > above):
            raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}")
        return value

    return parse


def shard(text: str) -> Shard:
    """I/N, I from 0."""
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
