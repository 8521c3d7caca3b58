"""A melody from one motif: it returns, moves with the harmony, is inverted, ornamented or thinned out, and cadences.

A phrase is first a rhythm with wishes (intervals of the motif, a contour, chord tones on strong beats, a stable end);
then dynamic programming over the pitches of the scale finds the line that grants them best.
"""

from dataclasses import dataclass, replace

import numpy as np

# Rhythms of a motif bar: (onsets in beats). Calm, moving, busy; the last note lasts to the end of the bar.
_RHYTHMS = {
    4: (
        ((0, 2, 3), (0, 1, 2), (0, 1.5, 2), (0, 2, 2.5, 3), (0, 1, 3)),
        (
            (0, 1.5, 2, 3),
            (0, 1, 1.5, 2),
            (0, 0.5, 1, 2),
            (0, 1.5, 2, 3.5),
            (0, 1, 2, 2.5, 3),
            (0.5, 1, 2, 3),
        ),
        (
            (0, 0.5, 1, 1.5, 2),
            (0, 0.5, 1, 2, 2.5, 3),
            (0, 1, 1.5, 2, 3, 3.5),
            (0.5, 1, 1.5, 2, 3),
            (0, 0.75, 1, 2, 2.75, 3),
        ),
    ),
    3: (
        ((0, 2), (0, 1.5, 2), (0, 1, 2), (0, 2, 2.5)),
        ((0, 1.5, 2, 2.5), (0, 1.5, 2), (0, 1, 1.5, 2), (0, 0.5, 1, 2), (0, 1, 2, 2.5)),
        ((0, 0.5, 1, 1.5, 2), (0, 0.5, 1, 2, 2.5), (0, 1, 1.5, 2, 2.5), (0.5, 1, 1.5, 2), (0, 0.75, 1, 2)),
    ),
}
_STEPS = (1, -1, 2, -2, 0, 3, -3, 4, -4)  # of the scale
_STEP_WEIGHTS = np.array((31, 31, 11, 11, 3, 4, 4, 3, 2)) / 100
# Cost of an interval by semitones: steps are free, thirds cheap, leaps dear, tritones and sevenths dearer.
_INTERVAL_COST = np.array([0.9, 0.0, 0.0, 0.6, 0.65, 0.95, 4.0, 1.2, 2.0, 2.2, 5.0, 6.0, 2.0])
_WISH_COST = 0.9  # for each scale step off the motif's interval
_ARCH_COST = 0.07  # for each semitone off the contour
_AUGMENTED_COST = 4.0
_CHORD_COST = {"down": 5.0, "beat": 1.6, "off": 0.5}  # of a note outside the chord, for each beat it lasts (at least ½)
_BY_LEAP_COST = 2.4  # of a note outside the chord that is reached or left by more than a step


@dataclass(frozen=True)
class Motif:
    """One bar: onsets in beats, and from each note to the next so many steps of the scale."""

    onsets: tuple[float, ...]
    steps: tuple[int, ...]  # one fewer than onsets

    def inverted(self) -> "Motif":
        return replace(self, steps=tuple(-step for step in self.steps))

    def ornamented(self, beats_per_bar: int) -> "Motif":
        """The longest note that a step leads away from is divided: its upper or lower neighbour comes in between."""
        ends = (*self.onsets[1:], beats_per_bar)
        lengths = [end - start for start, end in zip(self.onsets, ends, strict=True)]
        index = int(np.argmax(lengths[:-1])) if len(lengths) > 1 else 0
        if lengths[index] < 1:
            return self
        middle = self.onsets[index] + lengths[index] / 2
        onsets = (*self.onsets[: index + 1], middle, *self.onsets[index + 1 :])
        step = self.steps[index] if self.steps else 1
        first = int(np.sign(step)) or 1
        steps = (*self.steps[:index], first, *((step - first,) if self.steps else ()), *self.steps[index + 1 :])
        return Motif(onsets, steps)

    def thinned(self) -> "Motif":
        """Without its offbeat notes; the steps around a note that goes are added."""
        onsets, steps, carried = [self.onsets[0]], [], 0
        for onset, step in zip(self.onsets[1:], self.steps, strict=True):
            carried += step
            if onset == int(onset):
                onsets.append(onset)
                steps.append(carried)
                carried = 0
        return Motif(tuple(onsets), tuple(steps))


