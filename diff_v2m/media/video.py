"""Properties and frames of a video file.

Frames are read with PyAV: it serves several sizes in one pass, and no damaged file ends the process, as some do in
decord. sampling.py reads single frames of whole videos with decord.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from diff_v2m.common.errors import InputError
from diff_v2m.media.color import ColorVolume, brightest, rgb, volume_of
from diff_v2m.media.container import SAME_TIME, demux, existing_file, open_container
from diff_v2m.media.cropping import Crop, crop_of
from diff_v2m.media.displaying import displayed
from diff_v2m.media.isolation import isolated, isolated_call
from diff_v2m.media.structure import missing_bytes
from diff_v2m.media.timeline import Clock, Packets, make_clock, read_packets
from diff_v2m.media.tracks import picture

CHUNK_BYTES = 64 << 20  # of the frames yielded at once
# In these decord finds every frame by its number and converts it as PyAV does. It returns other frames of MPEG-TS, AVI,
# MPEG-2 and WMV, other colours of 10-bit and interlaced pictures, and nothing of AV1.
DECORD_CODECS = ("h264", "hevc", "vp8")
DECORD_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p")
RANDOM_ACCESS = ("mp4", "matroska")
NO_TIMESTAMPS = 0x0080  # AVFMT_NOTIMESTAMPS of a format
PEAK_FRAMES = 12  # frames of a video of high dynamic range whose brightest one is its peak


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video file, in seconds, frames per second and pixels as displayed.

    As displayed: square pixels, cropped, rotated and mirrored as the file says.
    """

    duration: float  # from the first frame shown to the end of the last one; audio does not count
    fps: float  # average
    width: int
    height: int
    has_audio: bool
    rotation: int = 0  # degrees counter-clockwise by which a player turns the coded picture: 0, 90, 180, 270
    mirrored: bool = False  # left and right exchanged after that
    times: np.ndarray = field(repr=False, compare=False, default_factory=lambda: np.zeros(0))  # of each frame, sorted
    origin: float = field(repr=False, default=0.0)  # the container's timestamp of second 0
    lead: float = field(repr=False, default=0.0)  # seconds from the start of the earliest stream to second 0
    random_access: bool = field(repr=False, default=False)  # whether decord and PyAV read equal frames of it
    stream: int = field(repr=False, default=0)  # index of the picture's stream
    aspect: Fraction = field(repr=False, default=Fraction(1))  # width of a coded pixel to its height
    crop: Crop = field(repr=False, default_factory=Crop)  # of the coded picture
    codec: str = field(repr=False, default="")  # ffmpeg's name of its codec
    clock: Clock = field(repr=False, default_factory=Clock)
    by_order: bool = field(repr=False, default=False)  # frames have the times in their order, not those they carry
    volume: ColorVolume | None = field(repr=False, default=None)  # None: of a standard screen


def probe(path: str | Path) -> VideoInfo:
    """Length, rate, size and timestamps of a video file. Decodes one frame, of HDR videos a few.

    Raises InputError if it is not a whole video.
    """
    path = existing_file(path)
    stat = path.stat()
    info = _probe(path, stat.st_mtime_ns, stat.st_size)
    if path.stat().st_size != stat.st_size:
        raise InputError(f"{path}: grows while it is read; wait until it is written")
    return info


@lru_cache(maxsize=16)
def _probe(path: Path, _mtime: int, _size: int) -> VideoInfo:
    return isolated_call(path, lambda: _examine(path))


