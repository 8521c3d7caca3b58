"""Whether a file is whole, from the sizes that its container declares. Tracks and timestamps play no part in it."""

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


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the last box of media data of an mp4 ends. A box of size 0 reaches to the end of the file."""
    at = end = 0
    while at < size:
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1 and len(header) == 16:
            length = int.from_bytes(header[8:], "big")
        if length < 8:
            break
        at += length
        end = at if header[4:8] == b"mdat" else end
    return end


def _segment_end(file: BinaryIO, size: int) -> int:
    """Where the last segment of a Matroska file ends; live recordings leave its size open."""
    at = 0
    while at < size:
        file.seek(at)
        element, name = _number(file, keep_marker=True)
        length, width = _number(file)
        if not element or not width or length == (1 << 7 * width) - 1:  # all ones: open-ended
            return size
        at += name + width + length
        if element == SEGMENT:
            return at
    return at


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
