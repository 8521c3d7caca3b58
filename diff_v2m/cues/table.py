"""A cue sheet as CSV: columns time, kind, value, name. What spreadsheets write is read too."""

import csv
import io
import math
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from diff_v2m.common.errors import InputError
from diff_v2m.cues.sheet import KINDS, SPANS, Cue, CueSheet, is_image
from diff_v2m.cues.timebase import Timebase

COLUMNS = ("time", "kind", "value", "name")
SUFFIX = ".cues.csv"
DIGITS = 4  # after the point, of values
_DELIMITERS = ",;\t"  # a spreadsheet takes the semicolon where the comma is the decimal point
_BETWEEN = re.compile(r"\s*(?:-|–|—|\.\.+|\bto\b)\s*")


def is_sheet(text: str) -> bool:
    """Whether a CSV file is a cue sheet: its first line names the columns."""
    return set(COLUMNS[:2]) <= set(_cells(text.lstrip("\ufeff").partition("\n")[0].lower()))


def parse_sheet(text: str, source: Path, timebase: Timebase, *, images: bool = True) -> CueSheet:
    """Read a sheet. Times are seconds, clock times or timecodes. Raises InputError with the number of the line.

    images: whether a mood may name an image file; False for text of somebody who may not name files.
    """
    text = text.lstrip("\ufeff")
    delimiter = _delimiter(text.partition("\n")[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header: list[str] | None = None
    cues = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = _header(row, source, reader.line_num)
                continue
            try:
                cells = dict(_named(header, row))
                cues.append(_cue(cells, timebase, source.parent if images else None, reader.line_num))
            except ValueError as error:
                raise InputError(f"{source}: line {reader.line_num}: {error}") from None
    except csv.Error as error:
        raise InputError(f"{source}: line {reader.line_num}: {error}") from None
    if header is None:
        raise InputError(f"{source}: empty; expected a first line {','.join(COLUMNS)}")
    return CueSheet(cues, str(source))


def format_sheet(sheet: CueSheet, folder: Path | None = None) -> str:
    """The CSV text of a sheet. Image files are named relative to `folder`, where the text will be.

    The value of `end` is a checksum of the other rows, see `is_edited`.
    """
    rows = [_row(cue, folder) for cue in sheet.cues]
    text = "".join(map(_line, rows))
    if sheet["end"]:
        text = "".join(_line((*row[:2], _checksum(text), row[3]) if row[1] == "end" else row) for row in rows)
    return _line(COLUMNS) + text


def is_edited(text: str) -> bool:
    """Whether a sheet is other than `format_sheet` wrote it."""
    rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
    ends = [row for row in rows if row[1:2] == ["end"]]
    unsummed = "".join(_line((*row[:2], "", *row[3:]) if row[1:2] == ["end"] else row) for row in rows)
    return len(ends) != 1 or ends[0][2:3] != [_checksum(unsummed)]


def _row(cue: Cue, folder: Path | None) -> tuple[str, str, str, str]:
    time = _seconds(cue.time) if cue.stop is None else f"{_seconds(cue.time, 1)}-{_seconds(cue.stop, 1)}"
    return time, cue.kind, value_text(cue, folder), cue.name


def _line(row: Sequence[str]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerow(row)
    return out.getvalue()


def _checksum(text: str) -> str:
    return f"sum {zlib.crc32(text.encode()):08x}"


def value_text(cue: Cue, folder: Path | None = None) -> str:
    """The value as it stands in a table."""
    if cue.value is None:
        return ""
    if isinstance(cue.value, str):
        image = cue.kind == "mood" and is_image(cue.value)
        return os.path.relpath(cue.value, folder) if image and folder is not None else cue.value
    return f"{cue.value:.{DIGITS}f}".rstrip("0").rstrip(".") if cue.value else "0"


def parse_value(kind: str, text: str, folder: Path | None) -> float | str | None:
    """The value of a cue from text; an image file is taken relative to `folder`, None: refused. Raises ValueError."""
    text = text.strip()
    if not text or kind == "end":
        return None
    if kind == "mood":
        if folder is None and is_image(text):
            raise ValueError(f"{text!r} is an image file; only colours are taken here")
        return str(folder / text) if folder is not None and is_image(text) else text
    if kind == "silence":
        return text.replace(",", ".")
    if text.lower() == "none":
        return "none"
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"value {text!r} is not a finite number")
    return value


def parse_span(text: str, timebase: Timebase) -> tuple[float, float | None]:
    """`12.48` or `12-20`, in any spelling of times → start and stop. Raises ValueError."""
    parts = _BETWEEN.split(text.strip()) if not text.strip().startswith("-") else [text]
    if len(parts) > 2:
        raise ValueError(f"{text!r} is no time; expected one time, or start-end")
    return timebase.seconds(parts[0]), timebase.seconds(parts[1]) if len(parts) == 2 else None


def _header(row: list[str], source: Path, line: int) -> list[str]:
    names = [cell.strip().lower() for cell in row]
    while names and not names[-1]:
        names.pop()
    if not {"time", "kind"} <= set(names) or len(set(names)) != len(names) or not set(names) <= set(COLUMNS):
        raise InputError(f"{source}: line {line}: columns {', '.join(row)}; expected {', '.join(COLUMNS)}")
    return names


def _named(header: list[str], row: list[str]) -> zip:
    if any(cell.strip() for cell in row[len(header) :]):
        raise ValueError(f"{len(row)} cells for {len(header)} columns; put text with commas into quotes")
    return zip(header, [*row, *[""] * len(header)], strict=False)


def _cue(cells: dict[str, str], timebase: Timebase, folder: Path | None, line: int) -> Cue:
    kind = cells["kind"].strip().lower()
    if kind not in KINDS:
        raise ValueError(f"unknown kind {cells['kind']!r}; expected one of {', '.join(KINDS)}")
    start, stop = parse_span(cells["time"], timebase)
    if stop is None and kind in SPANS:
        raise ValueError(f"{kind} {cells['time']!r}; expected start-end, such as 12-20")
    value = parse_value(kind, cells.get("value", ""), folder)
    return Cue(start, kind, value, cells.get("name", "").strip(), stop, f"line {line}")


def _delimiter(line: str) -> str:
    return max(_DELIMITERS, key=line.count)


def _cells(line: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(_delimiter(line))]


def _seconds(value: float, least: int = 0) -> str:
    """Up to microseconds; at least `least` digits after the point, so that no spreadsheet takes a span for a date."""
    text = f"{value:.6f}".rstrip("0")
    whole, _, part = text.partition(".")
    part = part.ljust(least, "0")
    return f"{whole}.{part}" if part else whole
