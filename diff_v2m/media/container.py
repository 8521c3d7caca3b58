"""Open a media file and iterate over its packets and frames, with PyAV."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import av
import av.subtitles.stream  # what av.open imports: a fork that must import may wait for ever, see isolation.py

from diff_v2m.common.errors import InputError
from diff_v2m.media.isolation import isolated_call

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
# The containers that are read. All of them hold their content: none is a list of other files or of network addresses,
# as ffconcat, HLS, DASH, SDP and IMF are, and none turns text into pictures.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,mxf,gxf,nut,rm,ivf,dv,wtv,gif,apng,"
    "yuv4mpegpipe,h264,hevc,vvc,m4v,h263,av1,obu,vc1,dirac,mjpeg,swf,flic,bink,smk,nuv,nsv,roq,r3d,mlv,"
    "wav,w64,flac,mp3,aac,ac3,eac3,aiff,au,caf,dts,truehd,mlp,ape,wv,tta,tak,amr,mpc,mpc8,loas,dsf,oma,voc"
)
Disposition = av.stream.Disposition
NO_PICTURE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
OPEN_OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}


def existing_file(path: str | Path) -> Path:
    """The absolute path, so that no name looks like an option or a protocol. Raises InputError if not readable."""
    path = Path(os.path.abspath(path))
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path}: a folder was given where one video or audio file was expected")
        if not stat.S_ISREG(mode):  # reading a pipe would wait for ever
            raise InputError(f"{path}: not a regular file; save the stream to a file first")
        with open(path, "rb") as file:
            empty = not file.read(1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}); check the name and its permissions") from error
    if empty:
        raise InputError(f"{path}: zero bytes; give a whole video or audio file")
    return path


@contextlib.contextmanager
def open_container(path: Path) -> Iterator[av.container.InputContainer]:
    """The opened file, for a `with` block. Raises InputError if it cannot be opened or read within the block."""
    try:
        container = av.open(str(path), options=OPEN_OPTIONS, metadata_errors="replace")
    except UNREADABLE as error:
        raise InputError(_cannot_open(path, error)) from error
    with container:
        try:
            yield container
        except UNREADABLE as error:
            raise InputError(f"{path}: cannot be read ({_reason(error)}); give a whole file") from error


def holds_pictures(path: Path) -> bool:
    """Whether a file is a container with moving pictures, by its content; cover art does not count."""

    def examine() -> bool:
        with open_container(path) as container:
            streams = [stream for stream in container.streams.video if not stream.disposition & NO_PICTURE]
            return any(stream.codec_context is not None for stream in streams)

    try:
        path = existing_file(path)
        return isolated_call(path, examine)
    except InputError:
        return False


def _cannot_open(path: Path, error: Exception) -> str:
    if isinstance(error, av.error.ArgumentError):  # outside the whitelist
        if is_still_picture(path):
            return (
                f"{path}: a still picture, not a video; make a video of pictures first, for example: "
                "ffmpeg -framerate 25 -i %04d.png -pix_fmt yuv420p video.mp4"
            )
        return f"{path}: not a video or audio file, but text or a list of other files; give the video file itself"
    return f"{path}: not a video or audio file, or a truncated one ({_reason(error)})"


def is_still_picture(path: Path) -> bool:
    """Whether a file is a picture that ffmpeg knows. Nothing that it names is opened."""
    import cv2

    return bool(cv2.haveImageReader(str(path)))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def decodable(path: Path, stream):
    """The stream. Raises InputError if it cannot be decoded."""
    if stream.codec_context is None:
        raise InputError(f"{path}: its {stream.type} stream cannot be decoded (Decoder not found); convert the file")
    return stream


def demux(container, *streams):
    """Packets to the end of the file, an empty one at the end of each stream. A damaged structure ends the file."""
    with contextlib.suppress(av.InvalidDataError, EOFError):
        yield from container.demux(*streams)
