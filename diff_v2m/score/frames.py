"""Score ⇄ frames: what the score autoencoder reads and writes, 15 columns a second.

A column holds, in the order of LAYOUT: onsets of each pitch of each voice and of each kind of drum; beats and bar
lines; the share of the frame that each pitch sounds; where in the frame onsets are; velocities; programs. `to_frames`
writes values, `from_frames` reads values between 0 and 1 in all rows, as the decoder's probabilities are.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from diff_v2m.score.instruments import INSTRUMENTS, KITS, nearest_kit, nearest_program
from diff_v2m.score.keys import find_key, pitch_class_weights
from diff_v2m.score.score import DRUMS, MODES, NOTE, BeatGrid, Key, Score, Voice

RANGES = {
    "melody": (40, 100),
    "harmony": (36, 84),
    "bass": (26, 62),
    "figure": (40, 103),
    "pad": (40, 79),
}  # [low, high)
MIDI_SUFFIXES = (".mid", ".midi")
MONOPHONIC = ("melody", "bass")
DRUM_KINDS = (36, 37, 38, 39, 41, 43, 44, 45, 46, 42, 47, 48, 49, 50, 51, 52, 57, 70, 81)
PROGRAMS, KIT_PROGRAMS = tuple(INSTRUMENTS), tuple(KITS)
THRESHOLD = 0.5  # a more likely onset is a note
_NEAREST = 0.7  # frames between two onsets of a pitch; of two nearer ones the likelier counts
_SHORTEST = 0.04  # s
_DRUM_LENGTHS = {46: 0.35, 49: 1.6, 51: 0.6, 52: 1.6, 57: 1.6}  # s; any other 0.12
_TEMPO = 120.0  # where no beats are found
_STRAY = 0.25  # share of the distance to the beat before by which a beat may miss the median tempo
_PITCHES = sum(high - low for low, high in RANGES.values())


class Layout(NamedTuple):
    """Rows of a column, as slices."""

    onset: slice  # pitches of RANGES in order, then DRUM_KINDS
    beat: slice  # any beat, first beat of a bar
    sustain: slice  # pitches of RANGES in order
    offset: slice  # lowest and highest onset of each pitched voice; drums; beats: 0 to 1, share of the frame
    velocity: slice  # each pitched voice, each kind of drum: velocity / 127
    program: slice  # each pitched voice × PROGRAMS, KIT_PROGRAMS: one is 1 if the score has the voice
    rows: int


def _layout(*counts: int) -> Layout:
    ends = np.cumsum((0, *counts)).tolist()
    onset, beat, sustain, offset, velocity, program = map(slice, ends[:-1], ends[1:])
    return Layout(onset, beat, sustain, offset, velocity, program, rows=ends[-1])


LAYOUT = _layout(
    _PITCHES + len(DRUM_KINDS),
    2,
    _PITCHES,
    2 * len(RANGES) + 2,
    len(RANGES) + len(DRUM_KINDS),
    len(RANGES) * len(PROGRAMS) + len(KIT_PROGRAMS),
)
_STARTS = np.cumsum([0, *(high - low for low, high in RANGES.values())])
PITCH_ROWS = {name: slice(int(a), int(b)) for name, (a, b) in zip(RANGES, pairwise(_STARTS), strict=True)}
PROGRAM_ROWS = {name: slice(i * len(PROGRAMS), (i + 1) * len(PROGRAMS)) for i, name in enumerate(RANGES)}
PROGRAM_ROWS[DRUMS] = slice(len(RANGES) * len(PROGRAMS), len(RANGES) * len(PROGRAMS) + len(KIT_PROGRAMS))
DRUM_ROWS = slice(_PITCHES, _PITCHES + len(DRUM_KINDS))  # of the onsets
_KIND = {pitch: number for number, pitch in enumerate(DRUM_KINDS)}


def to_frames(score: Score, rate: float, frames: int) -> np.ndarray:
    """(LAYOUT.rows, frames) float32. Pitches outside a voice's range move by octaves; what begins later is left out."""
    values = np.zeros((LAYOUT.rows, frames), np.float32)
    onset, sustain, offset, velocity, program = (
        values[part] for part in (LAYOUT.onset, LAYOUT.sustain, LAYOUT.offset, LAYOUT.velocity, LAYOUT.program)
    )
    for number, (name, (low, high)) in enumerate(RANGES.items()):
        voice = score[name]
        notes, frame = _within(voice.notes, rate, frames)
        if not len(notes):
            continue
        row = _PITCH_START[name] + _into_range(notes["pitch"].astype(int), low, high) - low
        onset[row, frame] = 1
        start, stop = notes["start"] * rate, (notes["start"] + notes["duration"]) * rate
        _cover(sustain, row, start, stop)
        for side, order in ((0, 1), (1, -1)):  # written last: the lowest pitch, then the highest
            ranked = np.argsort(-order * notes["pitch"].astype(int), kind="stable")
            offset[2 * number + side, frame[ranked]] = (start - frame)[ranked]
        velocity[number] = _means(frame, notes["velocity"] / 127, frames)
        program[PROGRAM_ROWS[name].start + PROGRAMS.index(nearest_program(voice.program))] = 1
    notes, frame = _within(score[DRUMS].notes, rate, frames)
    if len(notes):
        kind = np.array([_KIND.get(int(p), _nearest_kind(int(p))) for p in notes["pitch"]])
        onset[_PITCHES + kind, frame] = 1
        offset[2 * len(RANGES)] = _means(frame, notes["start"] * rate - frame, frames)
        velocity[len(RANGES) + kind, frame] = notes["velocity"] / 127
        program[PROGRAM_ROWS[DRUMS].start + KIT_PROGRAMS.index(nearest_kit(score[DRUMS].program))] = 1
    _write_beats(score.grid, values, rate, frames)
    return values


