"""`Marker`: what all marker formats have in common, and how their lines are named in errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from diff_v2m.common.errors import InputError


@dataclass(frozen=True)
class Marker:
    """Seconds from the first frame of the video; `stop` of markers with a length; `line` of the file."""

    time: float
    name: str = ""
    stop: float | None = None
    line: int | None = None

    @property
    def place(self) -> str:
        return "" if self.line is None else f"line {self.line}"


@contextmanager
def at_line(source: Path, line: int) -> Iterator[None]:
    """A ValueError inside becomes an InputError that names file and line."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{source}: line {line}: {error}") from None


def marker(time: float, name: str, length: float, line: int, shortest: float) -> Marker:
    """A marker; a length up to `shortest` seconds, one frame, counts as none. ValueError if it is before the video."""
    if time < -1e-6:
        raise ValueError(f"a marker {-time:.2f} s before the video's first frame; give --timecode_start")
    return Marker(max(time, 0.0), name.strip(), time + length if length > shortest + 1e-6 else None, line)