def _examine(path: Path) -> VideoInfo:
    with open_container(path) as container:
        formats = container.format.name
        if missing := missing_bytes(path, formats):
            raise InputError(f"{path}: truncated: {missing} bytes are missing at its end; copy it again")
        packets = read_packets(container)
        stream = picture(path, container, packets)
        index, own = stream.index, packets[stream.index]
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        # AVI has decoding times only, raw streams none at all: ffmpeg's guesses are wrong where frames are reordered.
        by_order = "avi" in formats or bool(container.format.flags & NO_TIMESTAMPS)
        clock = Clock() if by_order else make_clock(container, packets, index)
        shown = _shown_times(own, clock, index, rate, by_order)
        start = (container.start_time or 0) / av.time_base
        declared = (container.duration or 0) / av.time_base + max(start, 0.0)
        has_audio = bool(container.streams.audio)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        crop = crop_of(path, formats, list(container.streams.video).index(stream))
    if not len(shown):
        raise InputError(f"{path}: its video stream holds no frame; give a whole video file")
    if any(name in formats for name in ("asf", "flv")) and (end := _end(packets)) < declared - 1:
        raise InputError(f"{path}: truncated: it says {declared:.1f} s but stops after {end:.1f} s; copy it again")
    with open_container(path) as container:
        stream = container.streams[index]
        first = next(decode(path, container, stream, clock))
        codec = stream.codec_context.name
        known_to_decord = codec in DECORD_CODECS and first.format.name in DECORD_FORMATS

    origin, last, length = (float(value) for value in (shown[0, 0], *shown[-1]))
    duration = last + (length or (last - origin) / max(1, len(shown) - 1) or 1 / rate) - origin
    rotation, mirrored = _turn(first)
    crop = crop.within(first.width, first.height)
    width, height = first.width - crop.left - crop.right, first.height - crop.top - crop.bottom
    width = max(1, round(width * float(aspect)))
    width, height = (height, width) if rotation in (90, 270) else (width, height)
    volume = volume_of(first)
    plain = aspect == 1 and not (crop or mirrored or volume or first.interlaced_frame or clock.jumps)
    info = VideoInfo(
        duration=duration,
        fps=len(shown) / duration,
        width=width,
        height=height,
        has_audio=has_audio,
        rotation=rotation,
        mirrored=mirrored,
        times=shown[:, 0] - origin,
        origin=origin,
        lead=max(0.0, origin - start),
        random_access=plain and known_to_decord and any(name in formats for name in RANDOM_ACCESS) and index == 0,
        stream=index,
        aspect=aspect,
        crop=crop,
        codec=codec,
        clock=clock,
        by_order=by_order,
        volume=volume,
    )
    return replace(info, volume=_with_peak(path, info, volume)) if volume and volume.is_hdr else info


def _shown_times(packets: Packets, clock: Clock, index: int, rate: float, by_order: bool) -> np.ndarray:
    """(frames, 2) sorted: time and length of every frame shown."""
    dts, pts, length = np.array(packets.dts), np.array(packets.pts), np.array(packets.length)
    stamps = dts if by_order else np.where(np.isfinite(pts), pts, dts)
    if not np.isfinite(stamps).all():
        stamps, length = np.arange(len(stamps)) / rate, np.full(len(stamps), 1 / rate)
    frames = np.stack([clock.corrected(index, stamps), length], axis=1)[np.array(packets.shown, dtype=bool)]
    return frames[np.argsort(frames[:, 0], kind="stable")]


def _end(packets: dict[int, Packets]) -> float:
    """Where the last stream ends."""
    ends = [np.nanmax(np.array(p.dts) + np.array(p.length)) for p in packets.values() if np.isfinite(p.dts).any()]
    return float(max(ends, default=0.0))


def _turn(frame) -> tuple[int, bool]:
    """(degrees counter-clockwise, mirrored after that) of a frame's display matrix."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].astype(float)
    mirrored = a * d - b * c < 0
    a, b = (-a, b) if mirrored else (a, b)  # x is mirrored last
    return round(np.degrees(np.arctan2(-b, a)) / 90) * 90 % 360, mirrored


def _with_peak(path: Path, info: VideoInfo, volume: ColorVolume) -> ColorVolume:
    """The volume with the brightest light of a few frames spread over the video."""
    peak = 0.0
    for second in (np.arange(PEAK_FRAMES) + 0.5) / PEAK_FRAMES * info.duration:
        with contextlib.suppress(InputError), open_container(path) as container:
            stream = container.streams[info.stream]
            if not info.clock.jumps:
                _seek(container, stream, info, second)
            peak = max(peak, brightest(next(decode(path, container, stream, info.clock)), volume))
    return replace(volume, peak=peak)


def decode(path: Path, container, stream, clock: Clock) -> Iterator[Any]:
    """The stream's frames in display order. Damaged packets are skipped. Raises InputError if no frame is left."""
    found = False
    for packet in clock.packets(container, stream):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            continue
        found = found or bool(frames)
        yield from frames
    if not found:
        raise InputError(f"{path}: nothing in its {stream.type} stream can be decoded; give a whole file")


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
        wanted = [reading for reading in readings if reading.left]
        for number, times, frames in isolated(path, lambda: _read(path, info, wanted)):
            yield wanted[number].view, times, frames


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


