"""Properties and frames of a video file.

Frames are read with PyAV: it serves several sizes in one pass, and no damaged file ends the process, as some do in
decord. sampling.py reads single frames of whole videos with decord.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from diff_v2m.common.errors import InputError
from diff_v2m.media.container import SAME_TIME, decode, demux, existing_file, open_container, video_stream

CHUNK_BYTES = 64 << 20  # of the frames yielded at once
# In these decord finds every frame by its number and converts it as PyAV does. It returns other frames of MPEG-TS, AVI,
# MPEG-2 and WMV, other colours of 10-bit and interlaced pictures, and nothing of AV1.
DECORD_CODECS = ("h264", "hevc", "vp8")
DECORD_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p")


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video file, in seconds, frames per second and pixels as displayed (rotation applied)."""

    duration: float  # from the first frame shown to the end of the last one; audio does not count
    fps: float  # average
    width: int
    height: int
    has_audio: bool
    rotation: int = 0  # degrees counter-clockwise by which a player turns the coded picture: 0, 90, 180, 270
    times: np.ndarray = field(repr=False, compare=False, default_factory=lambda: np.zeros(0))  # of each frame, sorted
    origin: float = field(repr=False, default=0.0)  # the container's timestamp of second 0
    lead: float = field(repr=False, default=0.0)  # seconds from the start of the earliest stream to second 0
    random_access: bool = field(repr=False, default=False)  # whether decord and PyAV read equal frames of it


