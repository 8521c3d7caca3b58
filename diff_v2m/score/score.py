"""A score: six voices of notes on a grid of beats, in a key. Times are seconds from the start of the video."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from diff_v2m.config import GRID_DIM

VOICES = ("melody", "harmony", "bass", "figure", "pad", "drums")
DRUMS = "drums"
NOTE = np.dtype([("start", "f8"), ("duration", "f8"), ("pitch", "u1"), ("velocity", "u1")])
PITCH_CLASSES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
_SHORTEST = 0.01  # s; a note that a cut or a repetition leaves shorter is dropped


@dataclass(frozen=True)
class Key:
    """Tonic as pitch class (0 = C) and one of MODES."""

    tonic: int
    mode: str

    def __str__(self) -> str:
        return f"{PITCH_CLASSES[self.tonic]} {self.mode}"

    @property
    def scale(self) -> tuple[int, ...]:
        """The seven pitch classes, tonic first."""
        return tuple((self.tonic + step) % 12 for step in MODES[self.mode])

    @property
    def minor_third(self) -> bool:
        return 3 in MODES[self.mode]


@dataclass(frozen=True)
class BeatGrid:
    """Beats in seconds, rising, and where bars start.

    `beats` covers the video: the first is at or before 0 and the last at or after its end, so any time has a position.
    Beat number `first_downbeat` (0 ≤ first_downbeat < beats_per_bar) starts a bar, as does every `beats_per_bar`-th.
    """

    beats: np.ndarray  # (n,) float64
    beats_per_bar: int
    first_downbeat: int = 0

    def __post_init__(self) -> None:
        if len(self.beats) < 2 or not (np.diff(self.beats) > 0).all():
            raise ValueError("a beat grid needs two or more beats, each later than the one before")

    @property
    def bars(self) -> np.ndarray:
        """Seconds of the downbeats."""
        return self.beats[self.first_downbeat :: self.beats_per_bar]

    @property
    def tempo(self) -> float:
        """Median tempo in beats per minute."""
        return float(60.0 / np.median(np.diff(self.beats)))

    @property
    def tempo_map(self) -> list[tuple[float, float]]:
        """(seconds, beats per minute) at the first beat and wherever the tempo changes by half a percent."""
        found: list[tuple[float, float]] = []
        for beat, length in zip(self.beats[:-1].tolist(), np.diff(self.beats).tolist(), strict=True):
            if not found or abs(60 / length / found[-1][1] - 1) > 0.005:
                found.append((beat, 60 / length))
        return found

    def position(self, seconds: np.ndarray | float) -> np.ndarray:
        """Seconds → beats since the first downbeat; linear between beats and beyond both ends."""
        numbers = np.arange(len(self.beats)) - self.first_downbeat
        return _line(np.asarray(seconds, float), self.beats, numbers)

    def seconds(self, position: np.ndarray | float) -> np.ndarray:
        """Beats since the first downbeat → seconds; the inverse of `position`."""
        numbers = np.arange(len(self.beats)) - self.first_downbeat
        return _line(np.asarray(position, float), numbers, self.beats)

    def shift(self, seconds: float) -> "BeatGrid":
        return replace(self, beats=self.beats + seconds)

    def covering(self, start: float, stop: float) -> "BeatGrid":
        """The same grid with just the beats that cover [start, stop]; it is extended at its ends where needed."""
        first, last = int(np.floor(self.position(start) + 1e-9)), int(np.ceil(self.position(stop) - 1e-9))
        numbers = np.arange(first, max(last, first + 1) + 1)
        return BeatGrid(self.seconds(numbers), self.beats_per_bar, int(-first % self.beats_per_bar))


@dataclass(frozen=True)
class Voice:
    """The notes of one part, sorted by start and pitch, and its General MIDI program (of drums: the kit)."""

    name: str
    program: int = 0
    notes: np.ndarray = field(default_factory=lambda: np.empty(0, NOTE))

    def __post_init__(self) -> None:
        if self.name not in VOICES:
            raise ValueError(f"voice {self.name!r}; expected one of {', '.join(VOICES)}")
        object.__setattr__(self, "notes", separate(self.notes))


@dataclass(frozen=True)
class Score:
    """One piece: `voices` holds each of VOICES at most once and in that order; `duration` in seconds."""

    voices: tuple[Voice, ...]
    grid: BeatGrid
    key: Key
    duration: float

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.voices, key=lambda voice: VOICES.index(voice.name)))
        if len({voice.name for voice in ordered}) != len(ordered):
            raise ValueError("a voice is there twice")
        object.__setattr__(self, "voices", ordered)

    def __getitem__(self, name: str) -> Voice:
        """A voice by name; one that the score lacks has no notes."""
        return next((voice for voice in self.voices if voice.name == name), Voice(name))

    @property
    def note_count(self) -> int:
        return sum(len(voice.notes) for voice in self.voices)

    def onsets(self, names: Iterable[str] = VOICES) -> np.ndarray:
        """Sorted starts of all notes of the named voices, in seconds."""
        return np.sort(np.concatenate([self[name].notes["start"] for name in names]))

    def slice(self, start: float, stop: float) -> "Score":
        """The seconds [start, stop), moved to begin at 0. Notes that sound at an edge are cut there."""
        voices = [replace(voice, notes=_clip(voice.notes, start, stop)) for voice in self.voices]
        sliced = replace(self, voices=tuple(voices), grid=self.grid.covering(start, stop), duration=stop - start)
        return sliced.shift(-start)

    def shift(self, seconds: float) -> "Score":
        """Every note and beat later by `seconds`; the duration stays."""
        return replace(self, voices=tuple(map(_later(seconds), self.voices)), grid=self.grid.shift(seconds))

    def transpose(self, semitones: int) -> "Score":
        """All voices but the drums, and the key, by `semitones`."""
        voices = []
        for voice in self.voices:
            notes = voice.notes.copy()
            if voice.name != DRUMS:
                notes["pitch"] = np.clip(notes["pitch"].astype(int) + semitones, 0, 127)
            voices.append(replace(voice, notes=notes))
        return replace(self, voices=tuple(voices), key=replace(self.key, tonic=(self.key.tonic + semitones) % 12))

    def in_c(self) -> "Score":
        """Transposed to the nearest C: what latents hold."""
        return self.transpose(-_above_c(self.key))

    def in_key(self, key: Key) -> "Score":
        """A score in C, transposed to `key`; the inverse of `in_c`."""
        return replace(self.transpose(_above_c(key)), key=key)


def _above_c(key: Key) -> int:
    """Semitones from the nearest C to the tonic, −5 to 6."""
    return key.tonic if key.tonic <= 6 else key.tonic - 12


def grid_rows(grid: BeatGrid, key: Key, *, frames: int, rate: float, start: float = 0.0) -> np.ndarray:
    """Beat grid and mode at the middle of each latent frame, (frames, 13) float32: the network's condition `grid`.

    Sine and cosine of the phase in the bar, the beat, its half and its quarter; octaves of the beat's length above
    0.5 s; the mode one-hot. There are `rate` frames a second, from `start` seconds on.
    """
    times = start + (np.arange(frames) + 0.5) / rate
    beats, half = grid.position(times), 0.5 / rate
    length = 1 / (rate * (grid.position(times + half) - grid.position(times - half)))  # seconds of a beat
    angles = 2 * np.pi * np.stack([beats / grid.beats_per_bar, beats, 2 * beats, 4 * beats], axis=1)
    rows = np.zeros((frames, GRID_DIM), np.float32)
    rows[:, 0:8:2], rows[:, 1:8:2] = np.sin(angles), np.cos(angles)
    rows[:, 8] = np.log2(length / 0.5)
    rows[:, 9 + list(MODES).index(key.mode)] = 1
    return rows


def separate(notes: np.ndarray) -> np.ndarray:
    """Sort by start and pitch; end every note before the next one of its pitch. Notes left shorter than 10 ms go."""
    if not len(notes):
        return notes
    notes = notes[np.lexsort((notes["start"], notes["pitch"]))]
    same = notes["pitch"][1:] == notes["pitch"][:-1]
    room = np.where(same, np.diff(notes["start"]), np.inf)
    notes["duration"][:-1] = np.minimum(notes["duration"][:-1], room)
    notes = notes[notes["duration"] >= _SHORTEST]
    return notes[np.lexsort((notes["pitch"], notes["start"]))]


def _clip(notes: np.ndarray, start: float, stop: float) -> np.ndarray:
    first = np.maximum(notes["start"], start)
    last = np.minimum(notes["start"] + notes["duration"], stop)
    inside = last - first > 0
    clipped = notes[inside]
    clipped["start"], clipped["duration"] = first[inside], (last - first)[inside]
    return clipped


def _later(seconds: float):
    def move(voice: Voice) -> Voice:
        notes = voice.notes.copy()
        notes["start"] += seconds
        return replace(voice, notes=notes)

    return move


def _line(at: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear interpolation that goes on at the slope of the first or last piece outside."""
    index = np.clip(np.searchsorted(known, at, side="right") - 1, 0, len(known) - 2)
    share = (at - known[index]) / (known[index + 1] - known[index])
    return values[index] + share * (values[index + 1] - values[index])
