"""Chord progressions: functional phrases with cadences, and loops; voicings that move as little as possible."""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np

from diff_v2m.score.score import MODES

MAJOR, MINOR, DIMINISHED = (0, 4, 7), (0, 3, 7), (0, 3, 6)
DOMINANT = (0, 4, 7, 10)
_SECONDARY_SHARE = 0.1  # of the places where a secondary dominant fits
_PARALLEL_COST, _LEAP_COST = 9.0, 1.5


@dataclass(frozen=True)
class Chord:
    """`root` in semitones above the tonic, `intervals` above the root; `bass` the interval that lies lowest."""

    root: int
    intervals: tuple[int, ...]
    bass: int = 0

    @property
    def pitch_classes(self) -> tuple[int, ...]:
        """Relative to the tonic."""
        return tuple((self.root + interval) % 12 for interval in self.intervals)


@dataclass(frozen=True)
class ModeHarmony:
    """Chords of a mode by Roman numeral, how often one follows another, cadences and loops."""

    chords: dict[str, tuple[int, tuple[int, ...]]]
    moves: dict[str, dict[str, int]]
    full_cadences: tuple[tuple[str, ...], ...]
    half_cadences: tuple[tuple[str, ...], ...]
    loops: tuple[tuple[str, ...], ...]
    tonic: str
    dominant: str


HARMONY = {
    "major": ModeHarmony(
        {"I": (0, MAJOR), "ii": (2, MINOR), "iii": (4, MINOR), "IV": (5, MAJOR), "V": (7, MAJOR), "vi": (9, MINOR)}
        | {"V/V": (2, DOMINANT), "V/vi": (4, DOMINANT), "V/ii": (9, DOMINANT), "iv": (5, MINOR)},
        {
            "I": {"IV": 30, "V": 22, "vi": 26, "ii": 14, "iii": 8},
            "ii": {"V": 70, "IV": 10, "vi": 8, "I": 12},
            "iii": {"vi": 50, "IV": 40, "ii": 10},
            "IV": {"V": 36, "I": 32, "ii": 18, "vi": 8, "iv": 6},
            "iv": {"I": 70, "V": 30},
            "V": {"I": 52, "vi": 26, "IV": 14, "iii": 8},
            "vi": {"IV": 40, "ii": 30, "iii": 12, "V": 18},
        },
        (("ii", "V", "I"), ("IV", "V", "I"), ("vi", "ii", "V", "I"), ("I", "V", "I"), ("IV", "iv", "I")),
        (("I", "V"), ("ii", "V"), ("IV", "V"), ("vi", "V")),
        (("I", "V", "vi", "IV"), ("I", "IV", "I", "V"), ("I", "vi", "IV", "V"), ("I", "iii", "IV", "V"))
        + (("I", "V", "IV", "I"), ("I", "IV", "vi", "V"), ("I", "vi", "ii", "V")),
        "I",
        "V",
    ),
    "minor": ModeHarmony(
        {"i": (0, MINOR), "iio": (2, DIMINISHED), "III": (3, MAJOR), "iv": (5, MINOR), "V": (7, MAJOR)}
        | {"v": (7, MINOR), "VI": (8, MAJOR), "VII": (10, MAJOR), "V/iv": (0, DOMINANT)},
        {
            "i": {"VI": 26, "iv": 24, "VII": 22, "V": 14, "III": 10, "v": 4},
            "iio": {"V": 100},
            "III": {"VI": 40, "VII": 30, "iv": 30},
            "iv": {"V": 34, "i": 26, "VII": 24, "VI": 8, "iio": 8},
            "V": {"i": 74, "VI": 26},
            "v": {"VI": 50, "iv": 50},
            "VI": {"VII": 34, "III": 24, "iv": 22, "iio": 6, "V": 14},
            "VII": {"III": 36, "i": 40, "VI": 24},
        },
        (("iv", "V", "i"), ("iio", "V", "i"), ("VI", "V", "i"), ("VI", "VII", "i"), ("iv", "VII", "i")),
        (("iv", "V"), ("i", "V"), ("VI", "V"), ("VI", "VII")),
        (("i", "VI", "III", "VII"), ("i", "iv", "VI", "V"), ("i", "VII", "VI", "VII"), ("i", "VI", "iv", "V"))
        + (("i", "VI", "VII", "i"), ("i", "III", "VII", "iv"), ("i", "v", "VI", "iv")),
        "i",
        "V",
    ),
    "dorian": ModeHarmony(
        {"i": (0, MINOR), "ii": (2, MINOR), "III": (3, MAJOR), "IV": (5, MAJOR), "v": (7, MINOR), "VII": (10, MAJOR)},
        {
            "i": {"IV": 42, "VII": 26, "III": 14, "ii": 12, "v": 6},
            "ii": {"i": 40, "v": 20, "III": 20, "IV": 20},
            "III": {"IV": 50, "VII": 30, "ii": 20},
            "IV": {"i": 48, "VII": 28, "v": 12, "ii": 12},
            "v": {"i": 40, "IV": 40, "VII": 20},
            "VII": {"i": 34, "IV": 46, "III": 20},
        },
        (("IV", "VII", "i"), ("IV", "i"), ("III", "IV", "i"), ("VII", "IV", "i")),
        (("i", "IV"), ("i", "VII"), ("III", "IV"), ("IV", "v")),
        (("i", "IV", "i", "IV"), ("i", "VII", "IV", "i"), ("i", "III", "IV", "i"), ("i", "ii", "i", "IV"))
        + (("i", "IV", "VII", "i"),),
        "i",
        "IV",
    ),
    "mixolydian": ModeHarmony(
        {"I": (0, MAJOR), "ii": (2, MINOR), "IV": (5, MAJOR), "v": (7, MINOR), "vi": (9, MINOR), "VII": (10, MAJOR)},
        {
            "I": {"VII": 40, "IV": 30, "v": 16, "vi": 8, "ii": 6},
            "ii": {"IV": 40, "VII": 30, "v": 30},
            "IV": {"I": 46, "VII": 34, "v": 10, "ii": 10},
            "v": {"IV": 44, "I": 32, "VII": 24},
            "vi": {"IV": 50, "VII": 50},
            "VII": {"IV": 46, "I": 46, "v": 8},
        },
        (("VII", "IV", "I"), ("IV", "VII", "I"), ("v", "VII", "I"), ("VII", "I")),
        (("I", "VII"), ("I", "IV"), ("IV", "v"), ("IV", "VII")),
        (("I", "VII", "IV", "I"), ("I", "v", "IV", "I"), ("I", "VII", "I", "IV"), ("I", "IV", "VII", "I")),
        "I",
        "VII",
    ),
}
_SECONDARY = {("ii", "V"): "V/V", ("iii", "vi"): "V/vi", ("vi", "ii"): "V/ii", ("i", "iv"): "V/iv"}


