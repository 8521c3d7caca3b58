"""The sound of a video as consecutive blocks, so that memory does not grow with its length."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diff_v2m.media.container import existing_file, open_container
from diff_v2m.media.isolation import isolated, isolated_call
from diff_v2m.media.multitrack import NO_LANGUAGE
from diff_v2m.media.soundtrack import GAP, Tracks, convert, find_tracks, samples_of, sound_frames
from diff_v2m.media.tracks import channel_names
from diff_v2m.media.video import probe

SILENCE = 1 << 18  # samples of silence given at once
_SILENCE_LEVEL = 1e-3  # −60 dB of full scale


@dataclass(frozen=True)
class SoundStream:
    """The sound of a video file. channels: names as in ffmpeg's layouts: FL, FR, FC, LFE, BL, …."""

    tracks: Tracks
    sample_rate: int
    channels: tuple[str, ...]
    codec: str
    language: str  # ISO 639-2
    others: int = 0  # further audio streams of the file, which are not part of it

    @property
    def is_one_stream(self) -> bool:
        """Whether one stream of the file, copied as it is, is this sound."""
        return len(self.tracks.streams) == 1 and not self.tracks.clock.jumps

    def blocks(self, sample_rate: int) -> Iterator[np.ndarray]:
        """Consecutive blocks (channels, n) float32, full scale ±1, from the first frame of the picture on.

        Silence fills gaps, and the time until the sound begins. It ends where the sound does. Another layout in the
        middle of the file is converted. Raises InputError.
        """
        if len(self.tracks.streams) == 1:
            return self._of_stream(0, self.channels, sample_rate)
        mono = range(len(self.tracks.streams))
        return _side_by_side([self._of_stream(n, ("FC",), sample_rate) for n in mono])

    def _of_stream(self, number: int, channels: tuple[str, ...], sample_rate: int) -> Iterator[np.ndarray]:
        frames = isolated(self.tracks.path, lambda: _frames(self.tracks, number, channels))
        return _joined(frames, sample_rate, len(channels))


def open_sound(path: str | Path) -> SoundStream | None:
    """The sound of a video; None if it has no audio stream. Raises InputError."""
    path = existing_file(path)
    if not probe(path).has_audio:
        return None
    tracks = find_tracks(path)
    return isolated_call(path, lambda: _stream_of(tracks))


def _stream_of(tracks: Tracks) -> SoundStream:
    with open_container(tracks.path) as container:
        stream: Any = container.streams[tracks.streams[0]]
        names = tuple(channel.name for channel in stream.layout.channels)
        names = channel_names(len(names)) if "NONE" in names else names
        names = names if len(tracks.streams) == 1 else tracks.channels
        others = len(container.streams.audio) - len(tracks.streams)
        language = stream.language or NO_LANGUAGE
        return SoundStream(tracks, stream.rate, names, stream.codec_context.name, language, others)


def is_audible(path: str | Path, seconds: float = 600.0) -> bool:
    """Whether a video has sound that is no silence, in its first seconds. Raises InputError."""
    path = existing_file(path)
    if not probe(path).has_audio:
        return False
    tracks = find_tracks(path)
    return isolated_call(path, lambda: any(_is_audible(tracks, index, seconds) for index in tracks.streams))


def _is_audible(tracks: Tracks, index: int, seconds: float) -> bool:
    for time, _, frame in sound_frames(tracks, index):
        if time > seconds:
            break
        if time >= 0 and np.abs(samples_of(frame)).max(initial=0) > _SILENCE_LEVEL:
            return True
    return False


def _frames(tracks: Tracks, number: int, channels: tuple[str, ...]) -> Iterator[tuple[float, int, np.ndarray]]:
    """(second, sample rate, samples) of each frame of a stream."""
    for time, names, frame in sound_frames(tracks, tracks.streams[number]):
        yield time, frame.sample_rate, convert(samples_of(frame), names, channels)


def _side_by_side(sides: list[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """Blocks of mono streams → blocks of all of them, to the end of the shortest."""
    waiting = [np.zeros((1, 0), np.float32)] * len(sides)
    while True:
        for n, side in enumerate(sides):
            while not waiting[n].shape[1]:
                if (block := next(side, None)) is None:
                    return
                waiting[n] = block
        length = min(block.shape[1] for block in waiting)
        yield np.concatenate([block[:, :length] for block in waiting])
        waiting = [block[:, length:] for block in waiting]


@dataclass
class _Piece:
    """Frames without a gap, resampled as they come. skip: samples of the result that come too early."""

    rate: int
    end: float  # s, of the last frame
    skip: int
    target: int
    channels: int
    _resampler: Any = field(init=False)

    def __post_init__(self):
        import soxr

        self._resampler = soxr.ResampleStream(self.rate, self.target, self.channels, dtype="float32")

    def add(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        self.end += samples.shape[1] / self.rate
        if self.rate != self.target:
            samples = (
                self._resampler.resample_chunk(np.ascontiguousarray(samples.T), last=last).reshape(-1, self.channels).T
            )
        kept = samples[:, self.skip :]
        self.skip = max(0, self.skip - samples.shape[1])
        return kept


def _joined(frames: Iterator[tuple[float, int, np.ndarray]], target: int, channels: int) -> Iterator[np.ndarray]:
    """Frames with their times → consecutive blocks from second 0 on."""
    at, piece = 0, None
    for time, rate, samples in frames:
        if piece is None or rate != piece.rate or abs(time - piece.end) > GAP:
            if piece is not None:
                block = piece.add(np.zeros((channels, 0), np.float32), last=True)
                at += block.shape[1]
                yield block
            begin = round(time * target)
            for start in range(at, begin, SILENCE):
                yield np.zeros((channels, min(SILENCE, begin - start)), np.float32)
            piece = _Piece(rate, time, max(0, at - begin), target, channels)
            at = max(at, begin)
        block = piece.add(samples)
        at += block.shape[1]
        yield block
    if piece is not None:
        yield piece.add(np.zeros((channels, 0), np.float32), last=True)
