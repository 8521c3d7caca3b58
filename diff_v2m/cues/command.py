"""`python -m diff_v2m cues INPUT OUTPUT`: cue sheets ↔ markers of editing programs; beats of music → either."""

import argparse
import logging
from pathlib import Path

from diff_v2m.cues.markers import FORMATS, SHEET, of_kinds, read_cues, write_cues
from diff_v2m.cues.sheet import KINDS
from diff_v2m.cues.timebase import Timebase, parse_rate, parse_start

log = logging.getLogger("diff_v2m.cues")

MUSIC_SUFFIXES = frozenset((".wav", ".flac", ".mp3", ".m4a", ".mp4", ".mid"))
SUMMARY = "convert cue sheets and markers of editing programs; write the beats of music as markers"
DESCRIPTION = (
    "Convert a cue sheet (.csv) or markers (.edl, .fcpxml, .xml, .csv of REAPER, .srt, .vtt) to another of these. Of "
    "music (.wav, .mid, .mp4, …), write the beats, so that an editor can cut to them."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="INPUT", help="cue sheet, markers or music")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="file to write; its suffix gives the format")
    formats = "; ".join(f"{name}: {form.program}" for name, form in FORMATS.items())
    parser.add_argument(
        "--to",
        choices=(SHEET, *FORMATS),
        help=f"format of OUTPUT (default: by its suffix). sheet: cue sheet; {formats}",
    )
    add_timebase(parser)
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=KINDS,
        default=KINDS,
        metavar="KIND",
        help="cues to write (default: all; markers hold no rhythm)",
    )


def add_timebase(parser: argparse.ArgumentParser, default: str = "") -> None:
    """Add --fps and --timecode-start, for `timebase_of`."""
    parser.add_argument(
        "--fps",
        metavar="N",
        help="frames a second of timecodes, such as 25 or 29.97" + (f" (default: {default})" if default else ""),
    )
    parser.add_argument(
        "--timecode-start",
        metavar="TC",
        help="timecode of the video's first frame (default: 01:00:00:00 for EDL files whose timecodes all are later, "
        "else 00:00:00:00)",
    )


def timebase_of(options: argparse.Namespace) -> Timebase:
    """The flags of `add_timebase`. Raises InputError."""
    timebase = Timebase() if options.timecode_start is None else parse_start(options.timecode_start)
    return timebase.with_fps(parse_rate(options.fps)) if options.fps else timebase


def run(options: argparse.Namespace) -> None:
    timebase = timebase_of(options)
    if options.input.suffix.lower() in MUSIC_SUFFIXES:
        from diff_v2m.cues.beats import beats_of  # imports torch

        sheet = beats_of(options.input)
    else:
        sheet = read_cues(options.input, timebase)
    sheet = of_kinds(sheet, options.kinds)
    write_cues(options.output, sheet, timebase, options.to)
    log.info("%s: %d cues → %s", options.input, len(sheet.cues), options.output)
