"""Rhythm and synchrony: agreement of the music with the predicted rhythm, with the real music, and with the video.

Music with a beat at every moment also hits every cut. So each score has its chance level: the score of the same beats,
shifted circularly by random amounts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.common.seeding import text_seed
from diff_v2m.metrics.rhythm import SHIFTS, Rhythm, analyse, chance, correlation, same_tempo, sync
from inference.metric import MetricResult, not_computed

if TYPE_CHECKING:
    from inference.pairing import MediaFile
    from inference.workspace import Workspace

TOLERANCES = (0.07, 0.10)  # seconds
SHORTEST = 1.0  # seconds of audio for which rhythm is defined
IDENTITY = "rhythm 1, librosa beats on onset strength"


def predicted_rhythm(wav: Path) -> np.ndarray | None:
    """(S,) rhythm predicted by the model, from the manifest that infer.py writes beside a wav; None without one.

    Raises InputError if the manifest cannot be read or holds no valid rhythm.
    """
    path = wav.with_suffix(".json")
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or "predicted_rhythm" not in manifest:
            return None
        rhythm = np.asarray(manifest["predicted_rhythm"], dtype=float)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as the manifest of {wav.name} ({error})".splitlines()[0]) from None
    if rhythm.ndim != 1 or not np.isfinite(rhythm).all():
        raise InputError(f"{path}: predicted_rhythm is not a list of finite numbers, one a second")
    return rhythm


# --------------------------------------------------------------------------------------------------- results


def compute(workspace: Workspace) -> list[MetricResult]:
    """Correlations of rhythm curves, beats at events of the video, tempo, pulse clarity."""
    made = {clip: found for clip in workspace.generated if (found := _rhythm(workspace, clip, clip)) is not None}
    if not made:
        return [not_computed("rhythm", "Rhythm", "no generated clip could be analysed")]
    real = {
        clip: found
        for clip, partner in workspace.reference_pairs.pairs
        if clip in made and (found := _rhythm(workspace, partner, clip)) is not None
    }
    predicted = {clip: workspace.attempt(clip, lambda clip=clip: predicted_rhythm(clip.path)) for clip in made}
    predicted = {clip: rhythm for clip, rhythm in predicted.items() if rhythm is not None}
    for clip, found in made.items():
        detail = {"achieved_rhythm": found.odf, "beats": found.beats, "tempo": found.tempo, "pulse": found.pulse}
        if clip in predicted:
            detail["predicted_rhythm"] = predicted[clip]
        if clip in real:
            detail["reference_rhythm"], detail["reference_beats"] = real[clip].odf, real[clip].beats
        workspace.note(clip, **detail)

    no_manifest = "no generated clip has the json beside it that infer.py writes"
    no_real = workspace.why_no_reference_pairs()
    return [
        _correlation(workspace, "rhythm_r_predicted", "Rhythm, r with the predicted", made, predicted, no_manifest),
        _correlation(
            workspace,
            "rhythm_r_reference",
            "Rhythm, r with the real music's",
            made,
            {clip: found.odf for clip, found in real.items()},
            no_real,
        ),
        *_synchrony(workspace, made, real),
        _tempo(workspace, made, real, no_real),
        workspace.mean_result(
            "pulse_clarity",
            "Pulse clarity",
            {clip.name: m.pulse for clip, m in made.items()},
            real=_mean([m.pulse for m in real.values()]),
            real_is="the reference",
        ),
    ]


def _rhythm(workspace: Workspace, clip: MediaFile, made: MediaFile) -> Rhythm | None:
    """Rhythm of a file, cached; None where the file is skipped.

    The real music too is analysed at the sample rate of the generated clip `made`: the model predicts rhythm at that
    rate, and onset strength depends on the bandwidth.
    """

    def find() -> Mapping[str, np.ndarray]:
        sample_rate, _ = media.audio_format(made.path)
        return workspace.cache.get(clip.path, f"{IDENTITY}, {sample_rate} Hz", lambda: compute(sample_rate))

    def compute(sample_rate: int) -> dict[str, np.ndarray]:
        audio = workspace.audio(clip, sample_rate, shortest=SHORTEST, needed_by="rhythm")
        return {name: np.asarray(value) for name, value in vars(analyse(audio, sample_rate)).items()}

    stored = workspace.attempt(clip, find)
    return None if stored is None else Rhythm(**{k: v if v.ndim else float(v) for k, v in stored.items()})


def _correlation(
    workspace: Workspace,
    id: str,
    name: str,
    made: dict[MediaFile, Rhythm],
    wanted: dict[MediaFile, np.ndarray],
    why_none: str,
) -> MetricResult:
    """Mean r of onset curves with the wanted ones. Chance: the wanted curves of other clips."""
    scores = {clip.name: correlation(made[clip].odf, curve) for clip, curve in wanted.items()}
    if all(score is None for score in scores.values()):
        return not_computed(id, name, why_none if not scores else "the wanted rhythm is constant in every clip")
    others = [correlation(made[a].odf, curve) for a in wanted for b, curve in wanted.items() if a.clip != b.clip]
    return workspace.mean_result(
        id,
        name,
        scores,
        better="higher",
        chance=_mean([r for r in others if r is not None]),
        chance_is="against the rhythm of the other clips",
    )


def _synchrony(
    workspace: Workspace, made: dict[MediaFile, Rhythm], real: dict[MediaFile, Rhythm]
) -> list[MetricResult]:
    """Beats against cuts and pseudo beats: three scores at two tolerances each."""
    parts = {"hit_rate": "hit rate", "coverage": "coverage", "f1": "F1"}
    names = {"cuts": "Beats at cuts", "pseudo_beats": "Beats at pseudo beats"}
    videos = {clip: workspace.events(video) for clip, video in workspace.video_pairs.pairs if clip in made}
    videos = {clip: found for clip, found in videos.items() if found is not None}
    for clip, found in videos.items():
        workspace.note(clip, cuts=found.cuts, pseudo_beats=found.pseudo_beats, video_duration=found.duration)
    result = []
    for kind, title in names.items():
        for tolerance in TOLERANCES:
            milliseconds = round(tolerance * 1000)
            got, lucky, theirs = {}, {}, {}
            for clip, found in videos.items():
                events = getattr(found, kind)
                seed = text_seed(workspace.seed, clip.name)
                got[clip] = sync(events, made[clip].beats, tolerance)
                lucky[clip] = chance(events, made[clip].beats, max(made[clip].duration, 1e-3), tolerance, seed)
                theirs[clip] = sync(events, real[clip].beats, tolerance) if clip in real else None
            for part, label in parts.items():
                id, name = f"{kind}_{part}_{milliseconds}", f"{title}, {label} ± {milliseconds} ms"
                scores = {clip.name: None if s is None else getattr(s, part) for clip, s in got.items()}
                if all(score is None for score in scores.values()):
                    reason = (
                        f"no {kind.replace('_', ' ')} in any of the videos"
                        if videos
                        else workspace.why_no_video_pairs()
                    )
                    result.append(not_computed(id, name, reason))
                    continue
                result.append(
                    workspace.mean_result(
                        id,
                        name,
                        scores,
                        better="higher",
                        chance=_part(lucky.values(), part),
                        chance_is="the same beats, shifted circularly at random",
                        real=_part(theirs.values(), part),
                        real_is="the reference",
                        settings={"tolerance_s": tolerance, "shifts": SHIFTS},
                    )
                )
    return result


def _tempo(
    workspace: Workspace, made: dict[MediaFile, Rhythm], real: dict[MediaFile, Rhythm], why_none: str
) -> MetricResult:
    """Share of clips with the tempo of the real music. Chance: the tempo of other clips' real music."""
    id, name = "tempo", "Tempo as the real music's (± 4 %, octaves allowed)"
    scores = {clip.name: same_tempo(made[clip].tempo, found.tempo) for clip, found in real.items()}
    if all(score is None for score in scores.values()):
        return not_computed(id, name, "no reference clip has a tempo" if scores else why_none)
    others = [same_tempo(made[clip].tempo, found.tempo) for clip in real for o, found in real.items() if o != clip]
    return workspace.mean_result(
        id,
        name,
        {clip: None if same is None else float(same) for clip, same in scores.items()},
        better="higher",
        chance=_mean([s for s in others if s is not None]),
        chance_is="against the tempo of the other clips",
    )


def _part(scores, part: str) -> float | None:
    return _mean([getattr(score, part) for score in scores if score is not None])


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


if __name__ == "__main__":
    from inference.evaluate import main

    sys.exit(main(metric="rhythm"))
