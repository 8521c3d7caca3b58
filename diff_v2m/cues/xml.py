"""Markers in FCPXML (Final Cut Pro) and in the XML of Final Cut Pro 7, which Premiere reads and writes."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from diff_v2m.common.errors import InputError
from diff_v2m.cues.marker import Marker, at_line, marker
from diff_v2m.cues.timebase import Timebase, nearest_rate

_MARKERS = ("marker", "chapter-marker")
_LONGEST_FRAME = 0.05  # seconds; a marker that is no longer has no length
_Span = tuple[Fraction | float, Fraction | float]  # first second and that after the last
_ALWAYS: _Span = (-math.inf, math.inf)
_LINE = "line of the file"  # attribute that holds an element's line: no XML name has blanks


def read_fcpxml(text: str, source: Path, timebase: Timebase) -> list[Marker]:
    """Markers of the timeline and of its clips, at their place in the timeline.

    Times are rational seconds. A clip's markers count in the clip's own time, from its `start`; those outside the part
    that is used are not shown, and not read. A clip inside a clip is used as far as both are; one that is connected to
    it, in a lane, may be longer. The timeline begins at its `tcStart`.
    """
    sequence = _only(_parse(text, source), source)
    with at_line(source, _line(sequence)):
        origin = _seconds(sequence, "tcStart", "0s")
    return list(_markers_in(sequence, -origin, _ALWAYS, source))


def write_fcpxml(markers: list[Marker], timebase: Timebase, title: str) -> str:
    """A timeline of one gap that holds the markers."""
    frame = timebase.frame_duration()
    origin = timebase.frame(timebase.seconds_at_start) * frame
    last = max((item.time if item.stop is None else item.stop for item in markers), default=0.0)
    length = (timebase.frame(last) + 1) * frame
    lines = []
    for item in markers:
        span = 1 if item.stop is None else max(1, timebase.frame(item.stop) - timebase.frame(item.time))
        place = f'start="{_text(origin + timebase.frame(item.time) * frame)}" duration="{_text(span * frame)}"'
        lines.append(f"            <marker {place} value={quoteattr(item.name)}/>")
    body = "\n".join(lines)
    drop = "DF" if timebase.drop_frame else "NDF"
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE fcpxml>
<fcpxml version="1.10">
  <resources>
    <format id="r1" frameDuration="{_text(frame)}"/>
  </resources>
  <library>
    <event name={quoteattr(title)}>
      <project name={quoteattr(title)}>
        <sequence format="r1" duration="{_text(length)}" tcStart="{_text(origin)}" tcFormat="{drop}">
          <spine>
          <gap name="Gap" offset="{_text(origin)}" start="{_text(origin)}" duration="{_text(length)}">
{body}
          </gap>
          </spine>
        </sequence>
      </project>
    </event>
  </library>
</fcpxml>
"""


def read_fcp7(text: str, source: Path, timebase: Timebase) -> list[Marker]:
    """Markers of the sequence and of its clips, at their place in it.

    Times are frames. A clip's markers count in the clip's own time; those outside the part that is used are not read.
    """
    sequence = _only(_parse(text, source), source)
    with at_line(source, _line(sequence)):
        fps = _rate(sequence) or timebase.fps
        if fps is None:
            raise ValueError("the sequence has no rate; give --fps")
    found = [marker for marker, _ in _with_frames(sequence, fps, 0.0, source)]
    for clip in sequence.iterfind("media/*/track/clipitem"):
        if clip.find("marker") is None:
            continue
        with at_line(source, _line(clip)):
            rate = _rate(clip) or fps
            first, last, start = _frames(clip, "in"), _frames(clip, "out"), _frames(clip, "start")
            length = float((last - first) / rate)
            begins = float(start / fps) if start >= 0 else float(_frames(clip, "end") / fps) - length
        shift = begins - float(first / rate)
        found += [marker for marker, frame in _with_frames(clip, rate, shift, source) if first <= frame < last]
    return found


def write_fcp7(markers: list[Marker], timebase: Timebase, title: str) -> str:
    """A sequence without clips that holds the markers."""
    fps = 1 / timebase.frame_duration()
    rate = (
        f"<rate><timebase>{math.ceil(fps)}</timebase><ntsc>{'TRUE' if fps.denominator > 1 else 'FALSE'}</ntsc></rate>"
    )
    last = max((item.time if item.stop is None else item.stop for item in markers), default=0.0)
    lines = []
    for item in markers:
        first = timebase.frame(item.time)
        stop = -1 if item.stop is None else max(timebase.frame(item.stop), first + 1)
        lines.append(
            f"    <marker><name>{escape(item.name)}</name><comment></comment><in>{first}</in><out>{stop}</out></marker>"
        )
    body = "\n".join(lines)
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE xmeml>
<xmeml version="4">
  <sequence>
    <name>{escape(title)}</name>
    <duration>{timebase.frame(last) + 1}</duration>
    {rate}
    <timecode>{rate}<string>{timebase.timecode(0.0)}</string></timecode>
    <media><video><track/></video></media>
{body}
  </sequence>
