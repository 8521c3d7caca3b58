"""Drums: the groove of the style by intensity, fills before cuts, cymbals on them."""

import numpy as np

from experiments.film_music.accompaniment import Part
from experiments.film_music.form import Form
from experiments.film_music.patterns import (
    CRASH,
    CYMBAL,
    DRUM,
    FILLS,
    GROOVES,
    KICK,
    OPEN,
    RIDE,
    TIMPANI_HIGH,
    TIMPANI_LOW,
    TRIANGLE,
)

DRUM_LENGTHS = {CRASH: 1.6, CYMBAL: 1.6, OPEN: 0.35, RIDE: 0.6}  # s; any other 0.12
_ACCENTS = {"X": 10.0, "x": -4.0, "o": -26.0}
_SIXTEENTH = 0.25
_BETWEEN_CRASHES = 8.0  # beats; sooner only where the picture gets busier
_FAST = 126.0  # beats per minute


def drum_part(form: Form, rng: np.random.Generator) -> Part:
    part, style = Part(), form.ensemble.style
    if style.groove is None:
        return part
    name, variants = style.groove
    metre, orchestral = form.beats_per_bar, name == "orchestral"
    grooves = GROOVES[name].bar(metre)
    fast = form.plan.grid.tempo > _FAST
    after = form.final if form.final is not None else form.end
    for bar in form.bars:
        start = bar * metre
        for step in range(4 * metre):
            at = start + step * _SIXTEENTH
            if at < form.begin - 1e-6 or at >= after - 1e-6:
                continue
            variant = variants[form.section(at).intensity]
            if variant is None:
                continue
            for pitch, hits in grooves[min(variant, len(grooves) - 1)].items():
                ghost = fast and step % 2 == 1 and hits[step] == "o"  # no drummer plays these at such a tempo
                if not ghost and (accent := _ACCENTS.get(hits[step])) is not None:
                    part.add(at, _SIXTEENTH, _tuned(form, at, pitch) if orchestral else pitch, accent)
    crash, low, light = (CYMBAL, DRUM, TRIANGLE) if orchestral else (CRASH, KICK, OPEN)
    last_crash = -np.inf
    for seconds, placed in form.cuts:
        cut = float(form.plan.grid.position(seconds))
        cut = round(2 * cut) / 2 if placed else cut
        before, here = form.section(cut - 0.3), form.section(cut)
        if cut > after - 1e-6:
            continue
        plays = variants[before.intensity] is not None
        if placed and plays and cut - before.start >= 2 and rng.random() < 0.75:
            _fill(form, part, cut, FILLS["orchestra" if orchestral else "kit"], rng)
        if variants[here.intensity] is not None or plays:
            softer = -30.0 if variants[here.intensity] is None else -6.0 + 6.0 * (here.intensity - 1)
            if cut - last_crash >= _BETWEEN_CRASHES or here.level > before.level + 0.15:
                last_crash = cut
                _replace(part, cut, {crash: softer, low: softer + 4.0})
            else:
                _replace(part, cut, {light: softer, low: softer + 4.0})
    if form.final is not None and variants[form.section(form.final).intensity] is not None:
        _fill(form, part, form.final, FILLS["orchestra" if orchestral else "kit"], rng)
        _replace(part, form.final, {crash: 0.0, low: 6.0})
    return part


def _fill(form: Form, part: Part, cut: float, fills: tuple, rng: np.random.Generator) -> None:
    """Play a fill that ends at `cut`, in place of the groove."""
    fill = fills[rng.integers(len(fills))]
    start = cut - max(distance for distance, _, _ in fill) * _SIXTEENTH
    if start < form.begin:
        return
    part.rows[:] = [row for row in part.rows if not start - 1e-6 <= row[0] < cut - 1e-6]
    for distance, pitch, share in fill:
        at = cut - distance * _SIXTEENTH
        part.add(at, _SIXTEENTH, _tuned(form, at, pitch), -28.0 + 34.0 * share)


def _replace(part: Part, at: float, hits: dict[int, float]) -> None:
    part.rows[:] = [row for row in part.rows if abs(row[0] - at) > 1e-6 or row[2] not in hits]
    for pitch, accent in hits.items():
        part.add(at, 1.0, pitch, accent)


def _tuned(form: Form, position: float, pitch: int) -> int:
    """The timpani play the root of the chord."""
    if pitch != TIMPANI_LOW:
        return pitch
    root = form.plan.key.tonic + form.span(position).chord.root
    return TIMPANI_LOW + (root - TIMPANI_LOW) % (TIMPANI_HIGH - TIMPANI_LOW)