def probe(path: str | Path) -> VideoInfo:
    """Length, rate, size and timestamps of a video file. Decodes one frame. Raises InputError if it is not whole."""
    path = existing_file(path)
    stat = path.stat()
    return _probe(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _probe(path: Path, _mtime: int, _size: int) -> VideoInfo:
    with open_container(path) as container:
        stream = video_stream(path, container)
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        shown, file_end = _read_timestamps(container, stream, rate)
        start = (container.start_time or 0) / av.time_base
        declared = (container.duration or 0) / av.time_base + max(start, 0.0)
        has_audio = bool(container.streams.audio)
        says_its_length = any(name in container.format.name for name in ("mp4", "matroska"))
    if not shown:
        raise InputError(f"{path}: its video stream holds no frame; give a whole video file")
    if says_its_length and file_end < declared - 1:
        raise InputError(f"{path}: truncated: it says {declared:.1f} s but stops after {file_end:.1f} s; copy it again")
    with open_container(path) as container:
        stream = video_stream(path, container)
        first = next(decode(path, container, stream))
        known_to_decord = stream.codec_context.name in DECORD_CODECS and first.format.name in DECORD_FORMATS

    origin, last, length = shown[0][0], *shown[-1]
    duration = last + (length or (last - origin) / max(1, len(shown) - 1) or 1 / rate) - origin
    rotation = round(first.rotation / 90) * 90 % 360
    width, height = (first.height, first.width) if rotation in (90, 270) else (first.width, first.height)
    return VideoInfo(
        duration=duration,
        fps=len(shown) / duration,
        width=width,
        height=height,
        has_audio=has_audio,
        rotation=rotation,
        times=np.array([time for time, _ in shown]) - origin,
        origin=origin,
        lead=max(0.0, origin - start),
        random_access=says_its_length and known_to_decord and not first.interlaced_frame,
    )


def _read_timestamps(container, stream, rate: float) -> tuple[list[tuple[float, float]], float]:
    """Sorted (time, length) of every frame shown, and where the file's last stream ends. Decodes nothing."""
    shown, end = [], 0.0
    for packet in demux(container):
        if not packet.size:  # the empty one that ends a stream
            continue
        stamp = packet.dts if packet.pts is None else packet.pts
        if packet.stream is stream and stamp is None:  # a raw stream: only the order is known
            shown.append((len(shown) / rate, 1 / rate))
        if stamp is None:
            continue
        time, length = float(stamp * packet.time_base), float((packet.duration or 0) * packet.time_base)
        end = max(end, time + length)
        if packet.stream is stream and not packet.is_discard:  # discarded: an edit list hides the frame
            shown.append((time, length))
    return sorted(shown), end


@dataclass(frozen=True, eq=False)
class View:
    """Which frames of a video to read, and how large.

    times: sorted seconds, for each the frame shown at that time; None: every frame, at its own time.
    size: longer side in pixels at most, never enlarged; None: the video's own size.
    chunk: number of frames yielded at once, fewer of large ones.
    """

    times: np.ndarray | None = None
    size: int | None = None
    chunk: int = 64


def iter_views(
    path: str | Path, views: Sequence[View], *, start: float = 0.0, stop: float | None = None
) -> Iterator[tuple[View, np.ndarray, np.ndarray]]:
    """Read several views of a video in one pass: yield (view, times (n,) float64, frames (n, H, W, 3) uint8 RGB).

    start, stop: seconds [start, stop) whose frames a view without times selects. Raises InputError.
    """
    path, info = existing_file(path), probe(path)
    stop = info.duration if stop is None else min(stop, info.duration)
    readings = [_Reading(info, view, start, stop) for view in views]
    if any(reading.left for reading in readings):
        yield from _read(path, info, [reading for reading in readings if reading.left])


class _Reading:
    """Progress of one view: which frames are due next, and those not yielded yet."""

    def __init__(self, info: VideoInfo, view: View, start: float, stop: float):
        if (times := view.times) is None:
            times = info.times[(info.times > start - SAME_TIME) & (info.times < stop - SAME_TIME)]
        scale = min(1.0, (view.size or np.inf) / max(info.width, info.height))
        self.view, self.times = view, times
        self.width, self.height = max(1, round(info.width * scale)), max(1, round(info.height * scale))
        self.chunk = max(1, min(view.chunk, CHUNK_BYTES // (3 * self.width * self.height)))
        self.done = 0  # frames yielded
        self.batch: list[np.ndarray] = []
        self.scaler = VideoReformatter()  # one for all frames: building its tables costs as much as scaling a frame

    @property
    def left(self) -> int:
        """Number of frames not read yet."""
        return len(self.times) - self.done - len(self.batch)

    def due(self, until: float) -> int:
        """Number of requests for the frame that is shown until then."""
        return int(np.searchsorted(self.times, until - SAME_TIME)) - self.done - len(self.batch)

    def take(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(times, frames) of every full chunk, and of the last one."""
        while len(self.batch) >= self.chunk or (self.batch and not self.left):
            frames, self.batch = self.batch[: self.chunk], self.batch[self.chunk :]
            self.done += len(frames)
            yield self.times[self.done - len(frames) : self.done], np.stack(frames)


def _read(path: Path, info: VideoInfo, readings: Sequence[_Reading]) -> Iterator[tuple[View, np.ndarray, np.ndarray]]:
    """Decode once for all views. PyAV does not apply the rotation."""
    turns = info.rotation // 90
    begin = _seekable(path, info, min(reading.times[reading.done] for reading in readings))
    with open_container(path) as container:
        stream = video_stream(path, container)
        stream.thread_type = "AUTO"
        if begin is not None:
            _seek(container, stream, info, begin)
        for frame, until in _shown(info, decode(path, container, stream)):
            for reading in readings:
                if (due := reading.due(until)) > 0:
                    size = (reading.height, reading.width) if turns % 2 else (reading.width, reading.height)
                    picture = reading.scaler.reformat(frame, *size, "rgb24", interpolation="BICUBIC").to_ndarray()
                    reading.batch += [np.rot90(picture, turns)] * due
                yield from ((reading.view, times, frames) for times, frames in reading.take())
            if not any(reading.left for reading in readings):
                return


def _seekable(path: Path, info: VideoInfo, time: float) -> float | None:
    """The second to seek to for the frame that is shown at `time`; None: read from the beginning.

    A seek lands on the key frame before. MPEG-TS has no table of key frames, so the seek may land on the one after or
    find none; then try further back.
    """
    for begin in (time - back for back in (1, 10) if time - back > 1):  # reading from the beginning is as fast there
        with contextlib.suppress(InputError), open_container(path) as container:  # the reading that follows raises it
            stream = video_stream(path, container)
            _seek(container, stream, info, begin)
            first = next(decode(path, container, stream)).time
            if first is not None and first - info.origin <= time + SAME_TIME:
                return begin
    return None


def _seek(container, stream, info: VideoInfo, second: float) -> None:
    container.seek(int((info.origin + second) / stream.time_base), stream=stream)


def _shown(info: VideoInfo, frames: Iterator) -> Iterator[tuple]:
    """Every frame with the time at which the next one replaces it; infinity for the last."""
    current = None
    for n, frame in enumerate(frames):
        time = info.times[min(n, len(info.times) - 1)] if frame.time is None else frame.time - info.origin
        if current is not None:
            yield current, time
        current = frame
    yield current, np.inf
