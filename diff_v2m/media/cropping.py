"""The part of a coded picture that is displayed, where the container says one: `clap` of mp4, PixelCrop of Matroska."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from diff_v2m.media.structure import SEGMENT, boxes, element

FULL_BOX, SAMPLE_ENTRY = 8, 78  # bytes before the boxes that these boxes hold, after their headers
TRACKS, TRACK, KIND, VIDEO = 0x1654AE6B, 0xAE, 0x83, 0xE0
EDGES = {"left": 0x54CC, "right": 0x54DD, "top": 0x54BB, "bottom": 0x54AA}
Place = tuple[int, int | None]  # first byte and the byte after the last; None: unknown


@dataclass(frozen=True)
class Crop:
    """Pixels of the coded picture, before pixel aspect and turn, that are not displayed."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def __bool__(self) -> bool:
        return any(astuple(self))

    def within(self, width: int, height: int) -> Crop:
        """The crop, or none if it leaves nothing of a picture of this size."""
        fits = min(astuple(self)) >= 0 and self.left + self.right < width and self.top + self.bottom < height
        return self if fits else Crop()


def crop_of(path: Path, formats: str, number: int) -> Crop:
    """Of video stream `number` of a file, counted from 0. formats: ffmpeg's names of the container."""
    with open(path, "rb") as file:
        size = path.stat().st_size
        crops = _of_mp4(file, size) if "mp4" in formats else _of_matroska(file) if "matroska" in formats else iter(())
        return next(islice(crops, number, None), Crop())


def _of_mp4(file: BinaryIO, size: int) -> Iterator[Crop]:
    for media in _inside(file, (0, size), b"moov", b"trak", b"mdia"):
        kinds = [_read(file, place, 12)[8:] for place in _inside(file, media, b"hdlr")]
        if kinds == [b"vide"]:
            tables = _inside(file, media, b"minf", b"stbl", b"stsd")
            yield next((_of_description(file, *table) for table in tables), Crop())


def _inside(file: BinaryIO, place: Place, *names: bytes) -> Iterator[Place]:
    """Where the contents of boxes with the last name are, in boxes with the names before it."""
    for name, start, stop in boxes(file, *place):
        if name == names[0]:
            yield from _inside(file, (start, stop), *names[1:]) if names[1:] else ((start, stop),)


def _of_description(file: BinaryIO, start: int, stop: int) -> Crop:
    for _, *entry in boxes(file, start + FULL_BOX, stop):
        size = _read(file, entry, 28)[24:].ljust(4, b"\0")
        for name, *place in boxes(file, entry[0] + SAMPLE_ENTRY, entry[1]):
            if name == b"clap":
                values = struct.unpack(">8i", _read(file, place, 32).ljust(32, b"\0"))
                if all(values[1::2]):
                    return _clean(*struct.unpack(">2H", size), *map(Fraction, values[::2], values[1::2]))
    return Crop()


def _clean(width: int, height: int, wide: Fraction, high: Fraction, right: Fraction, down: Fraction) -> Crop:
    """A clean aperture of `wide` × `high` pixels whose centre lies so far right of the picture's, and so far down."""
    left, top = math.floor((width - wide) / 2 + right), math.floor((height - high) / 2 + down)
    return Crop(left, width - left - int(wide), top, height - top - int(high))


def _of_matroska(file: BinaryIO) -> Iterator[Crop]:
    for segment in _elements(file, (0, None), SEGMENT):
        for tracks in islice(_elements(file, segment, TRACKS), 1):
            for track in _elements(file, tracks, TRACK):
                if _value(file, track, KIND) == 1:  # video
                    yield Crop(**{name: _value(file, track, VIDEO, key) for name, key in EDGES.items()})


def _elements(file: BinaryIO, place: Place, *names: int) -> Iterator[Place]:
    """Where the contents of elements with the last name are, in elements with the names before it.

    Reading ends at an element of unknown length.
    """
    at, end = place
    while end is None or at < end:
        file.seek(at)
        name, header, length = element(file)
        if not header:
            return
        stop = None if length is None else at + header + length
        if name == names[0]:
            inside = at + header, stop
            yield from _elements(file, inside, *names[1:]) if names[1:] else (inside,)
        if stop is None:
            return
        at = stop


def _value(file: BinaryIO, place: Place, *names: int) -> int:
    """The number in the first of these elements; 0 without one."""
    found = next(_elements(file, place, *names), (0, 0))
    return int.from_bytes(_read(file, found, 8), "big")


def _read(file: BinaryIO, place: Sequence[int | None], most: int) -> bytes:
    start, stop = place
    file.seek(start or 0)
    return file.read(most if stop is None else min(most, stop - (start or 0)))