def phrase_chords(mode: str, slots: int, rng: np.random.Generator, *, cadence: str, start: str | None = None):
    """Roman numerals of a phrase of `slots` chords that ends in a cadence: "full", "half" or "open" (none)."""
    table = HARMONY[mode]
    endings = {"full": table.full_cadences, "half": table.half_cadences, "open": ((),)}[cadence]
    fitting = [ending for ending in endings if len(ending) < slots] or [
        ending[-max(slots - 1, 1) :] for ending in endings
    ]
    ending = fitting[rng.integers(len(fitting))]
    names = [start or table.tonic]
    while len(names) < slots - len(ending):
        names.append(_draw(table.moves[names[-1]], rng))
    names = [*names[: slots - len(ending)], *ending]
    for index in range(len(names) - 2, 0, -1):  # no chord twice in a row inside a phrase, where the grammar has another
        if names[index] == names[index + 1]:
            options = {name: weight for name, weight in table.moves[names[index - 1]].items() if name != names[index]}
            names[index] = _draw(options, rng)
    return with_secondary_dominants(mode, names, rng)


def with_secondary_dominants(mode: str, names: list[str], rng: np.random.Generator) -> list[str]:
    """Now and then a chord becomes the dominant of the one after it."""
    table, result = HARMONY[mode].chords, list(names)
    for index in range(1, len(names) - 1):
        secondary = _SECONDARY.get((names[index], names[index + 1]))
        if secondary in table and rng.random() < _SECONDARY_SHARE:
            result[index] = secondary
    return result


def loop_chords(mode: str, rng: np.random.Generator) -> tuple[str, ...]:
    loops = HARMONY[mode].loops
    return loops[rng.integers(len(loops))]


def chord(mode: str, name: str, *, sevenths: bool, cadential: bool = False) -> Chord:
    """The chord of a numeral. `sevenths` adds a seventh of the mode, `cadential` that of a dominant."""
    root, intervals = HARMONY[mode].chords[name]
    if len(intervals) == 3 and (sevenths or (cadential and name == "V")):
        if name == "V":
            intervals = DOMINANT
        elif (mode, name) != ("major", "iv"):
            intervals = (*intervals, 10 if (root + 10) % 12 in MODES[mode] else 11)
    return Chord(root, intervals)


def _draw(weights: dict[str, int], rng: np.random.Generator) -> str:
    names, values = list(weights), np.array(list(weights.values()), float)
    return names[int(np.searchsorted(np.cumsum(values / values.sum()), rng.random()))]


