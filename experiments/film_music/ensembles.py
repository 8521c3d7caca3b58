"""Which instruments and styles a family of scenes gets."""

from dataclasses import dataclass

import numpy as np

from diff_v2m.score.score import DRUMS, Score
from experiments.film_music.scene import FAMILIES


@dataclass(frozen=True)
class Style:
    """Patterns for a calm, a moving and a busy section, by name in patterns.py; None: the voice is silent there."""

    bass: tuple[str, str, str]
    chords: tuple[str | None, str | None, str | None]
    figure: tuple[str | None, str | None, str | None]
    groove: tuple[str, tuple[int | None, int | None, int | None]] | None  # name, which of its variants
    swing: float = 0.5  # where in the beat its second half starts
    sevenths: bool = False
    loop: bool = False  # four chords that come round, rather than functional harmony
    strum: float = 0.0  # seconds from the lowest to the highest note of a chord


@dataclass(frozen=True)
class Ensemble:
    """General MIDI programs of the voices; None: the ensemble does without it. `kit` is the program of the drums."""

    name: str
    melody: int
    harmony: int | None
    bass: int
    figure: int | None
    pad: int | None
    kit: int
    style: Style


_ORCHESTRAL = Style(
    bass=("held", "halves", "eighths"),
    chords=(None, "halves", "quarters"),
    figure=("slow arpeggio", "arpeggio", "ripple"),
    groove=("orchestral", (None, 1, 2)),
)
_FLOWING = Style(
    bass=("held", "ballad", "bossa"),
    chords=(None, "held", "halves"),
    figure=("arpeggio", "arpeggio", "ripple"),
    groove=("brushes", (None, None, 0)),
    sevenths=True,
)
_LIGHT_FEET = Style(
    bass=("oompah", "oompah", "walking"),
    chords=("afterbeats", "afterbeats", "offbeats"),
    figure=("staccato", "pluck", "ostinato"),
    groove=("brushes", (None, 0, 1)),
)
_DRIVE = Style(
    bass=("eighths", "octaves", "gallop"),
    chords=(None, "push", "power"),
    figure=("ostinato", "sixteenths", "sixteenths"),
    groove=("electronic", (0, 1, 2)),
    loop=True,
)
_HIGHWAY = Style(
    bass=("eighths", "eighths", "gallop"),
    chords=("held", "push", "power"),
    figure=("broken", "riff", "riff"),
    groove=("rock", (0, 1, 2)),
    loop=True,
)
_GROOVE = Style(
    bass=("ballad", "pop", "funk"),
    chords=("held", "charleston", "comping"),
    figure=(None, "chops", "riff"),
    groove=("pop", (0, 1, 2)),
    swing=0.54,
    sevenths=True,
    loop=True,
)
_CHAMBER = Style(
    bass=("halves", "halves", "halves"),
    chords=(None, "quarters", "quarters"),
    figure=("alberti", "alberti", "broken"),
    groove=None,
)
_CAMPFIRE = Style(
    bass=("halves", "ballad", "pop"),
    chords=(None, "strum", "strum"),
    figure=("broken", None, "broken"),
    groove=("folk", (None, 0, 1)),
    loop=True,
    strum=0.028,
)
_CAFE = Style(
    bass=("halves", "bossa", "bossa"),
    chords=("held", "bossa", "bossa"),
    figure=("sparse", "pluck", "broken"),
    groove=("bossa", (0, 1, 2)),
    sevenths=True,
    strum=0.012,
)
_STADIUM = Style(
    bass=("eighths", "pop", "eighths"),
    chords=("held", "stabs", "stabs"),
    figure=("ostinato", "ostinato", "sixteenths"),
    groove=("rock", (0, 1, 2)),
    loop=True,
)
_JAZZ = Style(
    bass=("halves", "walking", "walking"),
    chords=("held", "charleston", "comping"),
    figure=(None, "sparse", "pluck"),
    groove=("swing", (0, 1, 2)),
    swing=0.63,
    sevenths=True,
)
_SOUL = Style(
    bass=("ballad", "funk", "funk"),
    chords=("held", "push", "stabs"),
    figure=("sparse", "chops", "riff"),
    groove=("pop", (0, 1, 2)),
    swing=0.56,
    sevenths=True,
    loop=True,
)
_DRIFT = Style(
    bass=("held", "halves", "halves"),
    chords=("held", "halves", "halves"),
    figure=("sparkle", "rising", "ripple"),
    groove=("electronic", (None, 0, 0)),
    loop=True,
)
_STORY = Style(
    bass=("halves", "halves", "walking"),
    chords=("halves", "quarters", "quarters"),
    figure=("slow arpeggio", "staccato", "ostinato"),
    groove=("orchestral", (None, 1, 2)),
)

