"""Shared by all command lines: `main`, the parser, and the types of flag values.

A module that is a command line has three functions: `parse(arguments)`, `run(options)` and

    def main(arguments: list[str] | None = None) -> int:
        return cli.main(parse, run, arguments)
"""

import argparse
import atexit
import gc
import logging
import math
import os
import select
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from diff_v2m.common.errors import InputError
from diff_v2m.common.stopping import check_not_stopped, signals_as_interrupt

log = logging.getLogger("diff_v2m")

PACKAGES = ("diff_v2m", "inference", "experiments", "benchmarks")  # their INFO lines are shown; of libraries, warnings
STOPPED = "stopped; finished work is kept, and the same command resumes"

Options = TypeVar("Options")
Item = TypeVar("Item")


def main(
    parse: Callable[[list[str]], Options],
    run: Callable[[Options], int | None],
    arguments: list[str] | None = None,
    *,
    prefix: str = "error",
    stopped: str = STOPPED,
) -> int:
    """Parse the arguments (None: those of the process), run, and return the exit status.

    0: done. 1: an InputError, shown as one line `prefix: message`, or what `run` returned because some inputs failed.
    2: wrong usage. 130: interrupted by Ctrl-C or SIGTERM, both raised as KeyboardInterrupt so that clean-up runs.
    """
    atexit.register(gc.freeze)  # otherwise Python searches all of torch for cycles before it exits: half a second
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)
    warnings.filterwarnings("ignore", category=FutureWarning)  # meant for developers, not for users
    try:
        with signals_as_interrupt():
            status = run(parse(sys.argv[1:] if arguments is None else arguments)) or 0
            sys.stdout.flush()
            if status:  # the failures may come from a stop signal
                check_not_stopped()
            return status
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        return 0
    except InputError as error:
        log.error("%s: %s", prefix, error)
        return 1
    except KeyboardInterrupt:
        log.error("%s", stopped)
        return 130


def _reader_is_gone() -> bool:
    """Whether the output goes to a command that has seen enough, such as `head`."""
    output = select.poll()
    output.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in output.poll(0))


class Parser(argparse.ArgumentParser):
    """A parser whose flags may be spelt with hyphens or underscores. Wrong usage is one line and exit status 2."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        return super().parse_known_args([*map(self._known_spelling, given[:end]), *given[end:]], namespace)

    def _known_spelling(self, argument: str) -> str:
        """`--batch_size=4` → `--batch-size=4`. Values stay as they are."""
        flag, equals, value = argument.partition("=")
        return flag.replace("_", "-") + equals + value if flag.startswith("--") else argument

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


# ----------------------------------------------------------------------------------------------- values of flags


@dataclass(frozen=True)
class Part:
    """Part `index` (from 0) of `count` equal parts of the work, for several machines or processes."""

    index: int = 0
    count: int = 1

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every `count`-th item."""
        return items[self.index :: self.count]


def add_part(parser: argparse.ArgumentParser, of: str) -> None:
    """Add `--part I/N`; `--shard` is its older name. `of`: what the work is split into, in the singular."""
    parser.add_argument(
        "--part",
        "--shard",
        type=part,
        default=Part(),
        metavar="I/N",
        help=f"process only every N-th {of}, starting at I (from 0), for example "
        "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT",
    )


def part(text: str) -> Part:
    """Parse I/N: 2/8 is the third of eight parts."""
    try:
        index, count = (int(number) for number in text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected i/n, for example 0/4") from None
    if not 0 <= index < count:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected i/n with i from 0 to n - 1, so 0/{max(count, 1)} is the first part"
        )
    return Part(index, count)


def whole_number(least: int, most: float = math.inf) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""
    upper = f"to {most}" if math.isfinite(most) else "up"

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from {least} {upper}")
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
