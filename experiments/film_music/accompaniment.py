"""Bass, harmony, figure and pad: the patterns of the ensemble's style laid over the chords."""

from dataclasses import dataclass, field

import numpy as np

from diff_v2m.score.instruments import INSTRUMENTS
from experiments.film_music.form import Form, Span, scale_names
from experiments.film_music.patterns import APPROACH, BASS, CHORDS, FIFTH, FIGURES, OCTAVE, ROOT, THIRD

_FASTEST_FIGURE = 8.0  # notes a second; a faster one gives way to that of a calmer section
_SLOW_ATTACK, _SLOW_SHORTEST = 0.08, 0.4  # s; instruments that speak slower than the first play no shorter chords
# Where a figure plays, by program; any other within an octave and a half around middle C.
_FIGURE_RANGES = {
    0: (53, 79),
    8: (72, 96),
    9: (79, 98),
    11: (60, 84),
    12: (57, 81),
    13: (72, 91),
    21: (60, 79),
    25: (52, 76),
    27: (52, 74),
    29: (45, 64),
    45: (57, 79),
    46: (50, 81),
    48: (57, 77),
    81: (57, 81),
    88: (60, 84),
    108: (60, 84),
}


@dataclass
class Part:
    """Notes of a voice as they are written: position and length in beats, pitch, accent (velocity), delay (s)."""

    rows: list[tuple[float, float, int, float, float]] = field(default_factory=list)

    def add(self, position: float, length: float, pitch: int, accent: float = 0.0, delay: float = 0.0) -> None:
        self.rows.append((position, length, pitch, accent, delay))


def bass_part(form: Form) -> Part:
    part, metre = Part(), form.beats_per_bar
    scales = {}
    for bar in form.bars:
        start = bar * metre
        pattern = BASS[form.ensemble.style.bass[form.section(max(start, form.begin)).intensity]].bar(metre)
        for position, length, tone in pattern:
            at = start + position
            number = form.span_number(at)
            span = form.spans[number]
            stop = min(at + length, span.stop)
            first = not any(span.start - 1e-6 <= start + other < at for other, _, _ in pattern)
            pitch = span.bass
            if not first and tone == APPROACH and number + 1 < len(form.spans):
                following = form.spans[number + 1]
                scale = scales.setdefault(span.chord, scale_names(span.chord, form.plan.key.tonic, form.plan.key.mode))
                pitch = _approach(span, following, scale) if at + 1 >= span.stop - 1e-6 else span.bass
            elif not first:
                pitch = _bass_tone(span, tone)
            part.add(at, stop - at, pitch, 4.0 if position == 0 else 0.0)
            if at + length > span.stop + 1e-6 and number + 1 < len(form.spans) and at + length <= start + metre + 1e-6:
                part.add(span.stop, at + length - span.stop, form.spans[number + 1].bass)
    return part


def _bass_tone(span: Span, tone: int) -> int:
    root, chord = span.bass, span.chord
    if chord.bass or tone == ROOT:
        return root + (12 if tone == OCTAVE else 0)
    return root + {THIRD: chord.intervals[1], FIFTH: chord.intervals[2], OCTAVE: 12, APPROACH: 0}[tone]


def _approach(span: Span, following: Span, scale: frozenset[int]) -> int:
    """A step of the scale below or above the next bass note, on the side that the line comes from."""
    target = following.bass
    sides = (-1, -2, 1, 2) if span.bass <= target else (1, 2, -1, -2)
    return next((target + side for side in sides if (target + side) % 12 in scale), target)


def harmony_part(form: Form) -> Part:
    part, metre, style = Part(), form.beats_per_bar, form.ensemble.style
    program = form.ensemble.harmony
    if program is None:
        return part
    slow = INSTRUMENTS[program].advance > _SLOW_ATTACK
    for bar in form.bars:
        start = bar * metre
        intensity = form.section(max(start, form.begin)).texture
        name = style.chords[intensity]
        while slow and name and intensity and _shortest(name, metre) * 60 / form.plan.grid.tempo < _SLOW_SHORTEST:
            intensity -= 1
            name = style.chords[intensity]
        if name is None:
            continue
        for position, length in CHORDS[name].bar(metre):
            at, end = start + position, min(start + position + length, start + metre)
            while at < end - 1e-6:
                span = form.span(at)
                stop = min(end, span.stop)
                for rank, pitch in enumerate(span.voicing):
                    part.add(at, stop - at, pitch, 3.0 if position == 0 else 0.0, rank * style.strum)
                if stop <= at:
                    break
                at = stop
    return part


