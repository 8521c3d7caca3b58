"""Rhythms and grooves as data: for each pattern, what one bar of 4/4 and one of 3/4 plays. Positions are in beats."""

from dataclasses import dataclass

# Bass: (position, length, tone). Tones: root, third, fifth, octave, approach (a step below or above the next root).
ROOT, THIRD, FIFTH, OCTAVE, APPROACH = range(5)
BassBar = tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Metres:
    """The same idea in four and in three beats."""

    four: tuple
    three: tuple

    def bar(self, beats_per_bar: int) -> tuple:
        return self.four if beats_per_bar == 4 else self.three


def _pulse(beats: int, step: float, tones: tuple[int, ...], hold: float = 0.9) -> BassBar:
    count = round(beats / step)
    return tuple((i * step, step * hold, tones[i % len(tones)]) for i in range(count))


BASS = {
    "held": Metres(((0, 4, ROOT),), ((0, 3, ROOT),)),
    "halves": Metres(((0, 2, ROOT), (2, 2, FIFTH)), ((0, 2, ROOT), (2, 1, FIFTH))),
    "ballad": Metres(((0, 1.5, ROOT), (1.5, 0.5, FIFTH), (2, 2, ROOT)), ((0, 2, ROOT), (2, 1, THIRD))),
    "walking": Metres(
        ((0, 0.95, ROOT), (1, 0.95, THIRD), (2, 0.95, FIFTH), (3, 0.95, APPROACH)),
        ((0, 0.95, ROOT), (1, 0.95, FIFTH), (2, 0.95, APPROACH)),
    ),
    "bossa": Metres(
        ((0, 1.4, ROOT), (1.5, 0.5, FIFTH), (2, 1.4, FIFTH), (3.5, 0.5, ROOT)),
        ((0, 1.4, ROOT), (1.5, 0.5, FIFTH), (2, 0.9, FIFTH)),
    ),
    "oompah": Metres(((0, 0.8, ROOT), (2, 0.8, FIFTH)), ((0, 0.9, ROOT),)),
    "pop": Metres(
        ((0, 1.4, ROOT), (1.5, 0.45, ROOT), (2, 1.4, ROOT), (3.5, 0.45, APPROACH)),
        ((0, 1.4, ROOT), (1.5, 0.45, ROOT), (2, 0.9, FIFTH)),
    ),
    "funk": Metres(
        (
            (0, 0.7, ROOT),
            (0.75, 0.25, OCTAVE),
            (1.5, 0.5, FIFTH),
            (2.25, 0.5, ROOT),
            (3, 0.5, OCTAVE),
            (3.5, 0.4, APPROACH),
        ),
        ((0, 0.7, ROOT), (0.75, 0.25, OCTAVE), (1.5, 0.5, FIFTH), (2.25, 0.5, APPROACH)),
    ),
    "eighths": Metres(_pulse(4, 0.5, (ROOT,)), _pulse(3, 0.5, (ROOT,))),
    "octaves": Metres(_pulse(4, 0.5, (ROOT, OCTAVE)), _pulse(3, 0.5, (ROOT, OCTAVE))),
    "gallop": Metres(
        tuple((b + p, n, ROOT) for b in range(4) for p, n in ((0, 0.45), (0.5, 0.22), (0.75, 0.22))),
        tuple((b + p, n, ROOT) for b in range(3) for p, n in ((0, 0.45), (0.5, 0.22), (0.75, 0.22))),
    ),
}

# Chords: (position, length) of each attack.
CHORDS = {
    "held": Metres(((0, 4),), ((0, 3),)),
    "halves": Metres(((0, 2), (2, 2)), ((0, 2), (2, 1))),
    "quarters": Metres(((0, 0.9), (1, 0.9), (2, 0.9), (3, 0.9)), ((0, 0.9), (1, 0.9), (2, 0.9))),
    "afterbeats": Metres(((1, 0.5), (3, 0.5)), ((1, 0.5), (2, 0.5))),
    "offbeats": Metres(((0.5, 0.4), (1.5, 0.4), (2.5, 0.4), (3.5, 0.4)), ((0.5, 0.4), (1.5, 0.4), (2.5, 0.4))),
    "charleston": Metres(((0, 1.3), (1.5, 0.6), (3, 0.9)), ((0, 1.3), (1.5, 0.9))),
    "comping": Metres(((0.5, 0.4), (1.5, 1.2), (3.5, 0.4)), ((0, 1.2), (1.5, 0.4), (2.5, 0.4))),
    "bossa": Metres(
        ((0, 0.7), (1, 0.4), (1.5, 0.9), (2.5, 0.4), (3, 0.7)), ((0, 0.7), (1, 0.4), (1.5, 0.9), (2.5, 0.4))
    ),
    "strum": Metres(
        ((0, 1), (1, 0.5), (1.5, 1), (2.5, 0.5), (3, 0.5), (3.5, 0.5)),
        ((0, 1), (1, 0.5), (1.5, 0.5), (2, 0.5), (2.5, 0.5)),
    ),
    "stabs": Metres(((0, 0.4), (1.5, 0.4), (2.5, 0.3), (3, 0.4)), ((0, 0.4), (1.5, 0.4), (2, 0.4))),
    "power": Metres(
        tuple((i / 2, 0.45) for i in range(8)),
        tuple((i / 2, 0.45) for i in range(6)),
    ),
    "push": Metres(((0, 1.4), (1.5, 1.9), (3.5, 0.5)), ((0, 1.4), (1.5, 1.4))),
}

