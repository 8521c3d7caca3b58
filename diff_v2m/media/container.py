"""Open a media file and iterate over its packets and frames, with PyAV."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import av

from diff_v2m.common.errors import InputError

SAME_TIME = 1e-4  # seconds: timestamps closer than this are equal, because containers round them
# What PyAV raises for a file it cannot read; IndexError where a stream appears in the middle of the file.
UNREADABLE = (av.FFmpegError, OSError, ValueError, IndexError, MemoryError)
# What counts as audio or video when a folder is searched; a file named directly may have any suffix. The order of the
# audio suffixes is the order of preference where one stem has several files.
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".m4a")
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"}
    | {".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp", ".gif"}
)
NOT_VIDEO = ("tty", "image2", "_pipe")  # formats that ffmpeg decodes as video: text as ANSI art, still pictures


def existing_file(path: str | Path) -> Path:
    """The absolute path, so that no name looks like an option or a protocol. Raises InputError if not readable."""
    path = Path(os.path.abspath(path))
    if path.is_dir():
        raise InputError(f"{path}: a folder was given where one video or audio file was expected")
    try:
        with open(path, "rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the name and its permissions") from error
    if empty:
        raise InputError(f"{path}: zero bytes; give a whole video or audio file")
    return path


@contextlib.contextmanager
def open_container(path: Path) -> Iterator[av.container.InputContainer]:
    """The opened file, for a `with` block. Raises InputError if it cannot be opened or read within the block."""
    try:
        container = av.open(str(path))
    except UNREADABLE as error:
        raise InputError(f"{path}: not a video or audio file, or a truncated one ({_reason(error)})") from error
    with container:
        try:
            yield container
        except UNREADABLE as error:
            raise InputError(f"{path}: cannot be read ({_reason(error)}); give a whole file") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def moving_pictures(container) -> list:
    """The video streams without cover art."""
    return [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]


def video_stream(path: Path, container):
    """The first video stream. Raises InputError if there is none that can be decoded."""
    if any(name in container.format.name for name in NOT_VIDEO):
        raise InputError(f"{path}: not a video (a still picture or text); give a video file")
    if not (streams := moving_pictures(container)):
        raise InputError(f"{path}: has no video stream; give a file with moving pictures")
    return _decodable(path, streams[0])


def audio_stream(path: Path, container):
    """The first audio stream. Raises InputError if there is none that can be decoded."""
    if not container.streams.audio:
        raise InputError(f"{path}: has no audio stream; give a file with sound")
    return _decodable(path, container.streams.audio[0])


def _decodable(path: Path, stream):
    if stream.codec_context is None:
        raise InputError(f"{path}: its {stream.type} stream cannot be decoded (Decoder not found); convert the file")
    return stream


def demux(container, *streams):
    """Packets to the end of the file, an empty one at the end of each stream. A damaged structure ends the file."""
    with contextlib.suppress(av.InvalidDataError, EOFError):
        yield from container.demux(*streams)


def decode(path: Path, container, stream):
    """The stream's frames in display order. Damaged packets are skipped. Raises InputError if no frame is left."""
    found = False
    for packet in demux(container, stream):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            continue
        found = found or bool(frames)
        yield from frames
    if not found:
        raise InputError(f"{path}: nothing in its {stream.type} stream can be decoded; give a whole file")
