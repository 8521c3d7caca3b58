"""The plan of a piece before any note: sections that change at cuts, phrases of bars, chords and their voicings."""

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from diff_v2m.score.instruments import INSTRUMENTS
from diff_v2m.score.planner import Plan, on_grid
from diff_v2m.score.score import MODES
from experiments.film_music.ensembles import Ensemble
from experiments.film_music.harmony import (
    Chord,
    bass_line,
    chord,
    loop_chords,
    phrase_chords,
    voice_leading,
    with_inversions,
)
from experiments.film_music.scene import ScenePlan

_RING_OUT = 1.8  # s that the final chord sounds, at least
_POWER_CHORDS = (29,)  # programs that play root, fifth and octave
_NEAR = 0.12  # beats; a cut this near a beat counts as on it


@dataclass(frozen=True)
class Section:
    """From one cut to the next, in beats: mean motion, and intensity 0 calm, 1 moving, 2 busy.

    `varied`: as intense as the section before, so that harmony and figure change their pattern instead.
    """

    start: float
    stop: float
    level: float
    intensity: int
    varied: bool = False

    @property
    def texture(self) -> int:
        """The intensity whose patterns harmony and figure play."""
        return (1, 2, 1)[self.intensity] if self.varied else self.intensity


@dataclass(frozen=True)
class Phrase:
    """Whole bars. `cadence` is full, half or open; `sings` says whether the melody plays."""

    start_bar: int
    bars: int
    cadence: str
    sings: bool


@dataclass
class Span:
    """One chord from `start` to `stop` (beats) with the pitches that the voices play."""

    start: float
    stop: float
    chord: Chord
    bass: int = 0
    voicing: tuple[int, ...] = ()
    pad: tuple[int, ...] = ()


@dataclass
class Form:
    """All of it. Positions are in beats from the first downbeat; `begin` and `end` are those of the video."""

    plan: Plan
    ensemble: Ensemble
    sections: list[Section]
    phrases: list[Phrase]
    spans: list[Span]
    cuts: list[tuple[float, bool]]  # seconds of each cut, and whether it is on the grid
    begin: float
    end: float
    final: float | None  # where the last chord starts, if the piece ends
    _starts: list[float] = field(default_factory=list)
    _span_starts: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._starts = [section.start for section in self.sections]
        self._span_starts = [span.start for span in self.spans]

    @property
    def beats_per_bar(self) -> int:
        return self.plan.grid.beats_per_bar

    @property
    def bars(self) -> range:
        """Numbers of the bars; −1 is the part of a bar before the first downbeat."""
        return range(self.phrases[0].start_bar, self.phrases[-1].start_bar + self.phrases[-1].bars)

    def section(self, position: float) -> Section:
        return self.sections[max(bisect_right(self._starts, position + _NEAR) - 1, 0)]

    def span(self, position: float) -> Span:
        return self.spans[self.span_number(position)]

    def span_number(self, position: float) -> int:
        return max(bisect_right(self._span_starts, position + 1e-6) - 1, 0)


def build(scene: ScenePlan, plan: Plan, ensemble: Ensemble, rng: np.random.Generator) -> Form:
    grid = plan.grid
    begin, end = float(grid.position(0.0)), float(grid.position(scene.duration))
    final = _final(scene, plan, end) if scene.ends else None
    sections = _sections(scene, plan, begin, end)
    phrases = _phrases(plan, sections, begin, end, final, rng)
    spans = _harmony(plan, ensemble, phrases, rng)
    if final is not None:  # the last chord holds
        spans = [span for span in spans if span.start < final + 1e-6]
        spans[-1].stop = end
    cuts = list(zip(scene.cuts, on_grid(grid, np.array(scene.cuts)).tolist(), strict=True)) if scene.cuts else []
    return Form(plan, ensemble, sections, phrases, spans, cuts, begin, end, final)


