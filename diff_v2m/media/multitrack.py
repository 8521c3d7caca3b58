"""The audio tracks of an mp4 as options of ffmpeg: wavs encoded as AAC, and a video's own track, copied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# What mp4 holds and players play; other sound is encoded again.
COPYABLE = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"})
NO_LANGUAGE = "und"
_KILOBITS = 96  # of AAC for each channel


@dataclass(frozen=True)
class AudioTrack:
    """One audio track of an mp4."""

    source: Path  # a wav, or a video whose stream is copied
    title: str = ""
    language: str = NO_LANGUAGE  # ISO 639-2; zxx: no language
    channels: tuple[str, ...] = ()  # of a wav, as in ffmpeg's layouts; empty: mono or stereo
    stream: int | None = None  # index of the stream to copy
    lead: float = 0.0  # s from the start of the video's earliest stream to its picture


def track_options(
    tracks: Sequence[AudioTrack], sample_rate: int, length: float, as_input: Callable[[Path], list[str]]
) -> tuple[list[str], list[str]]:
    """(inputs, options) of ffmpeg for tracks of `length` seconds.

    Input 0 is the picture. The first track is the default one. as_input: options that open a file.
    """
    inputs, options = [], []
    for number, track in enumerate(tracks):
        if track.stream is None:
            inputs += as_input(track.source)
            options += ["-map", f"{number + 1}:a:0", *_encoding(number, track, sample_rate, length)]
        else:
            inputs += ["-itsoffset", f"{-track.lead:.6f}", "-t", f"{length + track.lead:.6f}", *as_input(track.source)]
            options += ["-map", f"{number + 1}:{track.stream}", f"-c:a:{number}", "copy"]
        options += [f"-disposition:a:{number}", "default" if number == 0 else "0"]
        options += [f"-metadata:s:a:{number}", f"language={track.language}"]
        for key in ("title", "handler_name") if track.title else ():
            options += [f"-metadata:s:a:{number}", f"{key}={track.title}"]
    return inputs, options


def _encoding(number: int, track: AudioTrack, sample_rate: int, length: float) -> list[str]:
    filters = [f"apad=whole_dur={length:.6f}", f"atrim=end={length:.6f}"]
    if len(track.channels) > 2:  # a wav of more than two channels does not say which they are
        names = "|".join(f"{index}-{name}" for index, name in enumerate(track.channels))
        filters.insert(0, f"channelmap=map={names}")
    rate = max(2, len(track.channels)) * _KILOBITS
    encoder = [f"-c:a:{number}", "aac", f"-b:a:{number}", f"{rate}k", f"-ar:a:{number}", str(sample_rate)]
    return [*encoder, f"-filter:a:{number}", ",".join(filters)]
