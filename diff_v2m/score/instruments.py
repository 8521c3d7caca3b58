"""The instruments of saved_model/instruments.sf3: General MIDI programs, ranges, loudness and attack.

`gain` and `advance` come from `scripts/make_instruments.py measure` and make programs comparable. At velocity 96 every
instrument reaches the same loudness; those whose notes pile up stay 2.6 dB below. A slow attack starts early, by at
most 0.12 s, so that it is heard on its notated onset.
"""

from dataclasses import dataclass

from diff_v2m.common.files import ROOT

SOUNDFONT = ROOT / "saved_model" / "instruments.sf3"
FAMILY_SIZE = 8  # General MIDI groups programs by eight: pianos, chromatic percussion, organs, guitars, ...


@dataclass(frozen=True)
class Instrument:
    """One General MIDI program: MIDI pitches it plays well, gain in dB, advance in seconds, stereo image."""

    name: str
    low: int
    high: int
    gain: float
    advance: float
    image: str = "point"  # point: one place; wide: two detuned copies; keys: low notes left; stereo: as recorded


INSTRUMENTS: dict[int, Instrument] = {
    0: Instrument("piano", 28, 100, 7.4, 0.004, "keys"),
    4: Instrument("electric piano", 36, 96, 4.4, 0.0, "wide"),
    8: Instrument("celesta", 60, 103, 6.1, 0.003, "keys"),
    9: Instrument("glockenspiel", 72, 103, 2.6, 0.003),
    11: Instrument("vibraphone", 53, 89, -0.9, 0.0, "keys"),
    12: Instrument("marimba", 45, 91, 4.1, 0.003, "keys"),
    13: Instrument("xylophone", 65, 100, 5.6, 0.0),
    16: Instrument("drawbar organ", 36, 91, -2.3, 0.011, "wide"),
    21: Instrument("accordion", 53, 88, 2.6, 0.031),
    24: Instrument("nylon guitar", 40, 83, 3.6, 0.006),
    25: Instrument("steel guitar", 40, 84, 6.5, 0.006, "wide"),
    27: Instrument("clean guitar", 40, 84, -9.1, 0.006),
    29: Instrument("overdriven guitar", 40, 84, 2.4, 0.026, "wide"),
    32: Instrument("acoustic bass", 28, 60, -7.4, 0.009),
    33: Instrument("electric bass", 28, 60, -8.4, 0.009),
    35: Instrument("fretless bass", 28, 60, -3.3, 0.005),
    38: Instrument("synth bass", 28, 60, 4.7, 0.0),
    40: Instrument("violin", 55, 96, -1.8, 0.096),
    42: Instrument("cello", 36, 76, -6.0, 0.104),
    43: Instrument("contrabass", 28, 60, 2.4, 0.073),
    45: Instrument("pizzicato strings", 36, 88, -1.0, 0.012, "keys"),
    46: Instrument("harp", 31, 96, 4.2, 0.0, "keys"),
    47: Instrument("timpani", 36, 57, -1.8, 0.001),
    48: Instrument("strings", 36, 93, 3.2, 0.096, "stereo"),
    49: Instrument("slow strings", 36, 93, 3.3, 0.12, "stereo"),
    52: Instrument("choir", 43, 79, 3.8, 0.092, "stereo"),
    56: Instrument("trumpet", 54, 84, -8.4, 0.006),
    60: Instrument("horn", 41, 74, -6.5, 0.047),
    61: Instrument("brass section", 41, 82, -6.6, 0.028, "wide"),
    65: Instrument("alto saxophone", 49, 80, -5.1, 0.023),
    68: Instrument("oboe", 58, 88, -4.6, 0.041),
    70: Instrument("bassoon", 34, 70, -0.5, 0.024),
    71: Instrument("clarinet", 50, 88, 0.7, 0.028),
    73: Instrument("flute", 60, 94, -2.4, 0.052),
    81: Instrument("saw lead", 40, 91, -0.4, 0.005, "wide"),
    88: Instrument("fantasia", 40, 91, 7.5, 0.002, "wide"),
    89: Instrument("warm pad", 36, 84, 2.1, 0.12, "stereo"),
    108: Instrument("kalimba", 53, 86, 0.7, 0.0, "keys"),
}

KITS: dict[int, Instrument] = {  # programs of the voice drums
    0: Instrument("standard kit", 35, 81, 0.0, 0.0),
    40: Instrument("brush kit", 35, 81, 0.0, 0.0),
    48: Instrument("orchestra kit", 35, 81, -3.5, 0.0),
}


def nearest_program(program: int) -> int:
    """The bundled program for any General MIDI program: itself, else the nearest of its group, else the nearest."""
    group = [bundled for bundled in INSTRUMENTS if bundled // FAMILY_SIZE == program // FAMILY_SIZE]
    return min(group or INSTRUMENTS, key=lambda bundled: (abs(bundled - program), bundled))


def nearest_kit(program: int) -> int:
    """The bundled drum kit for any kit number: the last one at or below it."""
    return max(kit for kit in KITS if kit <= max(program, 0))
