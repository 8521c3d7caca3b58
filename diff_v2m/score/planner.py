"""Cuts → tempo, metre and bar starts, so that as many cuts as possible fall on beats; key from mood and seed.

A cut that is placed on the grid is met exactly: between two such cuts the tempo is constant and at most MAX_DRIFT from
the tempo of the piece. Which cuts are placed, and where in the bar, follows from dynamic programming over the cuts, for
all tempi at once. Composer and inference call the same function.
"""

from dataclasses import dataclass

import numpy as np

from diff_v2m.score.score import BeatGrid, Key

SLOWEST, FASTEST = 60.0, 160.0  # beats per minute
MAX_DRIFT = 0.05  # of the tempo, from one placed cut to the next
TOLERANCE = 0.030  # s; a cut this near an eighth note is a hit
MOODS = {"major": ("major",), "minor": ("minor",), "modal": ("dorian", "mixolydian")}
_TEMPI = np.geomspace(SLOWEST, FASTEST, 120)
_LOOK_BACK = 6  # a cut follows one of the 6 cuts before it; the ones between are not placed
_DOWNBEAT, _HALF_BAR, _BEAT, _OFFBEAT = 1.0, 0.85, 0.6, 0.4  # worth of a cut by its place in the bar
_START_ON_DOWNBEAT = 0.7
_DRIFT_COST = 0.4  # of a cut reached with MAX_DRIFT
_TEMPO_SPREAD, _TEMPO_COST = 0.12, 0.5  # of log tempo from the preferred one
_THREE_SHARE = 0.25  # of pieces in three


@dataclass(frozen=True)
class Plan:
    """The grid and key of a piece; `hits` (cuts,) says which cuts lie on an eighth note of the grid."""

    grid: BeatGrid
    key: Key
    hits: np.ndarray


def plan(
    duration: float,
    cuts: np.ndarray,
    seed: int,
    *,
    motion: float = 0.5,
    mood: str = "major",
    tempo: float | None = None,
    beats_per_bar: int | None = None,
    weights: np.ndarray | None = None,
) -> Plan:
    """Plan a piece of `duration` seconds for a video whose picture changes at `cuts` (seconds, rising).

    motion (0 still to 1 busy) sets the preferred tempo and mood (a key of MOODS) the mode; tonic, and what `tempo` and
    `beats_per_bar` leave open, follow from the seed. weights: how much each cut counts; None: 1.
    """
    rng = np.random.default_rng([seed, 17])
    tonic, mode = int(rng.integers(12)), str(rng.choice(MOODS[mood]))
    drawn_tempo = np.exp(np.interp(motion, (0, 1), np.log((70, 138))) + 0.16 * rng.standard_normal())
    drawn_metre = 3 if rng.random() < _THREE_SHARE else 4
    tempo = float(np.clip(tempo or drawn_tempo, SLOWEST, FASTEST))
    beats_per_bar = beats_per_bar or drawn_metre
    cuts = np.asarray(cuts, float)
    inside = (cuts > 0) & (cuts < duration)
    cuts, weights = cuts[inside], np.ones(inside.sum()) if weights is None else weights[inside]
    grid = plan_grid(duration, cuts, tempo, beats_per_bar, weights)
    return Plan(grid, Key(tonic, mode), on_grid(grid, cuts))


def continued(
    before: BeatGrid, start: float, duration: float, cuts: np.ndarray, weights: np.ndarray | None = None
) -> BeatGrid:
    """The grid of a piece that got longer: `before` up to `start`, one of its beats, and new beats from there on.

    They meet the cuts after `start` best. Metre and bars go on; the tempo is that at `start`, within MAX_DRIFT.
    """
    first = int(np.abs(before.beats - start).argmin())
    start = float(before.beats[first])
    position = round(float(before.position(start)))
    tempo = 60.0 / np.median(np.diff(before.beats[max(0, first - before.beats_per_bar) : first + 2]))
    after = cuts > start
    grid = plan_grid(
        duration - start,
        cuts[after] - start,
        float(tempo),
        before.beats_per_bar,
        None if weights is None else weights[after],
        first_slot=2 * (position % before.beats_per_bar),
    )
    beats = np.concatenate([before.beats[:first], start + grid.beats[grid.beats > -1e-9]])
    return BeatGrid(beats, before.beats_per_bar, before.first_downbeat)


