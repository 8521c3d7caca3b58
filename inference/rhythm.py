"""Rhythm and synchrony: does the music do what was planned, what the real music does, and what the picture does?

Everything is held against chance: music that never rests also hits every cut, so each score stands beside the one that
the same beats get when they are shifted in time, around the end of the clip, by random amounts.
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
from inference.metric import Figure, not_computed

if TYPE_CHECKING:
    from inference.pairing import Clip
    from inference.workspace import Workspace

TOLERANCES = (0.07, 0.10)  # seconds
SHORTEST = 1.0  # seconds of sound in which rhythm can be spoken of
IDENTITY = "rhythm 1, librosa beats on onset strength"


def planned_rhythm(wav: Path) -> np.ndarray | None:
    """(S,) the rhythm that the model had planned, from the json that infer.py writes beside a wav; None without one.

    Raises InputError where there is one that cannot be understood.
    """
    path = wav.with_suffix(".json")
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or "predicted_rhythm" not in record:
            return None
        rows = np.asarray(record["predicted_rhythm"], dtype=float)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as the record of {wav.name} ({error})".splitlines()[0]) from None
    if rows.ndim != 1 or not np.isfinite(rows).all():
        raise InputError(f"{path}: predicted_rhythm is not a list of finite numbers, one a second")
    return rows


# ---------------------------------------------------------------------------------------------------- of files


def figures(workspace: Workspace) -> list[Figure]:
    made = {clip: found for clip in workspace.generated if (found := _rhythm(workspace, clip, clip)) is not None}
    if not made:
        return [not_computed("rhythm", "Rhythm", "no generated clip could be analysed")]
    real = {
        clip: found
        for clip, partner in workspace.pairs.pairs
        if clip in made and (found := _rhythm(workspace, partner, clip)) is not None
    }
    plans = {clip: workspace.attempt(clip, lambda clip=clip: planned_rhythm(clip.path)) for clip in made}
    plans = {clip: plan for clip, plan in plans.items() if plan is not None}
    for clip, found in made.items():
        detail = {"achieved_rhythm": found.odf, "beats": found.beats, "tempo": found.tempo, "pulse": found.pulse}
        if clip in plans:
            detail["predicted_rhythm"] = plans[clip]
        if clip in real:
            detail["reference_rhythm"], detail["reference_beats"] = real[clip].odf, real[clip].beats
        workspace.note(clip, **detail)

    no_plan = "no generated clip has the json beside it that infer.py writes"
    no_real = workspace.why_no_pairs()
    return [
        _correlation(workspace, "rhythm_r_predicted", "Rhythm, r with the predicted", made, plans, no_plan),
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
        workspace.mean_figure(
            "pulse_clarity",
            "Pulse clarity",
            {clip.name: m.pulse for clip, m in made.items()},
            real=_mean([m.pulse for m in real.values()]),
            real_is="the reference",
        ),
    ]


def _rhythm(workspace: Workspace, clip: Clip, made: Clip) -> Rhythm | None:
    """Of a file, from the cache if it was analysed before; None, and the clip is reported, where that fails.

    At the sample rate of the generated clip, the real music too: that is what the model's plan is made for, and onsets
    are weighed otherwise where there are frequencies that the other never has.
    """

    def find() -> Mapping[str, np.ndarray]:
        sample_rate, _ = media.audio_format(made.path)
        return workspace.cache.get(clip.path, f"{IDENTITY}, {sample_rate} Hz", lambda: compute(sample_rate))

    def compute(sample_rate: int) -> dict[str, np.ndarray]:
        audio = workspace.audio(clip, sample_rate, shortest=SHORTEST, why="rhythm")
        return {name: np.asarray(value) for name, value in vars(analyse(audio, sample_rate)).items()}

    stored = workspace.attempt(clip, find)
    return None if stored is None else Rhythm(**{k: v if v.ndim else float(v) for k, v in stored.items()})


def _correlation(
    workspace: Workspace, id: str, name: str, made: dict[Clip, Rhythm], wanted: dict[Clip, np.ndarray], why_none: str
) -> Figure:
    scores = {clip.name: correlation(made[clip].odf, rows) for clip, rows in wanted.items()}
    if all(score is None for score in scores.values()):
        return not_computed(id, name, why_none if not scores else "the rhythm to follow does not vary in any clip")
    others = [correlation(made[clip].odf, rows) for clip in wanted for other, rows in wanted.items() if other != clip]
    return workspace.mean_figure(
        id,
        name,
        scores,
        better="higher",
        chance=_mean([r for r in others if r is not None]),
        chance_is="held against the other clips' rhythm",
    )


def _synchrony(workspace: Workspace, made: dict[Clip, Rhythm], real: dict[Clip, Rhythm]) -> list[Figure]:
    """Beats against cuts and pseudo beats: three scores at two tolerances each."""
    parts = {"hit_rate": "hit rate", "coverage": "coverage", "f1": "F1"}
    names = {"cuts": "Beats at cuts", "pseudo_beats": "Beats at pseudo beats"}
    films = {clip: workspace.events(film) for clip, film in workspace.films.pairs if clip in made}
    films = {clip: found for clip, found in films.items() if found is not None}
    for clip, found in films.items():
        workspace.note(clip, cuts=found.cuts, pseudo_beats=found.pseudo_beats, video_duration=found.duration)
    result = []
    for kind, title in names.items():
        for tolerance in TOLERANCES:
            milliseconds = round(tolerance * 1000)
            got, lucky, theirs = {}, {}, {}
            for clip, film in films.items():
                events = getattr(film, kind)
                seed = text_seed(workspace.seed, clip.name)
                got[clip] = sync(events, made[clip].beats, tolerance)
                lucky[clip] = chance(events, made[clip].beats, max(made[clip].duration, 1e-3), tolerance, seed)
                theirs[clip] = sync(events, real[clip].beats, tolerance) if clip in real else None
            for part, label in parts.items():
                id, name = f"{kind}_{part}_{milliseconds}", f"{title}, {label} ± {milliseconds} ms"
                scores = {clip.name: None if s is None else getattr(s, part) for clip, s in got.items()}
                if all(score is None for score in scores.values()):
                    reason = f"no {kind.replace('_', ' ')} in any of the videos" if films else workspace.why_no_films()
                    result.append(not_computed(id, name, reason))
                    continue
                result.append(
                    workspace.mean_figure(
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


def _tempo(workspace: Workspace, made: dict[Clip, Rhythm], real: dict[Clip, Rhythm], why_none: str) -> Figure:
    id, name = "tempo", "Tempo as the real music's (± 4 %, octaves allowed)"
    scores = {clip.name: same_tempo(made[clip].tempo, found.tempo) for clip, found in real.items()}
    if all(score is None for score in scores.values()):
        return not_computed(id, name, "no reference clip has a tempo" if scores else why_none)
    others = [same_tempo(made[clip].tempo, found.tempo) for clip in real for o, found in real.items() if o != clip]
    return workspace.mean_figure(
        id,
        name,
        {clip: None if same is None else float(same) for clip, same in scores.items()},
        better="higher",
        chance=_mean([s for s in others if s is not None]),
        chance_is="held against the other clips' tempo",
    )


def _part(scores, part: str) -> float | None:
    return _mean([getattr(score, part) for score in scores if score is not None])


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


if __name__ == "__main__":
    from inference.evaluate import main

    sys.exit(main(metric="rhythm"))
