"""What a video file holds, and its frames.

`iter_views` reads with PyAV: several sizes in one reading, and no damaged file can end the process, as some do in
decord. Features, pictures and evaluation read films with it. `iter_frames`, for films known to be whole, reads with
decord where it can (fast), with PyAV where decord cannot (AV1, MPEG-TS, edit lists, tiny pictures) or might hold the
whole of a long film in memory. They agree bit for bit. Readers are opened by the call that uses them: decord hangs when
one crosses a fork or a thread.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from diff_v2m.common.errors import InputError
from diff_v2m.media.container import SAME_TIME, decode, demux, existing_file, open_container, video_stream

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 << 20  # frames handed over at once never take more than this
DECORD_BYTES = 256 << 20  # all frames of a film read with decord: on a busy machine it decodes to the end, far ahead


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video file. Seconds, frames a second, pixels as displayed (rotation applied)."""

    duration: float  # from the first frame shown to the end of the last one; audio does not count
    fps: float  # average
    width: int
    height: int
    has_audio: bool
    rotation: int = 0  # degrees counter-clockwise by which a player turns the coded picture: 0, 90, 180, 270
    times: np.ndarray = field(repr=False, compare=False, default_factory=lambda: np.zeros(0))  # of each frame, sorted
    origin: float = field(repr=False, default=0.0)  # the container's timestamp of second 0 …
    lead: float = field(repr=False, default=0.0)  # … and how long that is after its earliest stream starts


def probe(path: str | Path) -> VideoInfo:
    """Length, rate, size and timestamps of a video file (decodes one frame). InputError if it is no whole video."""
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
        first = next(decode(path, container, video_stream(path, container)))

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
    )


def _read_timestamps(container, stream, rate: float) -> tuple[list[tuple[float, float]], float]:
    """Without decoding: sorted (time, length) of every frame shown, and where the file's last stream ends."""
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
    """Frames that are wanted of a video.

    times: sorted seconds; at each the frame that is shown then; None: every frame, at its own time. size: longer side
    in pixels at most, never enlarged; None: as large as it is. chunk: frames handed over at once, fewer of large ones.
    """

    times: np.ndarray | None = None
    size: int | None = None
    chunk: int = 64