def _final(scene: ScenePlan, plan: Plan, end: float) -> float | None:
    """The last downbeat after which the final chord can ring out; None if the piece has no bar before it."""
    grid, metre = plan.grid, plan.grid.beats_per_bar
    strong = [float(bar * metre) for bar in range(int(end // metre) + 1)]
    room = [scene.duration - float(grid.seconds(position)) for position in strong]
    fitting = [position for position, left in zip(strong, room, strict=True) if left >= _RING_OUT]
    return fitting[-1] if len(fitting) > 1 else None


def _sections(scene: ScenePlan, plan: Plan, begin: float, end: float) -> list[Section]:
    edges = [0.0, *scene.cuts, scene.duration]
    positions = [begin, *(float(plan.grid.position(cut)) for cut in scene.cuts), end]
    sections = []
    for number in range(len(edges) - 1):
        level = float(scene.motion_at(np.linspace(edges[number], edges[number + 1], 9)).mean())
        intensity = int(level > 0.36) + int(level > 0.66)
        varied = bool(sections) and sections[-1].intensity == intensity and not sections[-1].varied
        sections.append(Section(positions[number], positions[number + 1], level, intensity, varied))
    return sections


def _phrases(plan, sections, begin, end, final, rng) -> list[Phrase]:
    """Phrases begin at the first bar line after a cut that is far enough from others; else they run on across it."""
    metre = plan.grid.beats_per_bar
    first = -1 if begin < -1e-6 else 0
    after = int(final // metre) + 1 if final is not None else int(np.ceil(end / metre - 1e-6))
    edges = [0]
    for section in sections[1:]:
        bar = int(np.ceil((section.start - _NEAR) / metre))
        on_bar_line = abs(section.start - bar * metre) <= _NEAR
        if bar - edges[-1] >= (2 if on_bar_line else 4) and after - bar >= 2:
            edges.append(bar)
    edges.append(max(after, 1))
    lengths: list[int] = []
    for start, stop in zip(edges, edges[1:], strict=False):
        lengths += _split(stop - start)
    phrases, bar = [], 0
    if first < 0:
        phrases.append(Phrase(-1, 1, "half", sings=False))
    rests_first = len(lengths) > 3 and lengths[0] <= 2 and rng.random() < 0.5
    for number, bars in enumerate(lengths):
        last = number == len(lengths) - 1
        cadence = "full" if last and final is not None else ("half", "full")[number % 2]
        sings = last or not (rests_first and number == 0 or number > 1 and len(lengths) > 4 and rng.random() < 0.1)
        phrases.append(Phrase(bar, bars, cadence, sings))
        bar += bars
    return phrases


def _split(bars: int) -> list[int]:
    """Bars of a section → bars of its phrases, fours where possible."""
    lengths = []
    while bars > 5:
        lengths.append(4)
        bars -= 4
    return lengths + ([3, 2] if bars == 5 else [bars])


def _harmony(plan: Plan, ensemble: Ensemble, phrases: list[Phrase], rng: np.random.Generator) -> list[Span]:
    mode, metre, style = plan.key.mode, plan.grid.beats_per_bar, ensemble.style
    chord_beats = metre
    if metre == 4 and plan.grid.tempo < 96 and rng.random() < 0.5:
        chord_beats = 2
    loop, themes = loop_chords(mode, rng), {}
    spans: list[Span] = []
    turn = 0  # where the loop stands
    for phrase in phrases:
        closing = phrase.cadence == "full" and phrase is phrases[-1]
        slots = phrase.bars * metre // chord_beats
        if closing or not style.loop:  # the last chord lasts a bar
            slots = (phrase.bars - 1) * metre // chord_beats + 1
        if style.loop:
            turn = 0 if phrase.bars >= 4 else turn
            names = [loop[(turn + slot) % len(loop)] for slot in range(slots)]
            turn += slots
            if closing:
                tail = phrase_chords(mode, min(slots, 3), rng, cadence="full", start=names[-min(slots, 3)])
                names[-len(tail) :] = tail
        else:
            theme = (slots, phrase.cadence)
            if theme not in themes or (rng.random() < 0.3 and not closing):
                themes[theme] = phrase_chords(mode, slots, rng, cadence=phrase.cadence)
            names = themes[theme]
        chords = [
            chord(mode, name, sevenths=style.sevenths, cadential=number == len(names) - 2 and phrase.cadence == "full")
            for number, name in enumerate(names)
        ]
        if closing and chords[-1].root == 0:
            chords[-1] = Chord(0, chords[-1].intervals[:3])
        if not style.loop:
            chords = with_inversions(chords, rng)
        start = float(phrase.start_bar * metre)
        for number, each in enumerate(chords):
            length = (
                phrase.start_bar * metre + phrase.bars * metre - start if number == len(chords) - 1 else chord_beats
            )
            spans.append(Span(start, start + length, each))
            start += length
    _voice(spans, plan, ensemble)
    return spans


def _voice(spans: list[Span], plan: Plan, ensemble: Ensemble) -> None:
    """Bass pitches, then the smoothest voicings for harmony and pad."""
    chords, tonic = [span.chord for span in spans], plan.key.tonic
    low = max(INSTRUMENTS[ensemble.bass].low, 28)
    basses = bass_line(chords, tonic, low, low + 17)
    for span, pitch in zip(spans, basses, strict=True):
        span.bass = pitch
    if ensemble.harmony in _POWER_CHORDS:
        for span in spans:
            root = 40 + (tonic + span.chord.root - 40) % 12
            span.voicing = (root, root + 7, root + 12)
    else:
        program = 0 if ensemble.harmony is None else ensemble.harmony
        lowest, highest = max(INSTRUMENTS[program].low, 52), min(INSTRUMENTS[program].high, 72)
        for span, voicing in zip(spans, voice_leading(chords, basses, tonic, lowest, highest), strict=True):
            span.voicing = voicing
    if ensemble.pad is not None:
        lowest, highest = max(INSTRUMENTS[ensemble.pad].low, 48), min(INSTRUMENTS[ensemble.pad].high, 69)
        for span, voicing in zip(spans, voice_leading(chords, basses, tonic, lowest, highest), strict=True):
            span.pad = voicing


def chord_names(form_chord: Chord, tonic: int) -> frozenset[int]:
    """Pitch classes of a chord."""
    return frozenset((tonic + name) % 12 for name in form_chord.pitch_classes)


def scale_names(form_chord: Chord, tonic: int, mode: str) -> frozenset[int]:
    """Pitch classes of the scale over a chord: a chord tone outside the mode replaces the degree that it alters."""
    scale = set(MODES[mode])
    for name in form_chord.pitch_classes:
        if name not in scale:
            lowered = name == (form_chord.root + 3) % 12
            scale.discard((name + 1) % 12 if lowered else (name - 1) % 12)
            scale.add(name)
    return frozenset((tonic + name) % 12 for name in scale)
