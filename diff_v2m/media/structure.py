"""Whether a file is whole, from the sizes that its container declares. Tracks and timestamps play no part in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

SEGMENT = 0x18538067  # Matroska's element that holds everything but the header


def missing_bytes(path: Path, formats: str) -> int:
    """Bytes by which a file is shorter than its container says; 0: it is whole, or the container does not say.

    formats: ffmpeg's names of the container, which mp4, Matroska and RIFF (AVI) declare sizes in.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        if "mp4" in formats:
            end = _boxes_end(file, size)
        elif "matroska" in formats:
            end = _segment_end(file, size)
        elif "avi" in formats:
            end = _riff_end(file, size)
        else:
            return 0
    return max(0, end - size)


def boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, first byte of the content, byte after it) of each box of an mp4 between two bytes.

    Reading ends at one of size 0, which reaches to the end of the file, and at damage.
    """
    at = start
    while at < stop:
        file.seek(at)
        header, content = file.read(16), 8
        length = int.from_bytes(header[:4], "big")
        if length == 1 and len(header) == 16:
            length, content = int.from_bytes(header[8:], "big"), 16
        if length < content:
            return
        yield header[4:8], at + content, at + length
        at += length


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the last box of media data of an mp4 ends."""
    return max((stop for name, _, stop in boxes(file, 0, size) if name == b"mdat"), default=0)


def _segment_end(file: BinaryIO, size: int) -> int:
    """Where the last segment of a Matroska file ends; live recordings leave its size open."""
    at = 0
    while at < size:
        file.seek(at)
        name, header, length = element(file)
        if not header or length is None:
            return size
        at += header + length
        if name == SEGMENT:
            return at
    return at


def element(file: BinaryIO) -> tuple[int, int, int | None]:
    """(name, bytes of the header, bytes of the content) of the Matroska element here.

    No header: there is none. None: its length is open.
    """
    name, width = _number(file, keep_marker=True)
    length, more = _number(file)
    if not name or not more:
        return 0, 0, None
    return name, width + more, None if length == (1 << 7 * more) - 1 else length


def _number(file: BinaryIO, keep_marker: bool = False) -> tuple[int, int]:
    """(value, bytes) of an EBML number of variable width; (0, 0) if there is none."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, 0
    width = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(width - 1), "big")
    return (value if keep_marker else value & ((1 << 7 * width) - 1)), width


def _riff_end(file: BinaryIO, size: int) -> int:
    """Where the last RIFF chunk of an AVI ends; unfinished recordings declare no size."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(8)
        length = int.from_bytes(header[4:], "little")
        if header[:4] != b"RIFF" or not length:
            return size
        at += 8 + length + length % 2
    return at