def iter_frames(
    path: str | Path,
    fps: float | None,
    *,
    size: int | None = None,
    start: float = 0.0,
    stop: float | None = None,
    chunk: int = 64,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (times (n,) float64, frames (n, H, W, 3) uint8 RGB), n ≤ chunk, fewer where frames are large.

    fps: frames a second, at start, start + 1/fps, … < stop: each the frame that is shown at that time. None: every
    frame of the file, at its own time. size: longer side in pixels at most; never enlarged. Raises InputError.
    """
    path, info = existing_file(path), probe(path)
    stop = info.duration if stop is None else min(stop, info.duration)
    times = None if fps is None else start + np.arange(max(0, np.ceil((stop - start - SAME_TIME) * fps))) / fps
    pieces = _Pieces(info, View(times, size, chunk), start, stop)
    if not pieces.left:
        return
    try:
        yield from _read_decord(path, info, pieces)
    except _DecordCannot as error:
        log.debug("%s: read with PyAV, because decord says: %s", path, error)
    if pieces.left:
        yield from ((times, frames) for _, times, frames in _read_av(path, info, [pieces]))


def iter_views(
    path: str | Path, views: Sequence[View], *, start: float = 0.0, stop: float | None = None
) -> Iterator[tuple[View, np.ndarray, np.ndarray]]:
    """Several views of a video in one reading of it: yield (view, times, frames), the pieces as `iter_frames` has them.

    Of a view without times, the frames of the seconds [start, stop). With PyAV, for decord hands out one size only.
    """
    path, info = existing_file(path), probe(path)
    stop = info.duration if stop is None else min(stop, info.duration)
    wanted = [_Pieces(info, view, start, stop) for view in views]
    if any(pieces.left for pieces in wanted):
        yield from _read_av(path, info, [pieces for pieces in wanted if pieces.left])


class _Pieces:
    """A view of one film on its way: which frames are due next, and those not handed over yet."""

    def __init__(self, info: VideoInfo, view: View, start: float, stop: float):
        if (times := view.times) is None:
            times = info.times[(info.times > start - SAME_TIME) & (info.times < stop - SAME_TIME)]
        scale = min(1.0, (view.size or np.inf) / max(info.width, info.height))
        self.view, self.times = view, times
        self.width, self.height = max(1, round(info.width * scale)), max(1, round(info.height * scale))
        self.chunk = max(1, min(view.chunk, CHUNK_BYTES // (3 * self.width * self.height)))
        self.done = 0  # frames handed over
        self.batch: list[np.ndarray] = []
        self.scaler = VideoReformatter()  # one for all frames: its tables cost as much as scaling a frame

    @property
    def left(self) -> int:
        """Frames that have not been read yet."""
        return len(self.times) - self.done - len(self.batch)

    def due(self, until: float) -> int:
        """How often the frame that is shown until then is wanted."""
        return int(np.searchsorted(self.times, until - SAME_TIME)) - self.done - len(self.batch)

    def take(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(times, frames) as soon as a chunk is full, or no frame is left."""
        while len(self.batch) >= self.chunk or (self.batch and not self.left):
            frames, self.batch = self.batch[: self.chunk], self.batch[self.chunk :]
            self.done += len(frames)
            yield self.times[self.done - len(frames) : self.done], np.stack(frames)


class _DecordCannot(Exception):
    """decord cannot read this file, or not to its end."""


def _read_decord(path: Path, info: VideoInfo, pieces: _Pieces) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (times, frames). decord turns the picture itself."""
    try:
        import decord
    except ImportError as error:  # wheels exist for x86-64 only
        raise _DecordCannot(error) from error
    width, height, chunk = pieces.width, pieces.height, pieces.chunk
    if 3 * width * height * len(info.times) > DECORD_BYTES:
        raise _DecordCannot("nothing: the film is too large to risk its decoding ahead")
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(path), width=width, height=height)
        if len(reader) != len(info.times):  # an edit list, which it ignores, or a table of frames unlike ours
            raise _DecordCannot(f"{len(reader)} frames where the container has {len(info.times)}")
        numbers = np.maximum(0, np.searchsorted(info.times, pieces.times + SAME_TIME, side="right") - 1)
        for i in range(0, len(numbers), chunk):
            pieces.batch = list(reader.get_batch(numbers[i : i + chunk]).asnumpy())
            yield from pieces.take()
    except (decord.DECORDError, RuntimeError) as error:
        raise _DecordCannot(str(error).strip().partition("\n")[0]) from error


def _read_av(path: Path, info: VideoInfo, wanted: Sequence[_Pieces]) -> Iterator[tuple[View, np.ndarray, np.ndarray]]:
    """Yield (view, times, frames), decoding once for all. PyAV leaves the turning to us."""
    turns = info.rotation // 90
    begin = _seekable(path, info, min(pieces.times[pieces.done] for pieces in wanted))
    with open_container(path) as container:
        stream = video_stream(path, container)
        stream.thread_type = "AUTO"
        if begin is not None:
            _seek(container, stream, info, begin)
        for frame, until in _shown(info, decode(path, container, stream)):
            for pieces in wanted:
                if (due := pieces.due(until)) > 0:
                    size = (pieces.height, pieces.width) if turns % 2 else (pieces.width, pieces.height)
                    picture = pieces.scaler.reformat(frame, *size, "rgb24", interpolation="BICUBIC").to_ndarray()
                    pieces.batch += [np.rot90(picture, turns)] * due
                yield from ((pieces.view, times, frames) for times, frames in pieces.take())
            if not any(pieces.left for pieces in wanted):
                return


def _seekable(path: Path, info: VideoInfo, time: float) -> float | None:
    """The second to seek to for the frame that is shown at `time`; None: read from the beginning.

    Seeking should land on the key frame before, but MPEG-TS has no table of them, and it may land on the one after or
    find none: then from further back.
    """
    for begin in (time - back for back in (1, 10) if time - back > 1):  # not worth it near the beginning
        with contextlib.suppress(InputError), open_container(path) as container:  # reading on says what is wrong
            stream = video_stream(path, container)
            _seek(container, stream, info, begin)
            first = next(decode(path, container, stream)).time
            if first is not None and first - info.origin <= time + SAME_TIME:
                return begin
    return None


def _seek(container, stream, info: VideoInfo, second: float) -> None:
    container.seek(int((info.origin + second) / stream.time_base), stream=stream)


def _shown(info: VideoInfo, frames: Iterator) -> Iterator[tuple]:
    """(frame, when the next one replaces it) of every frame; the last is never replaced."""
    current = None
    for n, frame in enumerate(frames):
        time = info.times[min(n, len(info.times) - 1)] if frame.time is None else frame.time - info.origin
        if current is not None:
            yield current, time
        current = frame
    yield current, np.inf