@dataclass(frozen=True)
class Slot:
    """A note to be given a pitch: position and length in beats, and what the phrase wishes for it."""

    start: float
    length: float
    wish: int | None  # scale steps from the note before, where the motif says so
    contour: float  # wished MIDI pitch
    cadence: tuple[int, ...] = ()  # pitch classes above the tonic that may end the phrase; empty inside it


def draw_motif(beats_per_bar: int, density: int, rng: np.random.Generator) -> Motif:
    """A rhythm of the density (0 calm, 1 moving, 2 busy) with steps that stay within a sixth."""
    rhythms = _RHYTHMS[beats_per_bar][density]
    onsets = rhythms[rng.integers(len(rhythms))]
    for _ in range(6):
        steps = _draw_steps(len(onsets) - 1, rng)
        levels = np.cumsum((0, *steps))
        if np.ptp(levels) >= 2:  # a motif that hardly moves says nothing
            break
    return Motif(tuple(onsets), steps)


def _draw_steps(count: int, rng: np.random.Generator) -> tuple[int, ...]:
    steps: list[int] = []
    candidates = np.array(_STEPS)
    for _ in range(count):
        weights = _STEP_WEIGHTS * (np.abs(sum(steps) + candidates) <= 4)
        if steps and abs(steps[-1]) > 2:  # a leap is answered by steps the other way
            weights = weights * ((np.sign(candidates) == -np.sign(steps[-1])) & (np.abs(candidates) <= 2))
        elif steps:
            weights = weights * np.where(candidates == -steps[-1], 0.35, 1.0)  # to and fro is dull
        steps.append(int(candidates[np.searchsorted(np.cumsum(weights / weights.sum()), rng.random())]))
    return tuple(steps)


def treatments(bars: int, rng: np.random.Generator) -> list[str]:
    """What each bar of a phrase does with the motif; the last one cadences."""
    if bars <= 1:
        return ["cadence"]
    if bars == 2:
        return ["motif", "cadence"]
    if bars == 3:
        return [*(("motif", "motif"), ("motif", "ornament"))[rng.integers(2)], "cadence"]
    plans = (
        ("motif", "motif", "ornament"),
        ("motif", "answer", "motif"),
        ("motif", "motif", "inversion"),
        ("motif", "answer", "ornament"),
        ("motif", "inversion", "motif"),
    )
    middle = list(plans[rng.integers(len(plans))])
    while len(middle) < bars - 1:
        middle.append(("motif", "answer", "ornament")[rng.integers(3)])
    return [*middle, "cadence"]


def phrase_slots(
    start_bar: int,
    bars: int,
    beats_per_bar: int,
    motif: Motif,
    answer: Motif,
    centre: float,
    cadence: tuple[int, ...],
    rng: np.random.Generator,
    *,
    upbeat: tuple[float, ...] = (),
    thin: bool = False,
    busy: bool = False,
    last: bool = False,
) -> list[Slot]:
    """The rhythm and the wishes of a phrase. Its contour rises to about two thirds of it and falls to the cadence.

    `upbeat`: lengths of notes before the first bar, which lead into it by step.
    """
    begin = start_bar * beats_per_bar
    lead_in = np.cumsum((0, *upbeat)) - sum(upbeat)
    slots = [
        Slot(begin + float(at), length, None if i == 0 else 1, 0.0)
        for i, (at, length) in enumerate(zip(lead_in, upbeat, strict=False))
    ]
    height = float(rng.uniform(3.0, 7.5))
    for number, treatment in enumerate(treatments(bars, rng)):
        first = (start_bar + number) * beats_per_bar
        if treatment == "cadence":
            slots += _cadence(first, beats_per_bar, motif, cadence, bars, rng, last=last)
            continue
        form = {"answer": answer, "inversion": motif.inverted()}.get(treatment, motif)
        if treatment == "ornament" or (busy and rng.random() < 0.3):
            form = form.ornamented(beats_per_bar)
        if thin:
            form = form.thinned()
        ends = (*form.onsets[1:], beats_per_bar)
        wishes = (1 if upbeat and number == 0 else None, *form.steps)
        for onset, end, wish in zip(form.onsets, ends, wishes, strict=True):
            slots.append(Slot(first + onset, end - onset, wish, 0.0))
    span = max(slots[-1].start - slots[0].start, 1e-6)
    result = []
    for slot in slots:
        share = (slot.start - slots[0].start) / span
        arch = np.sin(np.pi * share**1.3)
        result.append(replace(slot, contour=centre - 1.5 + height * float(arch)))
    return result


