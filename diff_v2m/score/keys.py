"""The key of a set of notes, by correlation with pitch-class profiles."""

import numpy as np

from diff_v2m.score.score import DRUMS, MODES, Key, Score

# Probe-tone ratings of C major and C minor (Krumhansl and Kessler, 1982). The two modes between them move one degree.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


def _swapped(profile: tuple[float, ...], first: int, second: int) -> tuple[float, ...]:
    values = list(profile)
    values[first], values[second] = values[second], values[first]
    return tuple(values)


PROFILES = {
    "major": _MAJOR,
    "minor": _MINOR,
    "dorian": _swapped(_MINOR, 8, 9),
    "mixolydian": _swapped(_MAJOR, 11, 10),
}


def find_key(weights: np.ndarray, modes: tuple[str, ...] = ("major", "minor")) -> Key:
    """(12,) weight of each pitch class → the key whose profile correlates best. No weight at all: C in `modes[0]`."""
    if np.ptp(weights) <= 0:
        return Key(0, modes[0])
    candidates = [Key(tonic, mode) for mode in modes for tonic in range(12)]
    profiles = np.array([np.roll(PROFILES[key.mode], key.tonic) for key in candidates])
    profiles = profiles - profiles.mean(1, keepdims=True)
    centred = weights - weights.mean()
    return candidates[int((profiles @ centred / np.linalg.norm(profiles, axis=1)).argmax())]


def pitch_class_weights(score: Score) -> np.ndarray:
    """(12,) seconds that each pitch class sounds, drums not among them."""
    weights = np.zeros(12)
    for voice in score.voices:
        if voice.name != DRUMS:
            np.add.at(weights, voice.notes["pitch"] % 12, voice.notes["duration"])
    return weights


def parse_key(text: str) -> Key | None:
    """The inverse of `str(key)`; None if the text is not a key."""
    return next((key for mode in MODES for tonic in range(12) if str(key := Key(tonic, mode)) == text), None)
