"""Markers in plain lists: the CSV of REAPER, SRT and WebVTT."""

import csv
import io
import re
from pathlib import Path

import pysubs2

from diff_v2m.common.errors import InputError
from diff_v2m.cues.marker import Marker, at_line, marker
from diff_v2m.cues.timebase import Timebase

_REAPER_COLUMNS = ("#", "Name", "Start")
_RULER = re.compile(r"\d+\.\d+\.\d+")  # measures.beats.hundredths
_SHOWN = 0.5  # seconds that the subtitle of a marker without length is shown


def is_reaper(text: str) -> bool:
    """Whether the first line is that of REAPER's region and marker manager."""
    return text.lstrip("\ufeff").replace('"', "").startswith(",".join(_REAPER_COLUMNS))


def read_reaper(text: str, source: Path, timebase: Timebase) -> list[Marker]:
    """Markers and regions, in the unit of REAPER's ruler: minutes, seconds or timecode, but not beats."""
    reader = csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""))
    header: list[str] | None = None
    found = []
    for row in reader:
        if header is None:
            header = row
            if not is_reaper(text):
                raise InputError(
                    f"{source}: line 1: expected the columns of a cue sheet or {','.join(_REAPER_COLUMNS)}"
                )
        elif row:
            with at_line(source, reader.line_num):
                found.append(_of_row(dict(zip(header, row, strict=False)), timebase, reader.line_num))
    return found


def write_reaper(markers: list[Marker], timebase: Timebase, title: str) -> str:
    """Minutes and seconds with milliseconds, as REAPER reads them whatever its ruler shows."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_REAPER_COLUMNS, "End", "Length"])
    for number, item in enumerate(markers, 1):
        span = ["", ""] if item.stop is None else [_clock(item.stop), _clock(item.stop - item.time)]
        writer.writerow([f"{'M' if item.stop is None else 'R'}{number}", item.name, _clock(item.time), *span])
    return out.getvalue()


def read_srt(text: str, source: Path, timebase: Timebase) -> list[Marker]:
    """A marker at the start of each subtitle, as long as it is shown."""
    return _read_subtitles(text, source, "srt")


def read_vtt(text: str, source: Path, timebase: Timebase) -> list[Marker]:
    """As `read_srt`."""
    return _read_subtitles(text, source, "vtt")


def write_srt(markers: list[Marker], timebase: Timebase, title: str) -> str:
    """A subtitle for each marker; one without length is shown for half a second."""
    return _write_subtitles(markers, "srt")


def write_vtt(markers: list[Marker], timebase: Timebase, title: str) -> str:
    """As `write_srt`."""
    return _write_subtitles(markers, "vtt")


def _of_row(cells: dict[str, str], timebase: Timebase, line: int) -> Marker:
    if len(cells) < len(_REAPER_COLUMNS):
        raise ValueError(f"{len(cells)} cells; expected {','.join(_REAPER_COLUMNS)}")
    for name in ("Start", "End"):
        if _RULER.fullmatch(cells.get(name, "").strip()):
            raise ValueError(
                f"{cells[name]!r} counts beats; set REAPER's ruler to minutes and seconds and export again"
            )
    start, stop = timebase.seconds(cells["Start"]), cells.get("End", "").strip()
    return marker(start, cells["Name"], timebase.seconds(stop) - start if stop else 0.0, line, shortest=0.0)


def _read_subtitles(text: str, source: Path, form: str) -> list[Marker]:
    lines = text.splitlines()
    shown = [number for number, line in enumerate(lines, 1) if "-->" in line]
    for number in shown:  # pysubs2 takes a time that it cannot read for text
        if len(_events(lines[number - 1] + "\nx\n", form)) != 1:
            raise InputError(f"{source}: line {number}: {lines[number - 1]!r}; expected start --> end")
    events = _events(text, form)
    if len(events) != len(shown):
        raise InputError(f"{source}: {len(shown)} lines with times, {len(events)} subtitles; save it as {form} again")
    found = []
    for number, event in zip(shown, events, strict=True):
        if event.end < event.start:
            raise InputError(f"{source}: line {number}: the subtitle ends before it begins")
        length = event.duration / 1000
        name = " ".join(event.plaintext.split())
        found.append(marker(event.start / 1000, name, length, number, shortest=0.0))
    return found


def _events(text: str, form: str) -> list[pysubs2.SSAEvent]:
    head = "WEBVTT\n\n" if form == "vtt" and not text.lstrip().startswith("WEBVTT") else ""
    return list(pysubs2.SSAFile.from_string(head + text, format_=form))


def _write_subtitles(markers: list[Marker], form: str) -> str:
    file = pysubs2.SSAFile()
    for item in markers:
        stop = item.time + _SHOWN if item.stop is None else item.stop
        file.append(pysubs2.SSAEvent(round(item.time * 1000), round(stop * 1000), text=item.name))
    return file.to_string(form)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds * 1000), 60_000)
    return f"{minutes}:{rest / 1000:06.3f}"