# Figures: length of a step in beats, and the tones played in turn, as steps along the notes of the chord.
FIGURES = {
    "slow arpeggio": (1.0, (0, 1, 2, 3)),
    "arpeggio": (0.5, (0, 1, 2, 3, 4, 3, 2, 1)),
    "rising": (0.5, (0, 1, 2, 3, 4, 5, 6, 7)),
    "broken": (0.5, (0, 2, 1, 2, 0, 2, 1, 3)),
    "alberti": (0.5, (0, 2, 1, 2)),
    "ripple": (0.25, (0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 2, 3, 4, 3, 2, 1)),
    "ostinato": (0.5, (0, 0, 2, 0, 1, 0, 2, 1)),
    "sixteenths": (0.25, (0, 0, 2, 0, 1, 0, 2, 0, 3, 0, 2, 0, 1, 0, 2, 1)),
    "pluck": (0.5, (0, None, 2, 1, None, 2, 1, None)),
    "staccato": (0.5, (0, None, 1, None, 2, None, 1, None)),
    "sparse": (1.0, (4, None, 2, None)),
    "sparkle": (0.5, (4, None, 3, None, 5, None, 2, 3)),
    "chops": (0.5, (None, 2, None, 2, None, 3, None, 2)),
    "riff": (0.25, (0, None, 0, 2, None, 0, 3, None, 0, None, 2, None, 1, 0, None, 2)),
}

# Drums: pitch → sixteenths of a bar. X loud, x medium, o soft.
Groove = dict[int, str]
KICK, RIM, SNARE, CLAP, HAT, PEDAL, OPEN, RIDE, CRASH = 36, 37, 38, 39, 42, 44, 46, 51, 49
SHAKER, TAMBOURINE, TRIANGLE = 70, 54, 81
DRUM, CONCERT_SNARE, CYMBAL = 36, 38, 57  # of the orchestra kit, whose timpani lie on pitches 41 to 53
TIMPANI_LOW, TIMPANI_HIGH = 41, 53

