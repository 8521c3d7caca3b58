"""Rhythm and synchrony: does the music do what was planned, what the real music does, and what the picture does?

Everything is held against chance: music that never rests also hits every cut, so each score stands beside the one that
the same beats get when they are shifted in time, around the end of the clip, by random amounts.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diff_v2m import media
from diff_v2m.common.errors import InputError
from inference.metric import Figure, not_computed

if TYPE_CHECKING:
    from inference.pairing import Clip
    from inference.workspace import Workspace

TOLERANCES = (0.07, 0.10)  # seconds
SHIFTS = 50  # random ones, averaged
SHORTEST = 1.0  # seconds of sound in which rhythm can be spoken of
PULSE_PERIODS = (0.3, 1.0)  # seconds
SAME_TEMPO = 0.04  # relative
OCTAVES = (1.0, 2.0, 0.5, 3.0, 1 / 3)
IDENTITY = "rhythm 1, librosa beats on onset strength"


@dataclass(frozen=True)
class Rhythm:
    """What a soundtrack does in time."""

    odf: np.ndarray  # (S,) the strongest onset of each second, in standard deviations
    beats: np.ndarray  # (b,) seconds
    tempo: float  # beats a minute; 0 where there is no beat
    pulse: float  # clarity of the pulse, 0 … 1
    duration: float  # seconds


@dataclass(frozen=True)
class Sync:
    """How beats and events meet within a tolerance, one beat to one event at most."""

    hit_rate: float  # share of events with a beat
    coverage: float  # share of beats with an event
    f1: float


def analyse(audio: np.ndarray, sample_rate: int) -> Rhythm:
    """Mono (n,) → its rhythm. Silence has no beats, tempo 0 and pulse 0."""
    import librosa
    import torch

    from diff_v2m.features import rhythm

    waveform = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))
    strength = rhythm.onset_strength(waveform, sample_rate).numpy()
    hop = rhythm.scaled_hop(rhythm.HOP, sample_rate)
    tempo, beats = librosa.beat.beat_track(onset_envelope=strength, sr=sample_rate, hop_length=hop, units="time")
    return Rhythm(
        odf=rhythm.odf(waveform, sample_rate)[:, 0].numpy(),
        beats=np.asarray(beats, dtype=float),
        tempo=float(np.atleast_1d(tempo)[0]) if len(beats) > 1 else 0.0,
        pulse=pulse_clarity(strength, sample_rate / hop),
        duration=len(audio) / sample_rate,
    )


def correlation(achieved: np.ndarray, wanted: np.ndarray) -> float | None:
    """Pearson's r over the common length. None where nothing is asked for (`wanted` does not vary, or two values are
    not there); 0 where `achieved` does not vary, so that silence gains nothing."""
    n = min(len(achieved), len(wanted))
    achieved, wanted = np.asarray(achieved[:n], float), np.asarray(wanted[:n], float)
    if n < 2 or np.ptp(wanted) == 0:
        return None
    return float(np.corrcoef(achieved, wanted)[0, 1]) if np.ptp(achieved) > 0 else 0.0


def sync(events: np.ndarray, beats: np.ndarray, tolerance: float) -> Sync | None:
    """Times in seconds → their agreement by the largest one-to-one matching (mir_eval); None where there are no
    events; all zero where there are no beats."""
    from mir_eval.onset import f_measure

    if len(events) == 0:
        return None
    if len(beats) == 0:
        return Sync(0.0, 0.0, 0.0)
    f1, coverage, hit_rate = f_measure(np.sort(events), np.sort(beats), window=tolerance)
    return Sync(float(hit_rate), float(coverage), float(f1))


def chance(events: np.ndarray, beats: np.ndarray, duration: float, tolerance: float, seed: int) -> Sync | None:
    """What the same beats get when shifted circularly within `duration` by random amounts; the mean of many."""
    if len(events) == 0:
        return None
    shifts = np.random.default_rng(seed).uniform(0, duration, SHIFTS)
    scores = [sync(events, (beats + shift) % duration, tolerance) for shift in shifts]
    return Sync(*(float(np.mean([getattr(s, part) for s in scores])) for part in ("hit_rate", "coverage", "f1")))


def pulse_clarity(strength: np.ndarray, frame_rate: float) -> float:
    """Onset strength (frames,) → its largest autocorrelation at the periods of a beat, against that at lag 0; in
    [0, 1]. Regular noise bursts are clear too: it says nothing about whether this is music."""
    window = np.hanning(max(3, round(0.07 * frame_rate)) + 2)[1:-1]  # so that a beat may be a frame early or late
    curve = np.convolve(strength, window / window.sum(), mode="same")
    curve = curve - curve.mean()
    power = float(curve @ curve)
    low, high = (round(period * frame_rate) for period in PULSE_PERIODS)
    lags = range(low, min(high, len(curve) - 1) + 1)
    if power < 1e-9 or not lags:
        return 0.0
    return max(0.0, max(float(curve[lag:] @ curve[:-lag]) for lag in lags) / power)


def same_tempo(tempo: float, reference: float) -> bool | None:
    """Within 4 % of the reference's tempo, its double, half, triple or third; None where the reference has none."""
    if reference <= 0:
        return None
    return any(abs(tempo - octave * reference) <= SAME_TEMPO * octave * reference for octave in OCTAVES)


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
                seed = zlib.crc32(f"{workspace.seed} {clip.name}".encode())
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