_PITCH_START = {name: rows.start for name, rows in PITCH_ROWS.items()}


def from_frames(values: np.ndarray, rate: float, duration: float) -> Score:
    """The score of (LAYOUT.rows, frames) values from 0 to 1. A voice without notes is left out."""
    onset, sustain, offset, velocity, program = (
        values[part] for part in (LAYOUT.onset, LAYOUT.sustain, LAYOUT.offset, LAYOUT.velocity, LAYOUT.program)
    )
    voices = []
    for number, (name, (low, _)) in enumerate(RANGES.items()):
        rows = PITCH_ROWS[name]
        row, frame = _peaks(onset[rows], name in MONOPHONIC)
        at = _spread(row, frame, *offset[2 * number : 2 * number + 2])
        keep = _distinct(row, frame + at, onset[rows][row, frame])
        row, frame, at = row[keep], frame[keep], at[keep]
        notes = np.empty(len(row), NOTE)
        notes["start"], notes["pitch"] = (frame + at) / rate, row + low
        notes["duration"] = np.maximum(_lengths(sustain[rows], row, frame, at) / rate, _SHORTEST)
        notes["velocity"] = np.clip(np.round(127 * velocity[number, frame]), 1, 127)
        if name in MONOPHONIC:
            _end_before_the_next(notes)
        voices.append((name, PROGRAMS, notes, frame))
    row, frame = _peaks(onset[_PITCHES:], False)
    at = offset[2 * len(RANGES), frame]
    keep = _distinct(row, frame + at, onset[_PITCHES:][row, frame])
    row, frame, at = row[keep], frame[keep], at[keep]
    notes = np.empty(len(row), NOTE)
    notes["start"], notes["pitch"] = (frame + at) / rate, np.array(DRUM_KINDS)[row]
    notes["duration"] = [_DRUM_LENGTHS.get(int(pitch), 0.12) for pitch in notes["pitch"]]
    notes["velocity"] = np.clip(np.round(127 * velocity[len(RANGES) + row, frame]), 1, 127)
    voices.append((DRUMS, KIT_PROGRAMS, notes, frame))

    found = []
    for name, programs, notes, frame in voices:
        inside = (notes["start"] >= 0) & (notes["start"] < duration - 0.01)
        notes["duration"] = np.minimum(notes["duration"], duration - notes["start"])
        if inside.any():
            votes = np.log(np.clip(program[PROGRAM_ROWS[name]][:, frame[inside]], 1e-6, 1)).sum(1)
            found.append(Voice(name, programs[int(votes.argmax())], notes[inside]))
    score = Score(tuple(found), _read_beats(values, rate, duration), Key(0, "major"), duration)
    return Score(score.voices, score.grid, find_key(pitch_class_weights(score), tuple(MODES)), duration)


# ------------------------------------------------------------------------------------------------------- writing