ENSEMBLES: dict[str, tuple[Ensemble, ...]] = {
    "landscape": (
        Ensemble("horn, strings and harp", 60, 48, 43, 46, 49, 48, _ORCHESTRAL),
        Ensemble("flute, horns and harp", 73, 60, 43, 46, 49, 48, _ORCHESTRAL),
    ),
    "water": (
        Ensemble("vibraphone and piano", 11, 0, 35, 0, 89, 40, _FLOWING),
        Ensemble("piano and kalimba", 0, 11, 35, 108, 89, 40, _FLOWING),
    ),
    "animal": (
        Ensemble("clarinet, pizzicato and marimba", 71, 45, 70, 12, None, 40, _LIGHT_FEET),
        Ensemble("bassoon, pizzicato and xylophone", 70, 45, 45, 13, None, 40, _LIGHT_FEET),
    ),
    "vehicle": (
        Ensemble("saw lead and sequencer", 81, 89, 38, 81, 89, 0, _DRIVE),
        Ensemble("saw lead and guitars", 81, 29, 38, 29, None, 0, _HIGHWAY),
    ),
    "city": (
        Ensemble("saxophone and electric piano", 65, 4, 33, 27, None, 0, _GROOVE),
        Ensemble("electric piano and guitar", 4, 4, 33, 27, 48, 0, _GROOVE),
    ),
    "indoor": (
        Ensemble("violin and piano", 40, 0, 42, 0, None, 0, _CHAMBER),
        Ensemble("cello and piano", 42, 0, 0, 0, None, 0, _CHAMBER),
        Ensemble("piano solo", 0, 0, 0, 0, None, 0, _CHAMBER),
    ),
    "people": (
        Ensemble("nylon and steel guitars", 24, 25, 32, 25, 48, 0, _CAMPFIRE),
        Ensemble("fiddle and guitars", 40, 25, 32, 25, None, 0, _CAMPFIRE),
    ),
    "food": (
        Ensemble("accordion and nylon guitar", 21, 24, 32, 12, None, 0, _CAFE),
        Ensemble("clarinet, accordion and guitar", 71, 24, 32, 21, None, 0, _CAFE),
    ),
    "sport": (
        Ensemble("trumpet, brass and rock band", 56, 61, 33, 29, None, 0, _STADIUM),
        Ensemble("guitar, brass and organ", 29, 61, 33, 16, None, 0, _STADIUM),
    ),
    "stage": (
        Ensemble("saxophone and piano trio", 65, 0, 32, 11, None, 40, _JAZZ),
        Ensemble("trumpet and organ", 56, 16, 33, 27, None, 0, _SOUL),
    ),
    "night": (
        Ensemble("celesta and choir", 8, 52, 38, 88, 89, 0, _DRIFT),
        Ensemble("glockenspiel and pads", 9, 89, 38, 8, 52, 0, _DRIFT),
    ),
    "other": (
        Ensemble("oboe, strings and glockenspiel", 68, 49, 42, 9, 60, 48, _STORY),
        Ensemble("violin section and pizzicato", 48, 60, 42, 45, 52, 48, _STORY),
    ),
}
assert tuple(ENSEMBLES) == FAMILIES


def family_written(score: Score) -> str:
    """The family whose ensemble has most of the score's instruments; drums do not count."""
    programs = {voice.name: voice.program for voice in score.voices if voice.name != DRUMS}

    def common(ensemble: Ensemble) -> int:
        return sum(getattr(ensemble, voice) == program for voice, program in programs.items())

    return max(ENSEMBLES, key=lambda family: max(map(common, ENSEMBLES[family])))


def draw_ensemble(family: str, rng: np.random.Generator) -> Ensemble:
    choices = ENSEMBLES[family]
    return choices[rng.integers(len(choices))]
