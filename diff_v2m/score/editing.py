"""Scores that are changed after composition: dynamics, attacks moved and added, spans without notes."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from diff_v2m.score.score import DRUMS, NOTE, Score, Voice

_TOGETHER = 0.015  # seconds: notes that begin this near are one attack
_SNAP = 0.06  # seconds: notes that begin this near an accent are moved onto it
_LOUDER = 20  # velocity that an accent adds
_KICK, _CRASH, _DRUM_LENGTH = 36, 49, 0.4  # General MIDI drums of an accent, and their seconds
_KICK_VELOCITY = 95  # of a kick alone
_DYNAMICS, _LARGEST = 0.4, 4.0  # logarithm of velocity for a unit of onset strength, and most units
_SUSTAINED = ("harmony", "bass", "pad")  # voices that an accent strikes again


def attacks(score: Score) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of the moments at which notes begin, and the sum of their velocities / 127."""
    notes = np.concatenate([np.empty(0, NOTE), *(voice.notes for voice in score.voices)])
    notes = notes[np.argsort(notes["start"], kind="stable")]
    if not len(notes):
        return np.zeros(0), np.zeros(0)
    first = np.flatnonzero(np.diff(notes["start"], prepend=-np.inf) > _TOGETHER)
    return notes["start"][first], np.add.reduceat(notes["velocity"] / 127, first)


def with_dynamics(score: Score, change: np.ndarray) -> Score:
    """The score with velocities that follow a change (S,) of each second's onset strength, in standard deviations.

    Changes beyond 4 count as 4.
    """
    factors = np.exp(_DYNAMICS * np.clip(change, -_LARGEST, _LARGEST))
    voices = []
    for voice in score.voices:
        notes = voice.notes.copy()
        seconds = np.clip(notes["start"].astype(int), 0, len(change) - 1)
        notes["velocity"] = np.clip(np.round(notes["velocity"] * factors[seconds]), 1, 127)
        voices.append(replace(voice, notes=notes))
    return replace(score, voices=tuple(voices))


def warped(score: Score, forward: Callable[[np.ndarray], np.ndarray]) -> Score:
    """The score with every note and beat moved by `forward`, which is given seconds and keeps their order."""
    voices = []
    for voice in score.voices:
        notes = voice.notes.copy()
        notes["start"] = forward(voice.notes["start"])
        notes["duration"] = forward(voice.notes["start"] + voice.notes["duration"]) - notes["start"]
        voices.append(replace(voice, notes=notes))
    grid = replace(score.grid, beats=forward(score.grid.beats)).covering(0.0, score.duration)
    return replace(score, voices=tuple(voices), grid=grid)


def accented(score: Score, times: np.ndarray) -> Score:
    """The score with an attack at each time: near notes are moved onto it, held ones struck again, louder, with a kick.

    Where a kick or crash is near, both are struck as loud as they can be. A score without drums gets the kick where no
    note is moved or struck again.
    """
    voices = {voice.name: voice for voice in score.voices}
    struck = np.zeros(len(times), bool)
    for name, voice in voices.items():
        notes = voice.notes.copy()
        for i, time in enumerate(times.tolist()):
            stop = notes["start"] + notes["duration"]
            near = (np.abs(notes["start"] - time) <= _SNAP) & (stop > time + _TOGETHER)
            held = (notes["start"] < time) & (stop > time + _TOGETHER) & ~near & (name in _SUSTAINED)
            held &= ~np.isin(notes["pitch"], notes["pitch"][near])  # the near note follows it
            again = notes[near | held].copy()
            struck[i] |= bool((np.abs(again["start"] - time) > _TOGETHER).any())
            again["duration"], again["start"] = stop[near | held] - time, time
            again["velocity"] = np.minimum(again["velocity"].astype(int) + _LOUDER, 127)
            notes["duration"][held] = time - notes["start"][held]
            notes = np.concatenate([notes[~near], again])
        voices[name] = replace(voice, notes=notes)
    drums = voices.get(DRUMS, Voice(DRUMS))
    for time in times.tolist() if len(drums.notes) else times[~struck].tolist():
        there = np.abs(drums.notes["start"] - time) <= _TOGETHER
        there &= np.isin(drums.notes["pitch"], (_KICK, _CRASH))
        added = [(_KICK, 127), (_CRASH, 127)] if there.any() else [(_KICK, _KICK_VELOCITY)]
        hits = np.array([(time, _DRUM_LENGTH, pitch, velocity) for pitch, velocity in added], NOTE)
        drums = replace(drums, notes=np.concatenate([drums.notes[~there], hits]))
    if len(drums.notes):
        voices[DRUMS] = drums
    return replace(score, voices=tuple(voices.values()))


def silenced(score: Score, spans: Sequence[tuple[float, float]]) -> Score:
    """The score without notes in the spans, (start, stop) in seconds. A note that lasts longer begins again after."""
    voices = []
    for voice in score.voices:
        notes = voice.notes.copy()
        for start, stop in spans:
            ends = notes["start"] + notes["duration"]
            after = notes[(notes["start"] < stop) & (ends > stop)].copy()
            after["duration"] = (after["start"] + after["duration"]) - stop
            after["start"] = stop
            before = notes[notes["start"] < start].copy()
            before["duration"] = np.minimum(before["duration"], start - before["start"])
            notes = np.concatenate([before, after, notes[notes["start"] >= stop]])
        voices.append(replace(voice, notes=notes))
    return replace(score, voices=tuple(voices))