def _shortest(name: str, metre: int) -> float:
    return min(length for _, length in CHORDS[name].bar(metre))


def figure_part(form: Form, rng: np.random.Generator) -> Part:
    part, metre, style = Part(), form.beats_per_bar, form.ensemble.style
    program = form.ensemble.figure
    if program is None:
        return part
    low, high = _FIGURE_RANGES.get(program, (54, 76))
    held = program in (46, 0, 88, 8, 11)  # instruments that let their notes ring
    for bar in form.bars:
        start = bar * metre
        intensity = form.section(max(start, form.begin)).texture
        name = style.figure[intensity]
        while name and intensity and form.plan.grid.tempo / 60 / FIGURES[name][0] > _FASTEST_FIGURE:
            intensity -= 1
            name = style.figure[intensity]
        if name is None:
            continue
        step, tones = FIGURES[name]
        for number in range(round(metre / step)):
            tone = tones[number % len(tones)]
            if tone is None:
                continue
            at = start + number * step
            span = form.span(at)
            pitch = _chord_note(form, span, low, high, tone)
            part.add(at, step * (1.8 if held else 0.92), pitch, 3.0 if number == 0 else 0.0)
    if style.groove is None:
        _chimes(form, part, low, high)
    elif style.groove[0] == "orchestral":
        _runs(form, part, low, high, rng)
    return part


def _chimes(form: Form, part: Part, low: int, high: int) -> None:
    """Where no drums mark a cut, three notes of the chord do."""
    for seconds, placed in form.cuts:
        cut = round(2 * float(form.plan.grid.position(seconds))) / 2
        if placed and (form.final is None or cut < form.final):
            for number in (1, 2, 4):
                part.add(cut, 1.5, _chord_note(form, form.span(cut), low, high, number), 6.0)


def _chord_note(form: Form, span: Span, low: int, high: int, number: int) -> int:
    """Note `number` of the chord, counted up from the first root or fifth in the range."""
    names = {(form.plan.key.tonic + name) % 12 for name in span.chord.pitch_classes[:4]}
    notes = [pitch for pitch in range(low, high + 1) if pitch % 12 in names]
    return notes[min(number, len(notes) - 1)]


def _runs(form: Form, part: Part, low: int, high: int, rng: np.random.Generator) -> None:
    """A run up the scale in the beat before a cut, in place of the figure."""
    for seconds, placed in form.cuts:
        cut = round(2 * float(form.plan.grid.position(seconds))) / 2
        if not placed or cut - 1 < form.begin or rng.random() < 0.45 or (form.final is not None and cut > form.final):
            continue
        span = form.span(cut - 1)
        scale = scale_names(span.chord, form.plan.key.tonic, form.plan.key.mode)
        count = int(rng.choice((4, 6)))
        goal = _chord_note(form, form.span(cut), low, high, 4)
        notes = [pitch for pitch in range(low, goal) if pitch % 12 in scale][-count:]
        part.rows[:] = [row for row in part.rows if not cut - 1 - 1e-6 <= row[0] < cut - 1e-6]
        for number, pitch in enumerate(notes):
            part.add(cut - 1 + number / len(notes), 0.9 / len(notes), pitch, 2.0 * number - 4)


def pad_part(form: Form) -> Part:
    """Chords held from change to change; a tone that stays is tied over, for two chords at most."""
    part = Part()
    if form.ensemble.pad is None:
        return part
    sounding: dict[int, tuple[float, float, int]] = {}
    for span in form.spans:
        kept = {}
        for pitch in span.pad:
            if pitch in sounding and sounding[pitch][2] < 2:
                start, _, count = sounding.pop(pitch)
                kept[pitch] = (start, span.stop, count + 1)
            else:
                kept[pitch] = (span.start, span.stop, 1)
        for pitch in sorted(sounding):
            start, stop, _ = sounding[pitch]
            part.add(start, stop - start, pitch)
        sounding = kept
    for pitch in sorted(sounding):
        start, stop, _ = sounding[pitch]
        part.add(start, stop - start, pitch)
    return part


def clip_range(pitch: int, program: int) -> int:
    """Move a pitch by octaves into the range of a program."""
    instrument = INSTRUMENTS[program]
    while pitch < instrument.low:
        pitch += 12
    while pitch > instrument.high:
        pitch -= 12
    return pitch