def on_grid(grid: BeatGrid, times: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Whether each time lies within `tolerance` seconds of an eighth note."""
    nearest = grid.seconds(np.round(grid.position(times) * 2) / 2)
    return np.abs(nearest - times) <= tolerance


def plan_grid(
    duration: float,
    cuts: np.ndarray,
    tempo: float,
    beats_per_bar: int,
    weights: np.ndarray | None = None,
    *,
    first_slot: int | None = None,
) -> BeatGrid:
    """The grid whose beats meet the cuts best, at a tempo near the preferred one; 0 s is a beat.

    weights (cuts,): how much each counts; None: 1. first_slot: eighth note of the bar that 0 s is, of a grid that
    goes on; it stays within MAX_DRIFT of the tempo. None: any beat, and a tempo that may differ more.
    """
    times = np.concatenate([[0.0], cuts])
    weights = np.concatenate([[1.0], np.ones(len(cuts)) if weights is None else weights])
    eighth = 30.0 / _TEMPI
    slots = 2 * beats_per_bar  # eighth notes of a bar
    worth = np.full(slots, _OFFBEAT)
    worth[::2], worth[0] = _BEAT, _DOWNBEAT
    if beats_per_bar == 4:
        worth[4] = _HALF_BAR

    # best[i]: (tempi, slots) worth of the best placement whose last placed time is times[i], in that slot of the bar.
    first = np.full((len(_TEMPI), slots), -np.inf)
    first[:, ::2] = 0.0
    first[:, 0] = _START_ON_DOWNBEAT
    if first_slot is not None:
        first[:] = -np.inf
        first[np.abs(_TEMPI / np.clip(tempo, SLOWEST, FASTEST) - 1) <= MAX_DRIFT, first_slot] = 0.0
    unreached = np.zeros(first.shape, int)
    best, origin, steps = [first], [unreached], [unreached]
    rows = np.arange(len(_TEMPI))[:, None]
    for i in range(1, len(times)):
        total = np.full((len(_TEMPI), slots), -np.inf)
        came_from, count = np.zeros(total.shape, int), np.zeros(total.shape, int)
        for j in range(max(0, i - _LOOK_BACK), i):
            exact = (times[i] - times[j]) / eighth
            for number in (np.floor(exact), np.floor(exact) + 1):
                drift = np.abs(exact / np.maximum(number, 1) - 1)
                allowed = (drift <= MAX_DRIFT) & (number >= 1)
                cost = np.where(allowed, _DRIFT_COST * (drift / MAX_DRIFT) ** 2, np.inf)
                source = (np.arange(slots) - number[:, None].astype(int)) % slots
                reached = best[j][rows, source] + weights[i] * worth - cost[:, None]
                better = reached > total
                total[better] = reached[better]
                came_from[better] = j
                count = np.where(better, number[:, None].astype(int), count)
        best.append(total)
        origin.append(came_from)
        steps.append(count)

    prior = -_TEMPO_COST * (np.log(_TEMPI / tempo) / _TEMPO_SPREAD) ** 2
    values = np.stack(best) + prior[:, None]
    last, row, slot = (int(index) for index in np.unravel_index(int(values.argmax()), values.shape))
    placed = [(float(times[last]), 0)]  # (seconds, eighth notes before the last placed time)
    while last:
        number = int(steps[last][row, slot])
        last, slot = int(origin[last][row, slot]), int((slot - number) % slots)
        placed.append((float(times[last]), placed[-1][1] + number))
    known = np.array(placed[::-1])
    positions = (known[0, 1] - known[:, 1] + slot) / 2  # beats since the downbeat of the first bar
    return _grid(duration, known[:, 0], positions, 60.0 / _TEMPI[row], beats_per_bar)


def _grid(duration: float, times: np.ndarray, positions: np.ndarray, beat: float, beats_per_bar: int) -> BeatGrid:
    """Beats through the placed times, at the tempo of the piece before the first and after the last."""
    end = positions[-1] + (duration - times[-1]) / beat
    times = np.concatenate([[times[0] - beat], times, [times[-1] + (np.ceil(end) - positions[-1]) * beat + beat]])
    positions = np.concatenate([[positions[0] - 1], positions, [np.ceil(end) + 1]])
    numbers = np.arange(np.ceil(positions[0]), positions[-1] + 0.5)
    beats = np.interp(numbers, positions, times)
    grid = BeatGrid(beats, beats_per_bar, int(-numbers[0] % beats_per_bar))
    return grid.covering(0.0, duration)