</xmeml>
"""


def _markers_in(container: ET.Element, shift: Fraction, around: _Span, source: Path) -> Iterator[Marker]:
    """Markers in an FCPXML element; `shift` added to its own time gives seconds of the video.

    around: seconds of the video in which the clips around it are shown.
    """
    shown = around
    with at_line(source, _line(container)):
        if container.tag not in ("sequence", "spine") and container.get("duration") is not None:
            first = _seconds(container, "start", "0s") + shift
            shown = max(around[0], first), min(around[1], first + _seconds(container, "duration"))
    following = Fraction(0)  # where an item of a spine begins that does not say so
    for element in container:
        with at_line(source, _line(element)):
            if element.tag in _MARKERS:
                time = _seconds(element, "start") + shift
                if not shown[0] <= time < shown[1]:
                    continue
                if container.find("timeMap") is not None:
                    raise ValueError("a marker on a retimed clip; put it on the timeline")
                length = float(_seconds(element, "duration", "0s"))
                name = element.get("value", "")
                yield marker(float(time), name, length, _line(element), shortest=_LONGEST_FRAME)
            elif element.tag == "spine" and element.get("offset") is None:
                yield from _markers_in(element, shift, shown, source)
            elif container.tag == "spine" or element.get("offset") is not None:
                offset = _seconds(element, "offset", _text(following))
                connected = element.get("lane", "0") != "0"
                inner = shift + offset - _seconds(element, "start", "0s")
                yield from _markers_in(element, inner, around if connected else shown, source)
                following = offset + _seconds(element, "duration", "0s")


def _with_frames(owner: ET.Element, rate: Fraction, shift: float, source: Path) -> Iterator[tuple[Marker, int]]:
    """Markers of a sequence or clip, each with its first frame there; `shift` gives seconds of the video."""
    for element in owner.findall("marker"):
        with at_line(source, _line(element)):
            first, last = _frames(element, "in"), _frames(element, "out")
            name = element.findtext("name") or element.findtext("comment") or ""
            length, frame = float(max(last - first, 0) / rate), float(1 / rate)
            yield marker(float(first / rate) + shift, name, length, _line(element), shortest=frame), first


def _only(root: ET.Element, source: Path) -> ET.Element:
    """The one timeline of a file; those inside it do not count."""
    found = list(_timelines(root))
    if len(found) != 1:
        raise InputError(f"{source}: {len(found)} timelines; export the one whose markers are meant")
    return found[0]


def _timelines(element: ET.Element) -> Iterator[ET.Element]:
    if element.tag == "sequence":
        yield element
    elif element.tag != "media":  # a compound clip among the resources
        for child in element:
            yield from _timelines(child)


def _parse(text: str, source: Path) -> ET.Element:
    """The root; every element's line is in its attribute _LINE."""
    parser, builder = expat.ParserCreate(), ET.TreeBuilder()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {**attributes, _LINE: str(parser.CurrentLineNumber)})

    parser.StartElementHandler, parser.EndElementHandler = start, builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(text, True)
        return builder.close()
    except expat.ExpatError as error:
        raise InputError(f"{source}: line {error.lineno}: no XML ({expat.ErrorString(error.code)})") from None


def _line(element: ET.Element) -> int:
    return int(element.get(_LINE, "0"))


def _seconds(element: ET.Element, name: str, default: str = "") -> Fraction:
    """An attribute such as `3600s` or `1001/30000s`."""
    text = element.get(name, default)
    try:
        if not text.endswith("s"):
            raise ValueError
        return Fraction(text[:-1])
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name} is {text!r}; expected rational seconds, such as 1001/30000s") from None


def _text(seconds: Fraction) -> str:
    return f"{seconds.numerator}s" if seconds.denominator == 1 else f"{seconds.numerator}/{seconds.denominator}s"


def _rate(element: ET.Element) -> Fraction | None:
    """Frames a second of a sequence or clip; None if it names none."""
    text = element.findtext("rate/timebase")
    if text is None:
        return None
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"timebase {text!r}; expected a whole number of frames a second")
    ntsc = (element.findtext("rate/ntsc") or "").strip().upper() == "TRUE"
    return Fraction(int(text) * 1000, 1001) if ntsc else nearest_rate(Fraction(int(text)))


def _frames(element: ET.Element, name: str) -> int:
    text = (element.findtext(name) or "").strip()
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"<{name}> is {text!r}; expected a number of frames") from None