def _read(path: Path, info: VideoInfo, readings: Sequence[_Reading]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(number of the reading, times, frames). Decode once for all of them."""
    turns = info.rotation // 90
    begin = seekable(path, info, min(reading.times[reading.done] for reading in readings))
    for frame, until in _shown(timed_frames(path, info, begin)):
        for number, reading in enumerate(readings):
            if (due := reading.due(until)) > 0:
                size = (reading.height, reading.width) if turns % 2 else (reading.width, reading.height)
                upright = np.rot90(rgb(frame, *size, reading.scaler, info.volume), turns)
                reading.batch += [upright[:, ::-1] if info.mirrored else upright] * due
            yield from ((number, times, frames) for times, frames in reading.take())
        if not any(reading.left for reading in readings):
            return


def timed_frames(path: Path, info: VideoInfo, begin: float | None = None) -> Iterator[tuple[float, av.VideoFrame]]:
    """(time, frame) in display order from the key frame before `begin` on; None: from the beginning.

    The frames are cropped and deinterlaced; pixel aspect, turn and colours are those of the file.
    """
    return displayed(_coded_frames(path, info, begin), info.crop)


def _coded_frames(path: Path, info: VideoInfo, begin: float | None) -> Iterator[tuple[float, av.VideoFrame]]:
    with open_container(path) as container:
        stream = container.streams[info.stream]
        stream.codec_context.thread_type = "AUTO"
        first = 0
        if begin is not None:
            if info.by_order:
                _seek(container, stream, info, begin)
                first = _number_of_next(container, stream, info)
            _seek(container, stream, info, begin)
        for number, frame in enumerate(decode(path, container, stream, info.clock), first):
            if info.by_order or frame.time is None:
                yield float(info.times[min(number, len(info.times) - 1)]), frame
            else:
                yield frame.time - info.origin, frame


def _number_of_next(container, stream, info: VideoInfo) -> int:
    """Number of the frame in the next packet, which is a key frame."""
    stamp = next(packet.dts for packet in demux(container, stream))
    return 0 if stamp is None else int(np.searchsorted(info.times, stamp * stream.time_base - info.origin - SAME_TIME))


def seekable(path: Path, info: VideoInfo, time: float) -> float | None:
    """The second to seek to for the frame that is shown at `time`; None: read from the beginning.

    A seek lands on the key frame before. MPEG-TS has no table of key frames, so the seek may land on the one after or
    find none; then try further back.
    """
    if info.clock.jumps:
        return None
    for begin in (time - back for back in (1, 10) if time - back > 1):  # reading from the beginning is as fast there
        with contextlib.suppress(InputError):  # the reading that follows raises it
            if next(timed_frames(path, info, begin))[0] <= time + SAME_TIME:
                return begin
    return None


def _seek(container, stream, info: VideoInfo, second: float) -> None:
    container.seek(int((info.origin + second) / stream.time_base), stream=stream)


def _shown(frames: Iterator[tuple[float, av.VideoFrame]]) -> Iterator[tuple[av.VideoFrame, float]]:
    """Every frame with the time at which the next one replaces it; infinity for the last."""
    current = None
    for time, frame in frames:
        if current is not None:
            yield current, time
        current = frame
    yield current, np.inf
