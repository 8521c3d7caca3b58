"""What argparse makes of a flag's value, and what it says of a wrong one."""

import argparse

import pytest

from diff_v2m.common import cli
from diff_v2m.generation.inputs import Shard


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (cli.whole_number(1), "1", 1),
        (cli.whole_number(0), "007", 7),
        (cli.number(), "-2.5e1", -25.0),
        (cli.number(0, 1), "0", 0.0),
        (cli.number(0, 1), "1", 1.0),
        (cli.number(above=0), "1e-9", 1e-9),
        (cli.shard, "1/4", Shard(1, 4)),
    ],
)
def test_right_values(kind, text, value):
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "texts", "expected"),
    [
        (cli.whole_number(1), ("0", "-1", "1.5", "²", "1_0", "", "abc"), "a whole number from 1 up"),
        (cli.number(), ("nan", "-inf", "abc", ""), "a finite number"),
        (cli.number(0, 1), ("-0.1", "1.1", "nan", "half"), "a finite number from 0 up to 1"),
        (cli.number(above=0), ("0", "-1", "inf", "1 GB"), "a finite number above 0"),
        (cli.shard, ("4/4", "1", "a/b"), "i/n"),
    ],
)
def test_wrong_values(kind, texts, expected):
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError, match=f"^{text!r}: expected {expected}"):
            kind(text)
