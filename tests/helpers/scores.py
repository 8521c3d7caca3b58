"""Small scores for tests."""

from collections.abc import Iterable

import numpy as np

from diff_v2m.score.score import NOTE, BeatGrid, Key, Score, Voice


def note_array(rows: Iterable[tuple[float, float, int, int]]) -> np.ndarray:
    """(start, duration, pitch, velocity) rows → the notes of a voice."""
    return np.array(list(rows), NOTE)


def small_score(duration: float = 6.0) -> Score:
    """Six voices in D dorian, 100 BPM, three beats in a bar, one beat before the first bar."""
    beat = 0.6
    starts = np.arange(0, duration - 0.4, beat)

    def line(pitches, length, velocity):
        return note_array(
            (at, length, pitches[i % len(pitches)], velocity + i % 7) for i, at in enumerate(starts.tolist())
        )

    chords = note_array(
        (at, min(1.1, duration - at), pitch, 70) for at in starts[::2].tolist() for pitch in (57, 62, 65)
    )
    voices = (
        Voice("drums", 40, line((36, 42, 38), 0.1, 90)),
        Voice("melody", 73, line((74, 76, 77, 79), 0.5, 90)),
        Voice("harmony", 4, chords),
        Voice("bass", 33, line((38, 45), 0.55, 80)),
        Voice("figure", 46, line((62, 65, 69), 0.3, 60)),
        Voice("pad", 89, note_array([(0.0, duration, 57, 60), (0.3, duration - 0.3, 62, 60)])),
    )
    beats = np.arange(0, duration + beat, beat)
    return Score(voices, BeatGrid(beats, 3, 1), Key(2, "dorian"), duration)
