"""Health of the sound itself: silence, clipping, level, bandwidth, noise, broken samples, wrong length, copies.

These say whether something is wrong, not whether the music is good.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.metrics.audio_quality import Health, finite, health, nearest
from inference.metric import Figure, NotComputed, not_computed

if TYPE_CHECKING:
    from inference.encoders.registry import Embedding
    from inference.pairing import Clip
    from inference.workspace import Workspace

IDENTITY = "health 1"  # of what is kept in the cache; another one where a measure changes
COPY_DB = 1.0  # two clips nearer than this are the same music


@dataclass(frozen=True)
class _Row:
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


def figures(workspace: Workspace) -> list[Figure]:
    made = _health_of(workspace, workspace.generated)
    if not made:
        return [not_computed("health", "Health of the sound", "no generated clip could be read")]
    real = _health_of(workspace, workspace.reference)
    for clip, found in made.items():
        workspace.note(clip, **vars(found))
    found = []
    for row in ROWS:
        theirs = [value for h in real.values() if (value := getattr(h, row.part)) is not None]
        found.append(
            workspace.mean_figure(
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


def _health_of(workspace: Workspace, clips: Sequence[Clip]) -> dict[Clip, Health]:
    from tqdm import tqdm

    def compute(clip: Clip) -> dict[str, np.ndarray]:
        audio = media.read_audio(clip.path, *media.audio_format(clip.path))
        if not audio.size:
            raise InputError(f"{clip.path}: holds no sample of sound")
        found = vars(health(audio, media.audio_format(clip.path)[0]))
        return {part: np.array(math.nan if value is None else value) for part, value in found.items()}

    def read(clip: Clip) -> Health:
        stored = workspace.cache.get(clip.path, IDENTITY, lambda: compute(clip))
        return Health(**{part: finite(float(value)) for part, value in stored.items()})

    bar = tqdm(clips, desc="health", unit="clip", disable=None, leave=False)
    found = {clip: workspace.attempt(clip, lambda clip=clip: read(clip)) for clip in bar}
    return {clip: h for clip, h in found.items() if h is not None}


def _duration_error(workspace: Workspace, made: Mapping[Clip, Health], real: Mapping[Clip, Health]) -> Figure:
    """Against the video where there is one, else against the real music."""
    id, name = "duration_error", "Difference in length"
    wanted: dict[Clip, float] = {}
    for clip, film in workspace.films.pairs:
        info = workspace.attempt(film, lambda film=film: media.probe(film.path))
        if info is not None:
            wanted[clip] = info.duration
    partners = workspace.pairs.pairs if not wanted else ()
    wanted |= {clip: real[partner].duration for clip, partner in partners if partner in real}
    errors = {clip.name: abs(made[clip].duration - seconds) for clip, seconds in wanted.items() if clip in made}
    if not errors:
        return not_computed(id, name, workspace.why_no_films())
    against = "reference" if partners else "video"
    return workspace.mean_figure(id, name, errors, unit="s", better="lower", settings={"against": against})


def _copies(workspace: Workspace) -> list[Figure]:
    """How near the nearest other clip is, and the nearest clip that was trained on."""
    sides = [("nearest_other", "Nearest other generated clip", workspace.generated, "")]
    sides.append(
        (
            "nearest_training",
            "Nearest training clip",
            workspace.training,
            "needs the music that was trained on: name its folder with --training",
        )
    )
    found = []
    for id, name, others, why_none in sides:
        try:
            if not others:
                raise NotComputed(why_none)
            levels = _levels(workspace.embeddings("mel", workspace.generated))
            neighbours = nearest(
                levels,
                levels
                if others is workspace.generated
                else {
                    f"training/{clip}": level for clip, level in _levels(workspace.embeddings("mel", others)).items()
                },
            )
            if not neighbours:
                raise NotComputed("there is one clip only")
        except NotComputed as error:
            found.append(not_computed(id, name, error))
            continue
        copies = {clip: other for clip, (other, apart) in neighbours.items() if apart < COPY_DB}
        for clip in workspace.generated:
            if clip.name in neighbours:
                other, apart = neighbours[clip.name]
                workspace.note(clip, **{id: {"clip": other, "distance_db": apart}})
        settings = {"copies": copies, "copy_below_db": COPY_DB}
        apart = {clip: apart for clip, (_, apart) in neighbours.items()}
        found.append(workspace.mean_figure(id, name, apart, unit="dB", settings=settings))
        shares = {clip: float(clip in copies) for clip in neighbours}
        label = "the same as another generated clip" if id == "nearest_other" else "the same as a training clip"
        found.append(
            workspace.mean_figure(
                id.replace("nearest", "copies_of"), f"Share of clips {label}", shares, better="lower", settings=settings
            )
        )
    return found


def _aesthetics(workspace: Workspace) -> list[Figure]:
    """Four scores, 1 to 10, of a network that was fitted to what people said of sounds."""
    from inference.encoders.optional import AXES

    names = {axis: f"Audiobox aesthetics, {words}" for axis, words in AXES.items()}
    try:
        made = workspace.embeddings("aesthetics", workspace.generated)
    except NotComputed as error:
        return [not_computed(f"aesthetics_{axis.lower()}", name, error) for axis, name in names.items()]
    real = workspace.embeddings("aesthetics", workspace.reference) if workspace.reference else {}
    theirs = np.mean([e.frames[0] for e in real.values()], axis=0).tolist() if real else [None] * len(AXES)
    return [
        workspace.mean_figure(
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
    """The band levels of the log-mel embedding, without their spread."""
    return {clip: e.frames[:, : e.frames.shape[1] // 2] for clip, e in embeddings.items()}


if __name__ == "__main__":
    from inference.evaluate import main

    sys.exit(main(metric="audio"))
