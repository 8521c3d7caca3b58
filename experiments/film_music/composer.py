"""Scene → score. One random generator, seeded by the scene; the same scene gives the same score on any machine."""

import numpy as np

from diff_v2m.score.instruments import INSTRUMENTS
from diff_v2m.score.planner import plan
from diff_v2m.score.score import DRUMS, NOTE, Score, Voice
from experiments.film_music.accompaniment import Part, bass_part, clip_range, figure_part, harmony_part, pad_part
from experiments.film_music.drums import DRUM_LENGTHS, drum_part
from experiments.film_music.ensembles import draw_ensemble
from experiments.film_music.form import Form, build, chord_names, scale_names
from experiments.film_music.melody import Motif, draw_motif, phrase_slots, realise
from experiments.film_music.scene import ScenePlan

# Middle of the melody by program; any other plays around the D above middle C.
_CENTRES = {4: 72, 8: 84, 9: 86, 11: 72, 0: 74, 21: 72, 24: 66, 29: 66, 40: 76, 42: 60, 48: 76, 56: 70, 60: 61, 65: 65}
_CENTRES |= {68: 75, 70: 56, 71: 70, 73: 78, 81: 71}
_BASE = {"melody": 10.0, "harmony": -6.0, "bass": 2.0, "figure": -5.0, "pad": -8.0, DRUMS: 0.0}
_SOFT, _LOUD = 52.0, 98.0  # velocity of a still and of a busy picture
_ACCENT = 16.0  # at a cut
_UPBEATS = ((), (), (0.5,), (0.5, 0.5), (1.0,))
_SNAP = 0.06  # s; a note this near a cut moves onto it


def compose(scene: ScenePlan) -> Score:
    """Write the music of a scene."""
    rng = np.random.default_rng([scene.seed, 2])
    ensemble = draw_ensemble(scene.family, rng)
    planned = plan(scene.duration, np.array(scene.cuts), scene.seed, motion=float(scene.motion.mean()), mood=scene.mood)
    form = build(scene, planned, ensemble, rng)
    parts = {
        "melody": (ensemble.melody, _melody(form, rng)),
        "harmony": (ensemble.harmony, harmony_part(form)),
        "bass": (ensemble.bass, bass_part(form)),
        "figure": (ensemble.figure, figure_part(form, rng)),
        "pad": (ensemble.pad, pad_part(form)),
        DRUMS: (ensemble.kit, drum_part(form, rng)),
    }
    if form.final is not None:
        _end(form, parts)
    notes = {name: _notes(scene, form, name, part, rng) for name, (_, part) in parts.items()}
    _mark_cuts(form, notes)
    voices = []
    for name, (program, _) in parts.items():
        if program is not None and len(notes[name]):
            voices.append(Voice(name, program, _in_range(notes[name], name, program, scene.duration)))
    return Score(tuple(voices), planned.grid, planned.key, scene.duration)


def _melody(form: Form, rng: np.random.Generator) -> Part:
    part, metre, key = Part(), form.beats_per_bar, form.plan.key
    density = int(np.median([section.intensity for section in form.sections]))
    slow = INSTRUMENTS[form.ensemble.melody].advance > 0.08
    if form.plan.grid.tempo > (112 if slow else 128):
        density = min(density, 1)
    theme, answer = draw_motif(metre, density, rng), draw_motif(metre, density, rng)
    contrast = draw_motif(metre, density, rng)
    program = form.ensemble.melody
    centre = float(_CENTRES.get(program, 68))
    low, high = max(INSTRUMENTS[program].low, int(centre) - 10), min(INSTRUMENTS[program].high, int(centre) + 11)
    upbeat = _UPBEATS[rng.integers(len(_UPBEATS))]
    previous: int | None = None
    for number, phrase in enumerate(form.phrases):
        if not phrase.sings:
            continue
        last = form.final is not None and phrase is form.phrases[-1]
        start = phrase.start_bar * metre
        section = form.section(start)
        motif: Motif = contrast if number % 4 == 2 and not last and rng.random() < 0.5 else theme
        ending = form.span(start + phrase.bars * metre - 0.5).chord
        third = ending.intervals[1]
        stable = (ending.root, (ending.root + third) % 12, (ending.root + 7) % 12)
        slots = phrase_slots(
            phrase.start_bar,
            phrase.bars,
            metre,
            motif,
            answer,
            centre + 3.0 * (section.level - 0.5),
            stable[:1] if last else stable,
            rng,
            upbeat=upbeat if part.rows else (),
            thin=section.intensity == 0 and form.plan.grid.tempo > 84,
            busy=section.intensity == 2 and form.plan.grid.tempo < 128,
            last=last,
        )
        if upbeat and part.rows:  # the note before makes room
            at, length, *rest = part.rows[-1]
            part.rows[-1] = (at, min(length, slots[0].start - at - 0.1), *rest)
        chords, scales = [], []
        for slot in slots:
            span = form.span(slot.start)
            names = chord_names(span.chord, key.tonic)
            if slot.start + slot.length > span.stop + 0.9:
                common = names & chord_names(form.span(span.stop).chord, key.tonic)
                names = common or names
            chords.append(names)
            scales.append(scale_names(span.chord, key.tonic, key.mode))
        pitches = realise(slots, scales, chords, key.tonic, metre, low, high, previous, rng)
        previous = pitches[-1]
        for slot, pitch in zip(slots, pitches, strict=True):
            share = (slot.start - start) / (phrase.bars * metre)
            part.add(slot.start, slot.length * 0.97, pitch, 5.0 * float(np.sin(np.pi * share)))
    return part


