"""Signal quality: silence, clipping, level, bandwidth, noise, broken samples, wrong length, copies; learned aesthetics.

All but the last find defects. They do not say whether the music is good.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.metrics.audio_quality import Health, finite, health, nearest
from inference.metric import MetricResult, NotComputed, not_computed
from inference.pairing import MediaFile

if TYPE_CHECKING:
    from inference.encoders.base import Embedding
    from inference.workspace import Workspace

IDENTITY = "health 2"  # cache key; change it with the definition of a measure
COPY_DB = 1.0  # clips nearer than this count as copies


@dataclass(frozen=True)
class _Row:
    """A field of `Health` and how the report shows it."""

    part: str
    name: str
    unit: str = ""
    better: str = ""


ROWS = (
    _Row("silence", "Silence, share of the time"),
    _Row("clipping", "Clipping, share of the samples", better="lower"),
    _Row("true_peak", "True peak", "dBTP"),
    _Row("lufs", "Loudness", "LUFS"),
    _Row("bandwidth", "Bandwidth", "Hz"),
    _Row("noisiness", "Noisiness (0 tones, 0.5 noise)"),
    _Row("broken", "NaN or infinite samples", better="lower"),
)


def compute(workspace: Workspace) -> list[MetricResult]:
    """The fields of `Health`, difference in length, nearest clips, aesthetics."""
    made = _health_of(workspace, workspace.generated)
    if not made:
        return [not_computed("health", "Signal quality", "no generated clip could be read")]
    real = _health_of(workspace, workspace.reference)
    for clip, found in made.items():
        workspace.note(clip, **vars(found))
    found = []
    for row in ROWS:
        theirs = [value for h in real.values() if (value := getattr(h, row.part)) is not None]
        found.append(
            workspace.mean_result(
                row.part,
                row.name,
                {clip.name: getattr(h, row.part) for clip, h in made.items()},
                unit=row.unit,
                better=row.better,
                real=float(np.mean(theirs)) if theirs else None,
                real_is="the reference",
            )
        )
    return [*found, _duration_error(workspace, made, real), *_copies(workspace), *_aesthetics(workspace)]


def _health_of(workspace: Workspace, clips: Sequence[MediaFile]) -> dict[MediaFile, Health]:
    """Health of each file, cached, without files that are skipped."""

    def compute(clip: MediaFile) -> dict[str, np.ndarray]:
        audio = media.read_audio(clip.path, *media.audio_format(clip.path))
        if not audio.size:
            raise InputError(f"{clip.path}: holds no audio sample")
        found = vars(health(audio, media.audio_format(clip.path)[0]))
        return {part: np.array(math.nan if value is None else value) for part, value in found.items()}

    def read(clip: MediaFile) -> Health:
        stored = workspace.cache.get(clip.path, IDENTITY, lambda: compute(clip))
        return Health(**{part: finite(float(value)) for part, value in stored.items()})

    bar = tqdm(clips, desc="signal quality", unit="clip", disable=None, leave=False)
    found = {clip: workspace.attempt(clip, lambda clip=clip: read(clip)) for clip in bar}
    return {clip: h for clip, h in found.items() if h is not None}


def _duration_error(
    workspace: Workspace, made: Mapping[MediaFile, Health], real: Mapping[MediaFile, Health]
) -> MetricResult:
    """Difference in length from the video if there is one, else from the real music."""
    id, name = "duration_error", "Difference in length"
    wanted: dict[MediaFile, float] = {}
    for clip, video in workspace.video_pairs.pairs:
        info = workspace.attempt(video, lambda video=video: media.probe(video.path))
        if info is not None:
            wanted[clip] = info.duration
    partners = workspace.reference_pairs.pairs if not wanted else ()
    wanted |= {clip: real[partner].duration for clip, partner in partners if partner in real}
    errors = {clip.name: abs(made[clip].duration - seconds) for clip, seconds in wanted.items() if clip in made}
    if not errors:
        return not_computed(id, name, workspace.why_no_video_pairs())
    against = "reference" if partners else "video"
    return workspace.mean_result(id, name, errors, unit="s", better="lower", settings={"against": against})


def _copies(workspace: Workspace) -> list[MetricResult]:
    """Distances to the nearest other generated clip and to the nearest training clip, and the shares of copies."""
    found = _nearest(workspace, "other", "Nearest other generated clip", "another generated clip", workspace.generated)
    if workspace.training:
        training = [MediaFile(f"training/{file.name}", file.path) for file in workspace.training]
        return found + _nearest(workspace, "training", "Nearest training clip", "a training clip", training)
    reason = "needs the training music: name its folder with --training"
    return [*found, not_computed("nearest_training", "Nearest training clip", reason)]


def _nearest(workspace: Workspace, side: str, name: str, what: str, others: Sequence[MediaFile]) -> list[MetricResult]:
    try:
        levels, theirs = (_levels(workspace.embeddings("mel", files)) for files in (workspace.generated, others))
        neighbours = nearest(levels, theirs)
        if not neighbours:
            raise NotComputed("there is one clip only")
    except NotComputed as error:
        return [not_computed(f"nearest_{side}", name, error)]
    for clip in workspace.generated:
        if clip.name in neighbours:
            other, apart = neighbours[clip.name]
            workspace.note(clip, **{f"nearest_{side}": {"clip": other, "distance_db": apart}})
    distances = {clip: apart for clip, (_, apart) in neighbours.items()}
    copies = {clip: other for clip, (other, apart) in neighbours.items() if apart < COPY_DB}
    shares = {clip: float(clip in copies) for clip in neighbours}
    settings = {"copies": copies, "copy_below_db": COPY_DB}
    label = f"Share of clips the same as {what}"
    return [
        workspace.mean_result(f"nearest_{side}", name, distances, unit="dB", settings=settings),
        workspace.mean_result(f"copies_of_{side}", label, shares, better="lower", settings=settings),
    ]


def _aesthetics(workspace: Workspace) -> list[MetricResult]:
    """Four scores from 1 to 10 of Audiobox aesthetics."""
    from inference.encoders.audiobox import AXES

    names = {axis: f"Audiobox aesthetics, {words}" for axis, words in AXES.items()}
    try:
        made = workspace.embeddings("aesthetics", workspace.generated)
    except NotComputed as error:
        return [not_computed(f"aesthetics_{axis.lower()}", name, error) for axis, name in names.items()]
    real = workspace.reference_embeddings("aesthetics")
    theirs = np.mean([e.frames[0] for e in real.values()], axis=0).tolist() if real else [None] * len(AXES)
    return [
        workspace.mean_result(
            f"aesthetics_{axis.lower()}",
            name,
            {clip: float(e.frames[0, i]) for clip, e in made.items()},
            better="" if axis == "PC" else "higher",
            real=theirs[i],
            real_is="the reference",
        )
        for i, (axis, name) in enumerate(names.items())
    ]


def _levels(embeddings: Mapping[str, Embedding]) -> dict[str, np.ndarray]:
    """Band levels of the log-mel embeddings, without their standard deviations."""
    return {clip: e.frames[:, : e.frames.shape[1] // 2] for clip, e in embeddings.items()}


if __name__ == "__main__":
    from inference.evaluate import main

    sys.exit(main(metric="audio"))