GROOVES: dict[str, Metres] = {
    "brushes": Metres(
        ({SNARE: "..o.o.o...o.o.o.", KICK: "x.......o......."}, {SNARE: "..o.x.o...o.x.oo", KICK: "x.......x......."}),
        ({SNARE: "....o.o.o.o.", KICK: "x..........."}, {SNARE: "..o.x.o.x.oo", KICK: "x..........."}),
    ),
    "folk": Metres(
        (
            {SHAKER: "o.o.x.o.o.o.x.o.", KICK: "x.......x......."},
            {SHAKER: "ooxoooxoooxoooxo", KICK: "X.....x.X.......", RIM: "....x.......x..."},
            {
                TAMBOURINE: "..x...x...x...x.",
                KICK: "X.....x.X.x.....",
                SNARE: "....X.......X..o",
                SHAKER: "ooxoooxoooxoooxo",
            },
        ),
        (
            {SHAKER: "o.o.x.o.x.o.", KICK: "x..........."},
            {SHAKER: "ooxoooxoooxo", KICK: "X...........", RIM: "....x...x..."},
            {TAMBOURINE: "..x...x...x.", KICK: "X.......x...", SNARE: "....x...X..o", SHAKER: "ooxoooxoooxo"},
        ),
    ),
    "bossa": Metres(
        (
            {SHAKER: "o.x.o.x.o.x.o.x.", RIM: "x.....x.....x..."},
            {SHAKER: "ooxoooxoooxoooxo", RIM: "x..x..x...x..x..", KICK: "x..ox..ox..ox..o"},
            {HAT: "xoxoxoxoxoxoxoxo", RIM: "x..x..x...x..x..", KICK: "X..xX..xX..xX..x"},
        ),
        (
            {SHAKER: "o.x.o.x.o.x.", RIM: "x.....x....."},
            {SHAKER: "ooxoooxoooxo", RIM: "x..x..x...x.", KICK: "x..o....x..."},
            {HAT: "xoxoxoxoxoxo", RIM: "x..x..x...x.", KICK: "X..x....X..x"},
        ),
    ),
    "swing": Metres(
        (
            {RIDE: "x...x.o.x...x.o.", PEDAL: "....o.......o..."},
            {RIDE: "x...X.o.x...X.o.", PEDAL: "....x.......x...", KICK: "o...o...o...o...", SNARE: "......o.......o."},
            {RIDE: "x...X.x.x...X.x.", PEDAL: "....x.......x...", KICK: "x.....o.x...o...", SNARE: "..o...x....o..x."},
        ),
        (
            {RIDE: "x...x.o.x.o.", PEDAL: "....o...o..."},
            {RIDE: "X...x.o.x.o.", PEDAL: "....x...x...", KICK: "x...........", SNARE: "......o....."},
            {RIDE: "X...x.x.x.x.", PEDAL: "....x...x...", KICK: "x.....o.....", SNARE: "..o...x...o."},
        ),
    ),
    "pop": Metres(
        (
            {HAT: "x.o.x.o.x.o.x.o.", KICK: "X.......x.......", RIM: "....x.......x..."},
            {HAT: "x.o.x.o.x.o.x.o.", KICK: "X......xx.......", SNARE: "....X.......X..."},
            {HAT: "xoxoxoxoxoxoxoxo", KICK: "X..x..x.X.x.....", SNARE: "....X..o.o..X..o", OPEN: "..............x."},
        ),
        (
            {HAT: "x.o.x.o.x.o.", KICK: "X...........", RIM: "....x...x..."},
            {HAT: "x.o.x.o.x.o.", KICK: "X.....x.....", SNARE: "....x...X..."},
            {HAT: "xoxoxoxoxoxo", KICK: "X..x..x.....", SNARE: "....x...X..o"},
        ),
    ),
    "rock": Metres(
        (
            {HAT: "x...x...x...x...", KICK: "X.......X.......", SNARE: "....x.......x..."},
            {HAT: "X.x.X.x.X.x.X.x.", KICK: "X.....x.X.x.....", SNARE: "....X.......X..."},
            {OPEN: "X...X...X...X...", KICK: "X.xx..x.X.xx..x.", SNARE: "....X.......X.xx", RIDE: "..x...x...x...x."},
        ),
        (
            {HAT: "x...x...x...", KICK: "X...........", SNARE: "........x..."},
            {HAT: "X.x.X.x.X.x.", KICK: "X.....x.....", SNARE: "....x...X..."},
            {OPEN: "X...X...X...", KICK: "X.x...x.....", SNARE: "....X...X.xx"},
        ),
    ),
    "electronic": Metres(
        (
            {KICK: "X.......X.......", HAT: "..o...o...o...o."},
            {KICK: "X...X...X...X...", CLAP: "....X.......X...", OPEN: "..x...x...x...x."},
            {KICK: "X...X...X...X..x", CLAP: "....X.......X..o", OPEN: "..X...X...X...X.", HAT: "xo.oxo.oxo.oxo.o"},
        ),
        (
            {KICK: "X...........", HAT: "..o...o...o."},
            {KICK: "X...X...X...", CLAP: "....X...X...", OPEN: "..x...x...x."},
            {KICK: "X...X...X..x", CLAP: "....X...X..o", OPEN: "..X...X...X.", HAT: "xo.oxo.oxo.o"},
        ),
    ),
    "orchestral": Metres(  # pitch 41 stands for the timpani, which are tuned to the harmony
        (
            {},
            {TIMPANI_LOW: "x.......o.......", DRUM: "o..............."},
            {TIMPANI_LOW: "X..xx...X..xx.xx", DRUM: "X.......x.......", CONCERT_SNARE: "o.ooo.oox.ooo.oo"},
        ),
        (
            {},
            {TIMPANI_LOW: "x.......o...", DRUM: "o..........."},
            {TIMPANI_LOW: "X..xx...x.xx", DRUM: "X...........", CONCERT_SNARE: "x.ooo.oox.oo"},
        ),
    ),
}
# The last beats before a cut: (sixteenths before it, pitch, share of full velocity).
FILLS = {
    "kit": (
        ((4, 38, 0.6), (3, 38, 0.7), (2, 48, 0.85), (1, 45, 1.0)),
        ((8, 38, 0.5), (6, 38, 0.6), (4, 48, 0.75), (3, 48, 0.75), (2, 45, 0.9), (1, 43, 1.0)),
        ((4, 38, 0.8), (2, 38, 0.9), (1, 36, 0.9)),
    ),
    "orchestra": (
        tuple((n, TIMPANI_LOW, 1.0 - 0.08 * n) for n in range(8, 0, -1)),
        tuple((n, CONCERT_SNARE, 0.9 - 0.08 * n) for n in range(6, 0, -1)),
    ),
}