def _within(notes: np.ndarray, rate: float, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """The notes that start inside, and the frame that each starts in."""
    frame = np.floor(notes["start"] * rate + 1e-6).astype(int)
    inside = (frame >= 0) & (frame < frames)
    return notes[inside], frame[inside]


def _into_range(pitch: np.ndarray, low: int, high: int) -> np.ndarray:
    pitch = pitch + 12 * np.maximum(0, -((pitch - low) // 12))
    return pitch - 12 * np.maximum(0, -((high - 1 - pitch) // 12))


def _nearest_kind(pitch: int) -> int:
    return int(np.abs(np.array(DRUM_KINDS) - pitch).argmin())


def _cover(sustain: np.ndarray, row: np.ndarray, start: np.ndarray, stop: np.ndarray) -> None:
    """Add the share of each frame that lies in [start, stop) frames; 1 at most."""
    frames = sustain.shape[1]
    first, last = np.floor(start + 1e-6).astype(int), np.minimum(np.ceil(stop - 1e-6).astype(int), frames)
    lengths = np.maximum(last - first, 1)
    number = np.repeat(np.arange(len(row)), lengths)
    frame = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + first[number]
    share = np.minimum(frame + 1, stop[number]) - np.maximum(frame, start[number])
    np.add.at(sustain, (row[number], frame), np.maximum(share, 0))
    np.minimum(sustain, 1, out=sustain)


def _means(frame: np.ndarray, values: np.ndarray, frames: int) -> np.ndarray:
    count = np.bincount(frame, minlength=frames)
    return np.bincount(frame, values, minlength=frames) / np.maximum(count, 1)


def _write_beats(grid: BeatGrid, values: np.ndarray, rate: float, frames: int) -> None:
    grid = grid.covering(0.0, frames / rate)
    frame = np.floor(grid.beats * rate + 1e-6).astype(int)
    inside = (frame >= 0) & (frame < frames)
    bars = (np.arange(len(frame)) - grid.first_downbeat) % grid.beats_per_bar == 0
    beat = values[LAYOUT.beat]
    beat[0, frame[inside]] = 1
    beat[1, frame[inside & bars]] = 1
    values[LAYOUT.offset][-1, frame[inside]] = (grid.beats * rate - frame)[inside]


# ------------------------------------------------------------------------------------------------------- reading


def _peaks(onset: np.ndarray, monophonic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows and frames of the likely onsets; of a monophonic voice, the likeliest of each frame alone."""
    likely = onset > THRESHOLD
    if monophonic:
        likely &= onset == onset.max(0)
    frame, row = np.nonzero(likely.T)
    return row, frame


def _spread(row: np.ndarray, frame: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Offset of each onset: those between the lowest and highest of their frame lie evenly in between."""
    order = np.lexsort((row, frame))
    first = np.searchsorted(frame[order], frame[order], side="left")
    last = np.searchsorted(frame[order], frame[order], side="right") - 1
    share = np.where(last > first, (np.arange(len(row)) - first) / np.maximum(last - first, 1), 0.5)
    at = np.empty(len(row))
    at[order] = lowest[frame[order]] * (1 - share) + highest[frame[order]] * share
    return at


def _distinct(row: np.ndarray, time: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
    """Indices of onsets that have no likelier one of their pitch within _NEAREST frames, in order of time."""
    order = np.lexsort((time, row))
    keep: list[int] = []
    for index in order:
        if keep and row[keep[-1]] == row[index] and time[index] - time[keep[-1]] < _NEAREST:
            if likelihood[index] > likelihood[keep[-1]]:
                keep[-1] = index
        else:
            keep.append(index)
    kept = np.array(keep, int)
    return kept[np.lexsort((row[kept], time[kept]))]


def _lengths(sustain: np.ndarray, row: np.ndarray, frame: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Frames from each onset to where its pitch stops sounding."""
    frames = sustain.shape[1]
    padded = np.concatenate([sustain, np.zeros((len(sustain), 2), sustain.dtype)], 1)
    below = padded[:, :-1] < 0.5
    index = np.where(below, np.arange(frames + 1), frames)
    next_below = np.minimum.accumulate(index[:, ::-1], 1)[:, ::-1]  # first frame from here on that is below
    stop = next_below[row, np.minimum(frame + 1, frames)]  # frames from frame + 1 to stop − 1 sound
    whole = np.maximum(stop - frame - 2, 0)  # but for the first and the last
    last = np.where(stop > frame + 1, padded[row, stop - 1], 0)
    return np.minimum(padded[row, frame], 1 - at) + whole + last + padded[row, stop]


def _end_before_the_next(notes: np.ndarray) -> None:
    room = np.diff(notes["start"])
    notes["duration"][:-1] = np.minimum(notes["duration"][:-1], np.where(room > 0, room, np.inf))


def _read_beats(values: np.ndarray, rate: float, duration: float) -> BeatGrid:
    """The likely beats; missing ones are filled in, those between two others are dropped. Too few: 120 a minute."""
    beat = values[LAYOUT.beat]
    _, frame = _peaks(beat[:1], False)
    times = (frame + values[LAYOUT.offset][-1, frame]) / rate
    if len(times) < 3:
        return BeatGrid(np.array([0.0, 60 / _TEMPO]), 4).covering(0.0, duration)
    period = float(np.median(np.diff(times)))
    kept, numbers = [0], [0]
    for index in range(1, len(times)):
        beats = (times[index] - times[kept[-1]]) / period
        if beats > 0.5 and abs(beats - round(beats)) < _STRAY * round(beats):
            kept.append(index)
            numbers.append(numbers[-1] + round(beats))
    if len(kept) < 2:
        return BeatGrid(np.array([0.0, 60 / _TEMPO]), 4).covering(0.0, duration)
    number, likely = np.array(numbers), beat[1, frame[kept]]
    fits = {
        (metre, phase): likely[number % metre == phase].mean() - likely[number % metre != phase].mean()
        for metre in (4, 3, 2)
        for phase in range(metre)
        if 0 < (number % metre == phase).sum() < len(number)
    }
    metre, phase = max(fits, key=fits.__getitem__) if fits else (4, 0)
    beats = np.interp(np.arange(number[-1] + 1), number, times[kept])
    return BeatGrid(beats, metre, phase).covering(0.0, duration)
