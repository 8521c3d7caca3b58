"""Markers in EDL files: those of DaVinci Resolve (`|C:… |M:… |D:…`) and the `* LOC:` remarks of CMX 3600."""

import re
from pathlib import Path

from diff_v2m.common.errors import InputError
from diff_v2m.cues.marker import Marker, at_line, marker
from diff_v2m.cues.timebase import Timebase

_CODE = r"(\d\d[:;.]\d\d[:;.]\d\d[:;.]\d{2,3})"
_EVENT = re.compile(rf"\d+\s+\S.*?{_CODE}\s+{_CODE}\s+{_CODE}\s+{_CODE}(\s.*)?")
_LOCATOR = re.compile(rf"\*\s*LOC:\s*{_CODE}(?:\s+(\S+))?(?:\s+(.*))?")
_COLOR = "ResolveColorBlue"


def read(text: str, source: Path, timebase: Timebase) -> list[Marker]:
    """Markers of either kind. If the start is unknown, timecodes that all are at least an hour count from 01:00:00:00.

    A locator has no length of its own. At the start of its event it has that of the event.
    """
    lines = list(enumerate((line.strip() for line in text.splitlines()), 1))
    found: list[tuple[int, str, str, int | str]] = []  # line, timecode, name, frames or the timecode after the last
    event: tuple[int, str, str] | None = None  # line, first timecode, that after its last frame
    for number, line in lines:
        if line.upper().startswith("FCM:"):
            drop = "NON" not in line.upper()
            timebase = Timebase(timebase.fps, timebase.start, drop)
        elif line[:1].isdigit():
            match = _EVENT.fullmatch(line)
            if match is None:
                raise InputError(f"{source}: line {number}: {line!r}; expected an event with four timecodes")
            event = number, match.group(3), match.group(4)
        elif line.startswith("|"):
            if event is None:
                raise InputError(f"{source}: line {number}: a marker without an event before it")
            found.append((event[0], event[1], *_resolve_fields(line, source, number)))
        elif re.match(r"\*\s*LOC", line):
            match = _LOCATOR.fullmatch(line)
            if match is None:
                raise InputError(f"{source}: line {number}: {line!r}; expected * LOC: timecode colour name")
            code = match.group(1)
            end = event[2] if event is not None and event[1] == code else 1
            found.append((number, code, match.group(3) or "", end))
    timebase = timebase.with_start_of([code for _, code, _, _ in found])

    markers = []
    for number, code, name, end in found:
        with at_line(source, number):
            time, frame = timebase.seconds_of_timecode(code), float(timebase.frame_duration())
            length = end * frame if isinstance(end, int) else timebase.seconds_of_timecode(end) - time
            markers.append(marker(time, name, length, number, shortest=frame))
    return markers


def write_resolve(markers: list[Marker], timebase: Timebase, title: str) -> str:
    """As Resolve exports its timeline markers, and reads them with Import > Timeline Markers from EDL."""
    lines = _head(timebase, title)
    for number, item in enumerate(markers, 1):
        frames = _frames(item, timebase)
        lines += [_event(number, "001", item.time, frames, timebase)]
        lines += [f" |C:{_COLOR} |M:{item.name.replace('|', '/')} |D:{frames}", ""]
    return "\n".join(lines) + "\n"


def write_cmx(markers: list[Marker], timebase: Timebase, title: str) -> str:
    """One event for each marker, which gives its length, with its locator as a remark."""
    lines = _head(timebase, title)
    for number, item in enumerate(markers, 1):
        lines += [_event(number, "AX", item.time, _frames(item, timebase), timebase)]
        lines += [f"* LOC: {timebase.timecode(item.time)} RED     {item.name}".rstrip(), ""]
    return "\n".join(lines) + "\n"


def _resolve_fields(line: str, source: Path, number: int) -> tuple[str, int]:
    fields = {part[:1]: part[2:].strip() for part in re.split(r"\s*\|(?=[A-Z]:)", line) if part[1:2] == ":"}
    if "M" not in fields or not fields.get("D", "1").isdecimal():
        raise InputError(f"{source}: line {number}: {line!r}; expected |C:colour |M:name |D:frames")
    return fields["M"], int(fields.get("D", "1"))


def _head(timebase: Timebase, title: str) -> list[str]:
    return [f"TITLE: {title}", f"FCM: {'' if timebase.drop_frame else 'NON-'}DROP FRAME", ""]


def _frames(item: Marker, timebase: Timebase) -> int:
    return 1 if item.stop is None else max(1, timebase.frame(item.stop) - timebase.frame(item.time))


def _event(number: int, reel: str, time: float, frames: int, timebase: Timebase) -> str:
    first = timebase.timecode(time)
    last = timebase.timecode(float((timebase.frame(time) + frames) * timebase.frame_duration()))
    return f"{number:03d}  {reel:<8} V     C        {first} {last} {first} {last}"