def _cadence(first, beats_per_bar, motif, cadence, bars, rng, *, last) -> list[Slot]:
    """The last bar: perhaps the motif's first notes or a step before, then a long note. The final one stands alone."""
    lead: tuple[float, ...] = ()
    if not last:
        choices = ((), (0,), (0, 1)) if bars > 1 else ((0,), (0, 1))
        lead = choices[rng.integers(len(choices))]
    at = first + len(lead)
    wishes = (None, *motif.steps)
    slots = [Slot(first + onset, 1.0, wishes[min(i, len(wishes) - 1)], 0.0) for i, onset in enumerate(lead)]
    length = beats_per_bar - len(lead) - (0.0 if last or beats_per_bar - len(lead) < 2 else 0.5)
    return [*slots, Slot(at, max(length, 0.5), None, 0.0, cadence)]


def realise(
    slots: list[Slot],
    scales: list[frozenset[int]],
    chords: list[frozenset[int]],
    tonic: int,
    beats_per_bar: int,
    low: int,
    high: int,
    previous: int | None,
    rng: np.random.Generator,
) -> list[int]:
    """A MIDI pitch for each slot: the cheapest line. `scales` and `chords` hold pitch classes, one set for each slot.

    `previous` is the pitch that the phrase before ended on.
    """
    pitches = np.arange(low, high + 1)
    gaps = np.abs(pitches[:, None] - pitches[None])
    interval = np.where(gaps <= 12, _INTERVAL_COST[np.minimum(gaps, 12)], 9.0)
    leaps = gaps > 2
    total, pointers, before = None, [], None
    for slot, scale, chord in zip(slots, scales, chords, strict=True):
        names = pitches % 12
        inside, tone = np.isin(names, list(scale)), np.isin(names, list(chord))
        stay = np.where(inside, 0.0, 60.0) + _ARCH_COST * np.abs(pitches - slot.contour)
        stay += 0.12 * rng.random(len(pitches))
        if slot.cadence:
            wanted = [(tonic + name) % 12 for name in slot.cadence]
            stay += np.where(np.isin(names, wanted), 0.0, 14.0) + np.where(names == wanted[0], 0.0, 0.8)
        outside = ~tone
        stay += outside * _CHORD_COST[_strength(slot.start, beats_per_bar)] * max(slot.length, 0.5)
        rubs = np.isin((names - 1) % 12, list(chord)) & outside  # a semitone above a chord tone
        stay += 0.8 * rubs * slot.length
        degrees = np.cumsum(inside)  # steps of the scale from the lowest pitch
        if total is None:
            total = stay
            if previous is not None:
                distance = np.abs(pitches - previous)
                total = total + 0.5 * np.where(distance <= 12, _INTERVAL_COST[np.minimum(distance, 12)], 9.0)
        else:
            move = interval + _BY_LEAP_COST * leaps * (outside[None] | before[1][:, None])
            steps = degrees[None] - before[0][:, None]
            if slot.wish is not None:
                move = move * 0.6 + _WISH_COST * np.minimum(np.abs(steps - slot.wish), 4)
            move = move + _AUGMENTED_COST * ((gaps == 3) & (np.abs(steps) == 1))
            cost = total[:, None] + move
            pointers.append(cost.argmin(0))
            total = cost.min(0) + stay
        before = (degrees, outside)
    choice = int(total.argmin())
    path = [choice]
    for pointer in reversed(pointers):
        choice = int(pointer[choice])
        path.append(choice)
    return [int(pitches[row]) for row in path[::-1]]


def _strength(position: float, beats_per_bar: int) -> str:
    in_bar = position % beats_per_bar
    if in_bar == 0 or (beats_per_bar == 4 and in_bar == 2):
        return "down"
    return "beat" if in_bar == int(in_bar) else "off"
