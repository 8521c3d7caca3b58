"""The sound of a file as PyAV decodes it: the tracks that are meant, channel by channel, on the clock of the picture.

The parameters of a stream may change: each stretch of equal rate and layout becomes a `_Piece` with its own time.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.media.container import open_container
from diff_v2m.media.isolation import isolated, isolated_call
from diff_v2m.media.timeline import TS_DISCONT, Clock, make_clock, read_packets
from diff_v2m.media.tracks import SURROUND, channel_names, downmix_matrix, moving_pictures, sounds
from diff_v2m.media.video import decode, probe

GAP = 0.05  # seconds between where a frame should begin and its timestamp, from which the timestamp counts


@dataclass
class _Piece:
    """Samples without a gap, of one rate and one layout. time: seconds of the first one."""

    time: float
    rate: int
    names: tuple[str, ...]
    blocks: list[np.ndarray] = field(default_factory=list)
    samples: int = 0

    @property
    def end(self) -> float:
        return self.time + self.samples / self.rate


@dataclass(frozen=True)
class Tracks:
    """The streams that make the sound of a file (see `sounds`), and their time."""

    path: Path
    streams: tuple[int, ...]  # one, or a mono stream for each channel
    clock: Clock
    origin: float  # the container's timestamp of second 0

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of several mono streams."""
        return SURROUND if len(self.streams) == len(SURROUND) else ("FL", "FR")


def find_tracks(path: Path) -> Tracks:
    """Second 0 is the first frame of the picture; without a picture, where the file begins. Raises InputError."""
    streams, own = isolated_call(path, lambda: _meant(path))
    if own is None:
        info = probe(path)
        return Tracks(path, streams, info.clock, info.origin)
    return Tracks(path, streams, *own)


def _meant(path: Path) -> tuple[tuple[int, ...], tuple[Clock, float] | None]:
    """The streams that make the sound, and clock and second 0 of a file without a picture."""
    with open_container(path) as container:
        streams = tuple(stream.index for stream in sounds(path, container))
        if moving_pictures(container):
            return streams, None
        if not container.format.flags & TS_DISCONT:
            return streams, (Clock(), 0.0)
        packets = read_packets(container)
        return streams, (make_clock(container, packets, streams[0]), (container.start_time or 0) / av.time_base)


def read_tracks(path: Path, start: float, duration: float | None, *, keep: bool = True) -> list[list[_Piece]]:
    """The pieces of every stream that makes the sound, at least of [start, start + duration).

    keep: with their samples; without them a piece tells its time, rate, layout and length.
    """
    tracks = find_tracks(path)
    stop = np.inf if duration is None else start + duration
    return list(isolated(path, lambda: (_read_track(tracks, index, start, stop, keep) for index in tracks.streams)))


def _read_track(tracks: Tracks, index: int, start: float, stop: float, keep: bool) -> list[_Piece]:
    if start > 2 and not tracks.clock.jumps:
        # A seek may land too late, as in MPEG-TS, or after the last packet, as in MPEG-PS and WMV.
        with contextlib.suppress(InputError):
            pieces = _read_pieces(tracks, index, start - 1, stop, keep)
            if pieces and pieces[0].time <= start:
                return pieces
    return _read_pieces(tracks, index, None, stop, keep)


def _read_pieces(tracks: Tracks, index: int, begin: float | None, stop: float, keep: bool) -> list[_Piece]:
    pieces: list[_Piece] = []
    for time, names, frame in sound_frames(tracks, index, begin):
        if time > stop:
            break
        _append(pieces, time, names, frame, keep)
    return pieces


def sound_frames(
    tracks: Tracks, index: int, begin: float | None = None
) -> Iterator[tuple[float, tuple[str, ...], av.AudioFrame]]:
    """(second, names of the channels, frame) of a stream from `begin` on; None: from the beginning of the file.

    Damaged packets are skipped. Raises InputError if no frame is left.
    """
    time = None
    with open_container(tracks.path) as container:
        stream = container.streams[index]
        if begin is not None:
            container.seek(int((tracks.origin + begin) / stream.time_base), stream=stream)
        for frame in decode(tracks.path, container, stream, tracks.clock):
            time = frame.time - tracks.origin if frame.time is not None else (0.0 if time is None else time)
            names = tuple(channel.name for channel in frame.layout.channels)
            yield time, channel_names(len(names)) if "NONE" in names else names, frame
            time += frame.samples / frame.sample_rate


def _append(pieces: list[_Piece], time: float, names: tuple[str, ...], frame, keep: bool) -> None:
    last = pieces[-1] if pieces else None
    if last is None or (last.rate, last.names) != (frame.sample_rate, names) or abs(time - last.end) > GAP:
        last = _Piece(time, frame.sample_rate, names)
        pieces.append(last)
    if keep:
        last.blocks.append(samples_of(frame))
    last.samples += frame.samples


def samples_of(frame) -> np.ndarray:
    """(channels, n) float32 in ±1."""
    values = frame.to_ndarray()
    values = values if frame.format.is_planar else values.reshape(-1, len(frame.layout.channels)).T
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.float32) * np.float32(2.0 ** (1 - 8 * values.dtype.itemsize))
    return values.astype(np.float32, copy=False)


def mixed(
    pieces: Sequence[_Piece], start: float, rate: int, names: tuple[str, ...], length: int | None = None
) -> np.ndarray:
    """The pieces from second `start` on at one rate and with these channels: (channels, n) float32, n ≤ length."""
    parts = []
    for piece in pieces:
        skip = round((start - piece.time) * piece.rate)
        audio = np.concatenate(piece.blocks, axis=1)[:, max(0, skip) :]
        if length is not None:
            audio = audio[:, : max(0, int(np.ceil(length / rate * piece.rate)) + 1 + min(0, skip))]
        at = max(0, round((piece.time - start) * rate))
        parts.append((at, resampled(convert(audio, piece.names, names), piece.rate, rate)))
    end = max((at + part.shape[1] for at, part in parts), default=0)
    mix = np.zeros((len(names), end if length is None else min(end, length)), np.float32)
    for at, part in parts:
        room = mix[:, at : at + part.shape[1]]
        room[:] = part[:, : room.shape[1]]
    return mix


def resampled(audio: np.ndarray, rate: int, target: int) -> np.ndarray:
    if rate == target or not audio.shape[1]:
        return audio
    import soxr

    return soxr.resample(audio.T, rate, target).T


def convert(audio: np.ndarray, names: tuple[str, ...], to: tuple[str, ...]) -> np.ndarray:
    """Channels of one layout → those of another: each channel to its own name, else mixed down to stereo first."""
    if names == to:
        return audio
    if len(to) == 1:
        return stereo_of(audio, names).mean(axis=0, keepdims=True) if len(names) > 1 else audio
    if not set(names) <= set(to) or len(names) == 1:
        audio, names = stereo_of(audio, names), ("FL", "FR")
        to_stereo = [n for n, name in enumerate(to) if name in ("FL", "DL")] or [0]
        to_right = [n for n, name in enumerate(to) if name in ("FR", "DR")] or [min(1, len(to) - 1)]
        targets = [to_stereo[0], to_right[0]]
    else:
        targets = [to.index(name) for name in names]
    wide = np.zeros((len(to), audio.shape[1]), np.float32)
    wide[targets] = audio
    return wide


def stereo_of(audio: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """(channels, n) → (2, n): mono is repeated, more channels are mixed down, see `downmix_matrix`."""
    if len(names) == 1:
        return np.repeat(audio, 2, axis=0)
    if len(names) == 2:
        return audio
    return downmix_matrix(names) @ audio
