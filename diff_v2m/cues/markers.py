"""Markers of editing programs ↔ cues.

The name of a marker says what it is: `kind: text`, as in `hit: door`, `mood: navy gold`, `silence: 0.5` or `cut:`. A
marker without a kind is a hit. The text is value and name, as in `hit: 0.5 door`. With ` -- ` before the name it is
never taken for a value, as in `hit: -- 3 knocks`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic
from diff_v2m.cues import edl, lists, xml
from diff_v2m.cues.marker import Marker, at_line
from diff_v2m.cues.sheet import KINDS, NONE, SPANS, Cue, CueSheet
from diff_v2m.cues.table import SUFFIX, format_sheet, is_sheet, parse_sheet, parse_value, value_text
from diff_v2m.cues.timebase import Timebase

Reader = Callable[[str, Path, Timebase], list[Marker]]
Writer = Callable[[list[Marker], Timebase, str], str]


@dataclass(frozen=True)
class Format:
    """A file format of markers. `suffix` is that of its files; `read` finds times from the video's first frame."""

    suffix: str
    program: str
    read: Reader
    write: Writer


FORMATS = {
    "resolve": Format(".edl", "DaVinci Resolve, timeline markers as EDL", edl.read, edl.write_resolve),
    "cmx3600": Format(".edl", "CMX 3600 EDL with * LOC: remarks, as Avid writes", edl.read, edl.write_cmx),
    "fcpxml": Format(".fcpxml", "Final Cut Pro", xml.read_fcpxml, xml.write_fcpxml),
    "fcp7": Format(".xml", "Final Cut Pro 7 XML, as Premiere reads and writes", xml.read_fcp7, xml.write_fcp7),
    "reaper": Format(".csv", "REAPER, region and marker manager", lists.read_reaper, lists.write_reaper),
    "srt": Format(".srt", "subtitles", lists.read_srt, lists.write_srt),
    "vtt": Format(".vtt", "subtitles", lists.read_vtt, lists.write_vtt),
}
SHEET = "sheet"
READABLE = (".cues.csv", *dict.fromkeys(form.suffix for form in FORMATS.values()))
_SEPARATOR = "--"  # between value and name
_KIND = re.compile(
    rf"\s*({'|'.join(kind for kind in KINDS if kind != 'end')})\s*(?::\s*(.*))?", re.IGNORECASE | re.DOTALL
)
_NUMBER = r"\d*[.,]?\d+"
_VALUES = {
    "rhythm": _NUMBER,
    "cut": NONE,
    "beat": f"{_NUMBER}|{NONE}",
    "hit": _NUMBER,
    "silence": rf"{_NUMBER}\s+{_NUMBER}|{_NUMBER}",
}
_TEXTS = {
    kind: re.compile(rf"(?:({value})(?=\s|{_SEPARATOR}|$))?\s*({_SEPARATOR})?(.*)", re.IGNORECASE | re.DOTALL)
    for kind, value in _VALUES.items()
}


def read_cues(path: Path, timebase: Timebase, *, images: bool = True) -> CueSheet:
    """Read a cue sheet, or markers of any of FORMATS as cues. images: as for `parse_sheet`.

    Raises InputError with the number of the line.
    """
    text = read_text(path)
    name = format_of(path, text)
    if name == SHEET:
        return parse_sheet(text, path, timebase, images=images)
    markers = sorted(FORMATS[name].read(text, path, timebase), key=lambda marker: marker.time)
    if not markers:
        raise InputError(f"{path}: no markers; export the timeline's markers ({FORMATS[name].program})")
    cues = []
    for marker in markers:
        with at_line(path, marker.line):
            cues.append(cue_of(marker, path.parent if images else None))
    return CueSheet(cues, str(path))


def write_cues(path: Path, sheet: CueSheet, timebase: Timebase, form: str | None = None) -> None:
    """Write a sheet as CSV or as markers, atomically. form: SHEET or one of FORMATS; None: by the suffix.

    Raises InputError if the format needs a frame rate that `timebase` lacks.
    """
    name = form or format_of(path, None)
    if name == SHEET:
        text = format_sheet(sheet, path.parent)
    else:
        markers = [marker_of(cue, path.parent) for cue in sheet.cues if cue.kind not in ("rhythm", "end")]
        try:
            text = FORMATS[name].write(markers, timebase, path.stem)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


def format_of(path: Path, text: str | None) -> str:
    """SHEET or a name of FORMATS, by suffix and content; text None: by the suffix alone. Raises InputError."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        reaper = not path.name.endswith(SUFFIX) if text is None else not is_sheet(text)
        return "reaper" if reaper and (text is None or lists.is_reaper(text)) else SHEET
    if suffix == ".xml" and text is not None and "<fcpxml" in text:
        return "fcpxml"
    found = next((name for name, form in FORMATS.items() if form.suffix == suffix), None)
    if found is None:
        raise InputError(f"{path}: not a format of cues or markers; expected one of {', '.join(READABLE)}")
    return found


def cue_of(marker: Marker, folder: Path | None) -> Cue:
    """Raises ValueError if the name begins with a kind but does not give what the kind needs."""
    match = _KIND.fullmatch(marker.name)
    if match is None or match.group(2) is None and match.group(1).lower() in SPANS and marker.stop is None:
        return Cue(marker.time, "hit", None, marker.name.strip(), place=marker.place)
    kind, text = match.group(1).lower(), (match.group(2) or "").strip()
    value, name = _value_and_name(kind, text)
    stop = marker.stop if kind in SPANS else None
    if kind in SPANS and stop is None:
        raise ValueError(f"marker {marker.name!r} has no length; {kind} needs a span")
    return Cue(marker.time, kind, parse_value(kind, value, folder), name, stop, marker.place)


def marker_of(cue: Cue, folder: Path) -> Marker:
    """The marker that `cue_of` makes this cue of."""
    value, name = value_text(cue, folder), cue.name.strip()
    text = f"{value} {name}".strip()
    if _value_and_name(cue.kind, text) != (value, name):
        text = f"{value} {_SEPARATOR} {name}".strip()
    return Marker(cue.time, f"{cue.kind}: {text}" if text else cue.kind, cue.stop)


def _value_and_name(kind: str, text: str) -> tuple[str, str]:
    if kind == "mood":
        value, _, name = text.partition(_SEPARATOR)
    else:
        value, _, name = _TEXTS[kind].fullmatch(text).groups()
    return (value or "").strip(), name.strip()


def read_text(path: Path) -> str:
    """The text of a UTF-8 or UTF-16 file. Raises InputError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line}: not UTF-8 text; save the file with that encoding") from None


def of_kinds(sheet: CueSheet, kinds: Iterable[str]) -> CueSheet:
    """The cues of some kinds."""
    kinds = set(kinds)
    return CueSheet([cue for cue in sheet.cues if cue.kind in kinds], sheet.source)