def _end(form: Form, parts: dict[str, tuple[int | None, Part]]) -> None:
    """The last chord: everything stops where it starts, and the tonic rings to the end of the video."""
    final, length = form.final, form.end - form.final
    span = form.spans[-1]
    chords = {"harmony": span.voicing, "bass": (span.bass,), "pad": span.pad}
    for name, (program, part) in parts.items():
        keep = final + (1e-6 if name == "melody" else -1e-6)
        part.rows[:] = [
            (at, min(size, final - at) if at < final - 1e-6 else length, *rest)
            for at, size, *rest in part.rows
            if at < keep
        ]
        if program is not None:
            for rank, pitch in enumerate(chords.get(name, ())):
                part.add(final, length, pitch, 6.0, rank * form.ensemble.style.strum if name == "harmony" else 0.0)
    figure, (low, high) = parts["figure"], (55, 84)
    if figure[0] is not None:
        names = chord_names(span.chord, form.plan.key.tonic)
        low = min((row[2] for row in figure[1].rows), default=low)
        notes = [pitch for pitch in range(low, max(high, low + 25)) if pitch % 12 in names][:5]
        for number, pitch in enumerate(notes):
            figure[1].add(final + number / 2, length - number / 2, pitch, -2.0 * number)


def _notes(scene: ScenePlan, form: Form, name: str, part: Part, rng: np.random.Generator) -> np.ndarray:
    """Beats → seconds, swing, dynamics: velocity follows the motion of the picture and the accents of the metre."""
    rows = np.array(part.rows, float).reshape(-1, 5)
    rows = rows[(rows[:, 0] + rows[:, 1] > form.begin + 1e-6) & (rows[:, 0] < form.end - 0.05)]
    first = np.maximum(rows[:, 0], form.begin)
    last = np.minimum(rows[:, 0] + rows[:, 1], form.end)
    grid, swing = form.plan.grid, form.ensemble.style.swing
    notes = np.empty(len(rows), NOTE)
    notes["start"] = grid.seconds(_swing(first, swing)) + rows[:, 4]
    ends = grid.seconds(_swing(last, swing))
    notes["duration"] = np.maximum(ends - notes["start"], 0.03)
    notes["pitch"] = rows[:, 2].astype(np.uint8)

    levels = np.array([section.level for section in form.sections])
    starts = np.array([section.start for section in form.sections])
    section = levels[np.maximum(np.searchsorted(starts, first + 0.12, side="right") - 1, 0)]
    motion = 0.6 * section + 0.4 * scene.motion_at(notes["start"])
    in_bar = first % form.beats_per_bar
    metric = np.where(in_bar < 1e-6, 8.0, np.where(np.abs(first - np.round(first)) < 1e-6, 3.0, -6.0))
    velocity = _SOFT + (_LOUD - _SOFT) * motion + _BASE[name] + metric * (name != DRUMS) + rows[:, 3]
    velocity = velocity + 2.5 * rng.standard_normal(len(rows))
    notes["velocity"] = np.clip(np.round(velocity), 20, 124).astype(np.uint8)
    if name == DRUMS:
        notes["duration"] = [DRUM_LENGTHS.get(int(pitch), 0.12) for pitch in notes["pitch"]]
    return notes


def _swing(position: np.ndarray, half: float) -> np.ndarray:
    """Move the second half of each beat from 0.5 to `half`; what lies between is stretched."""
    beat = np.floor(position + 1e-9)
    inside = position - beat
    return beat + np.where(inside < 0.5, inside * 2 * half, half + (inside - 0.5) * 2 * (1 - half))


def _mark_cuts(form: Form, notes: dict[str, np.ndarray]) -> None:
    """An onset at every cut that is on the grid: near notes move onto it, held chords are struck again, all louder."""
    for cut, placed in form.cuts:
        if not placed:
            continue
        for name in ("melody", "harmony", "bass", "figure", "pad", DRUMS):
            voice = notes[name]
            near = np.abs(voice["start"] - cut) <= _SNAP
            voice["duration"][near] += np.maximum(voice["start"][near] - cut, -0.02)
            voice["start"][near] = cut
            voice["velocity"][near] = np.minimum(voice["velocity"][near] + _ACCENT, 124)
            if name in ("harmony", "bass", "pad") and not near.any():
                notes[name] = _strike_again(voice, cut)
        if not any((np.abs(voice["start"] - cut) < 1e-6).any() for voice in notes.values()):
            notes["bass"] = np.concatenate([notes["bass"], _hit(form, cut)])


def _strike_again(voice: np.ndarray, cut: float) -> np.ndarray:
    """Notes that sound across a cut end there and start again."""
    ends = voice["start"] + voice["duration"]
    across = (voice["start"] < cut) & (ends > cut + 0.1)
    again = voice[across].copy()
    again["start"], again["duration"] = cut, ends[across] - cut
    again["velocity"] = np.minimum(again["velocity"] + _ACCENT, 124)
    voice["duration"][across] = cut - voice["start"][across]
    return np.concatenate([voice, again])


def _hit(form: Form, cut: float) -> np.ndarray:
    """A short bass note at a cut where no voice has one."""
    hit = np.empty(1, NOTE)
    hit["start"], hit["duration"], hit["velocity"] = cut, 0.4, 90
    hit["pitch"] = form.span(float(form.plan.grid.position(cut))).bass
    return hit


def _in_range(notes: np.ndarray, name: str, program: int, duration: float) -> np.ndarray:
    notes = notes[notes["start"] < duration - 0.02].copy()
    notes["duration"] = np.minimum(notes["duration"], duration - notes["start"])
    if name != DRUMS:
        notes["pitch"] = [clip_range(int(pitch), program) for pitch in notes["pitch"]]
    return notes
