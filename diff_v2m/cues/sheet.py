"""`CueSheet`: what a person wants of the music of one video.

    sheet = CueSheet([Cue(12.48, "hit", name="door"), Cue(20, "mood", "navy gold", stop=26)])

A cue that is absent is left to the model: seconds without `rhythm` are predicted, and cuts and beats are detected
unless the sheet has any.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Real
from pathlib import Path

import numpy as np
from PIL import ImageColor

from diff_v2m.common.errors import InputError

KINDS = ("rhythm", "cut", "beat", "hit", "mood", "silence", "end")
SPANS = ("mood", "silence")
NONE = "none"  # value of a cut or beat that says: there are none
IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"))
FADE = 0.5  # seconds, of a silence without a value
LONGEST_FADE = 60  # seconds; each of its samples takes memory
CLOSEST = 0.25  # seconds between two hits
SAME_LENGTH = 0.25  # seconds by which a video and the end in its sheet may differ
PAST_END = 0.05  # seconds by which a time may lie after the end: it was rounded


@dataclass(frozen=True)
class Cue:
    """One row of a sheet. Seconds from the first frame of the video.

    rhythm    of the second that begins at `time`: the value is the strength of its strongest onset, as the model
              predicts it
    cut       of the picture; value "none" and time 0: there are none
    beat      peak of the picture's motion, value 0 to 1; "none" likewise
    hit       the music accents this moment; value 0 to 1 is how much the rhythm is raised there
    mood      from `time` to `stop` the palette is the value: colours such as "navy gold #ff8800", or an image file
    silence   from `time` to `stop` there is no music; the value is the seconds of fade before and after it, "0.5" or
              "1 0.2", each at most LONGEST_FADE
    end       the length of the video; a sheet for a video of another length is refused
    """

    time: float
    kind: str
    value: float | str | None = None
    name: str = ""
    stop: float | None = None
    place: str = ""  # for messages: "line 7"

    def __str__(self) -> str:
        until = "" if self.stop is None else f"-{self.stop:g}"
        return f"{self.place + ': ' if self.place else ''}{self.kind} {self.time:g}{until}"

    @property
    def fades(self) -> tuple[float, float]:
        """Seconds of fade before and after a silence."""
        parts = [FADE] if self.value is None else [float(part) for part in str(self.value).split()]
        return parts[0], parts[-1]


class CueSheet:
    """Cues, ordered by time. Raises InputError for a cue that cannot be used; the message names `source`."""

    def __init__(self, cues: Iterable[Cue] = (), source: str = ""):
        self.source = source
        given = list(cues)
        for cue in given:
            self._check(cue)
        for kind in KINDS:
            self._check_order([cue for cue in given if cue.kind == kind])
        self._check_hits(given)
        self.cues = tuple(sorted(given, key=lambda cue: (cue.time, KINDS.index(cue.kind))))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CueSheet) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def __getitem__(self, kind: str) -> tuple[Cue, ...]:
        """All cues of a kind, without "none"."""
        return tuple(cue for cue in self.cues if cue.kind == kind and cue.value != NONE)

    def __bool__(self) -> bool:
        return bool(self.cues)

    def decides(self, kind: str) -> bool:
        """Whether the sheet has a cue of this kind, "none" among them."""
        return any(cue.kind == kind for cue in self.cues)

    @property
    def hits(self) -> np.ndarray:
        """(n,) seconds of the hits, rising."""
        return np.array([cue.time for cue in self["hit"]], float)

    def replacing(self, kinds: Iterable[str], cues: Iterable[Cue]) -> CueSheet:
        """The sheet with these cues instead of all of its own of these kinds."""
        kinds = set(kinds)
        return CueSheet([*(cue for cue in self.cues if cue.kind not in kinds), *cues], self.source)

    def images(self) -> list[Path]:
        """Image files of the moods."""
        return [Path(str(cue.value)) for cue in self["mood"] if is_image(str(cue.value))]

    def check_video(self, duration: float, seconds: int) -> None:
        """Raise InputError unless the sheet fits a video of `duration` seconds with `seconds` per-second features."""
        for cue in self.cues:
            if cue.kind == "end":
                if abs(cue.time - duration) > SAME_LENGTH:
                    of = f" ({cue.name})" if cue.name else ""
                    raise self._error(
                        cue,
                        f"the sheet is of a video of {cue.time:.2f} s{of}, this one has {duration:.2f} s; give the "
                        "sheet of this video, or remove that row if the video was cut again",
                    )
                continue
            last = cue.time if cue.stop is None else cue.stop
            end = seconds - 1 if cue.kind == "rhythm" else duration + PAST_END
            if last > end:
                raise self._error(
                    cue, f"after the end of the video, which has {duration:.2f} s; is it another video's?"
                )

    def _check(self, cue: Cue) -> None:
        if cue.kind not in KINDS:
            raise self._error(cue, f"unknown kind {cue.kind!r}; expected one of {', '.join(KINDS)}")
        for seconds in (cue.time, cue.stop):
            if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
                raise self._error(cue, "a time is negative or not a finite number")
        if (cue.stop is not None) != (cue.kind in SPANS):
            expected = "start-end, such as 12-20" if cue.kind in SPANS else "one time"
            raise self._error(cue, f"expected {expected}")
        if cue.stop is not None and cue.stop <= cue.time:
            raise self._error(cue, "the span ends before it begins")
        problem = _CHECKS[cue.kind](cue)
        if problem:
            raise self._error(cue, problem)

    def _check_order(self, cues: list[Cue]) -> None:
        for before, cue in pairwise(cues):
            if cue.kind == "end":
                raise self._error(cue, f"a second end, after {before}")
            if NONE in (cue.value, before.value):
                raise self._error(cue, f'"none" stands beside other rows of kind {cue.kind} ({before})')
            if cue.time < before.time:
                raise self._error(cue, f"unsorted: after {before}; sort the rows of each kind by time")
            if cue.time == before.time:
                raise self._error(cue, f"the time of {before} again")
            if before.stop is not None and cue.time < before.stop:
                raise self._error(cue, f"overlaps {before}")

    def _check_hits(self, cues: list[Cue]) -> None:
        hits = [cue for cue in cues if cue.kind == "hit"]
        for before, cue in pairwise(hits):
            if cue.time - before.time < CLOSEST - 1e-9:
                raise self._error(
                    cue, f"only {cue.time - before.time:.2f} s after {before}; hits need {CLOSEST} s between them"
                )
        for silence in (cue for cue in cues if cue.kind == "silence"):
            for hit in hits:
                if silence.time < hit.time < silence.stop:
                    raise self._error(hit, f"lies in the {silence}; there is no music to accent")

    def _error(self, cue: Cue, problem: str) -> InputError:
        source = f"{self.source}: " if self.source else ""
        return InputError(f"{source}{cue}: {problem}")

    def _content(self) -> tuple[Cue, ...]:
        return tuple(replace(cue, place="") for cue in self.cues)


def is_image(value: str) -> bool:
    """Whether the value of a mood is an image file rather than colours."""
    return Path(value).suffix.lower() in IMAGE_SUFFIXES


def colors_of(value: str) -> list[tuple[int, int, int]]:
    """Colours, separated by blanks, commas, semicolons or plus signs → RGB, 0 to 255. Raises ValueError."""
    names = [name for name in re.split(r"[\s,;+]+", value.strip()) if name]
    if not names:
        raise ValueError("no colour")
    return [ImageColor.getrgb(name)[:3] for name in names]


def _is_number(value: object, least: float = -math.inf, most: float = math.inf) -> bool:
    numeric = isinstance(value, Real) and not isinstance(value, bool)
    return numeric and math.isfinite(value) and least <= value <= most  # type: ignore[arg-type, operator]


def _rhythm(cue: Cue) -> str:
    if not _is_number(cue.value):
        return f"value {cue.value!r}; expected a finite number"
    return "" if cue.time == int(cue.time) else "rhythm has a value for each whole second"


def _cut(cue: Cue) -> str:
    return "" if cue.value in (None, NONE) else f"value {cue.value!r}; expected no value"


def _strength(cue: Cue) -> str:
    known = cue.value is None or cue.value == NONE and cue.kind == "beat" or _is_number(cue.value, 0, 1)
    return "" if known else f"value {cue.value!r}; expected a number from 0 to 1"


def _mood(cue: Cue) -> str:
    if not isinstance(cue.value, str) or not cue.value.strip():
        return "expected colours, such as navy gold, or an image file as the value"
    if is_image(cue.value):
        return "" if Path(cue.value).is_file() else f"no such image file: {cue.value}"
    try:
        colors_of(cue.value)
    except ValueError:
        return f"{cue.value!r}: expected names of colours or #rrggbb, separated by blanks, or an image file"
    return ""


def _silence(cue: Cue) -> str:
    try:
        fades = [FADE] if cue.value is None else [float(part) for part in str(cue.value).split()]
    except ValueError:
        fades = []
    if len(fades) in (1, 2) and all(0 <= fade <= LONGEST_FADE for fade in fades):
        return ""
    return (
        f"value {cue.value!r}; expected the seconds of the fades, from 0 to {LONGEST_FADE}, such as 0.5, or 1 0.2 for "
        "out and in"
    )


_CHECKS = {
    "rhythm": _rhythm,
    "cut": _cut,
    "beat": _strength,
    "hit": _strength,
    "mood": _mood,
    "silence": _silence,
    "end": lambda cue: "",
}