def with_inversions(chords: list[Chord], rng: np.random.Generator, share: float = 0.35) -> list[Chord]:
    """Put thirds in the bass inside a phrase where that makes the bass go by step; first and last two stay."""
    result = list(chords)
    for index in range(1, len(chords) - 2):
        here = chords[index]
        before, after = result[index - 1], chords[index + 1]
        third = here.intervals[1]
        low = (here.root + third) % 12
        steps = [_distance(low, (other.root + other.bass) % 12) for other in (before, after)]
        if max(steps) <= 2 and min(steps) > 0 and here.intervals[:3] != DIMINISHED and rng.random() < share:
            result[index] = replace(here, bass=third)
    return result


def _distance(first: int, second: int) -> int:
    return min((first - second) % 12, (second - first) % 12)


def bass_line(chords: list[Chord], tonic: int, low: int, high: int) -> list[int]:
    """A MIDI pitch for the bass of each chord: nearest to the one before, drawn towards the middle of the range."""
    centre = low + 0.42 * (high - low)
    pitches, last = [], centre
    for each in chords:
        wanted = (tonic + each.root + each.bass) % 12
        options = [pitch for pitch in range(low, high + 1) if pitch % 12 == wanted]
        last = min(options, key=lambda pitch: abs(pitch - last) + 0.5 * abs(pitch - centre))
        pitches.append(last)
    return pitches


@lru_cache(maxsize=4096)
def _candidates(pitch_classes: tuple[int, ...], low: int, high: int, count: int) -> np.ndarray:
    """(n, count) rising voicings in [low, high] that hold every pitch class; the fifth goes if there are too many."""
    names = (
        pitch_classes if len(pitch_classes) <= count else (pitch_classes[0], *pitch_classes[1:2], *pitch_classes[3:])
    )
    names = (*names, *names[: max(0, count - len(names))])
    options = [[pitch for pitch in range(low, high + 1) if pitch % 12 == name] for name in names]
    found = {tuple(sorted(pitches)) for pitches in product(*options)}
    good = [
        voicing
        for voicing in sorted(found)
        if voicing[-1] - voicing[0] <= 16
        and all(2 <= upper - lower <= 9 for lower, upper in zip(voicing, voicing[1:], strict=False))
    ]
    return np.array(good or sorted(found))


@lru_cache(maxsize=4096)
def _moves(first: tuple, second: tuple, first_bass: int, second_bass: int) -> np.ndarray:
    """(n, m) cost of going from each voicing of one chord to each of the next, the bass included."""
    before, after = _candidates(*first), _candidates(*second)
    change = after[None] - before[:, None]  # (n, m, voices)
    cost = np.abs(change).sum(-1) + _LEAP_COST * (np.abs(change) > 4).sum(-1)
    old = np.concatenate([np.full((len(before), 1), first_bass), before], 1)
    new = np.concatenate([np.full((len(after), 1), second_bass), after], 1)
    for low in range(old.shape[1]):
        for high in range(low + 1, old.shape[1]):
            was, now = (old[:, high] - old[:, low]) % 12, (new[:, high] - new[:, low]) % 12
            moved = (new[None, :, low] != old[:, None, low]) & (new[None, :, high] != old[:, None, high])
            perfect = (now == 7) | (now == 0)
            cost = cost + _PARALLEL_COST * ((was[:, None] == now[None]) & perfect[None] & moved)
    return cost


def voice_leading(
    chords: list[Chord], basses: list[int], tonic: int, low: int, high: int, count: int = 3
) -> list[tuple[int, ...]]:
    """`count` rising MIDI pitches for each chord: the smoothest way through all of them, by dynamic programming.

    Moves are as small as possible, a common tone stays, and fifths and octaves do not go in parallel where another
    voicing avoids it.
    """
    specs = [(tuple((tonic + name) % 12 for name in each.pitch_classes), low, high, count) for each in chords]
    centre = (low + high) / 2
    stays = [0.12 * np.abs(_candidates(*spec).mean(1) - centre) for spec in specs]
    total, pointers = stays[0], []
    for index in range(1, len(specs)):
        moves = _moves(specs[index - 1], specs[index], basses[index - 1], basses[index]) + total[:, None]
        pointers.append(moves.argmin(0))
        total = moves.min(0) + stays[index]
    choice = int(total.argmin())
    path = [choice]
    for pointer in reversed(pointers):
        choice = int(pointer[choice])
        path.append(choice)
    return [tuple(_candidates(*spec)[row].tolist()) for spec, row in zip(specs, path[::-1], strict=True)]
