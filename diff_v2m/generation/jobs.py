"""What the runner knows of an output before its music is composed."""

from __future__ import annotations

from dataclasses import dataclass

from diff_v2m import media
from diff_v2m.cues.sheet import CueSheet
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.generation.inputs import Output
from diff_v2m.generation.revision import Earlier
from diff_v2m.generation.step_log import StepLog


@dataclass(frozen=True)
class Source:
    """Data of a clip, read once for all its variations."""

    features: VideoFeatures
    thumbnails: media.Thumbnails | None  # None without a video
    encoder: str | None  # identity of the encoder that made the features; None: unknown
    sheet: CueSheet | None = None  # what a person wants of the music
    earlier: Earlier | None = None  # the result that is changed


@dataclass(frozen=True)
class Job:
    """An output to generate, with what is read of its clip."""

    output: Output
    source: Source
    logs: tuple[StepLog, ...] = ()  # of a long clip, removed when its files are written
