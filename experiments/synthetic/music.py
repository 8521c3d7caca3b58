"""Scene → music, by additive synthesis: harmony, bass, melody and a drum kit."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from experiments.synthetic.scene import BEAT, TONIC, Scene, Segment

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
PROGRESSIONS = {False: ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 0, 4)), True: ((0, 5, 2, 6), (0, 3, 6, 2), (0, 5, 3, 6))}
MELODY_NOTES_PER_BEAT = (1, 1, 2, 2)  # by motion level
HATS_PER_BEAT = (1, 1, 2, 4)  # by motion level
CHORD_BEATS = (4, 2, 2, 1)  # how long a chord is held, by motion level
LOUDNESS = (0.35, 0.6, 0.8, 1.0)  # by motion level


def render(scene: Scene, sample_rate: int = 16000) -> np.ndarray:
    """Render the music of a scene: (duration · sample_rate,) float32 mono, peak 0.9."""
    rng = np.random.default_rng([scene.seed, 2])
    audio = np.zeros(scene.duration * sample_rate, np.float32)
    scale = np.array(MINOR if scene.minor else MAJOR)
    progression = PROGRESSIONS[scene.minor][rng.integers(3)]
    degree = int(rng.integers(3)) * 2 + 7  # the melody starts on a chord note of the octave above
    for number, segment in enumerate(scene.segments):
        degree = _play_segment(audio, scene, segment, scale, progression, degree, rng, sample_rate)
        if number:
            _add(audio, segment.start, 0.7 * _crash(sample_rate), sample_rate)
    return (0.9 * audio / max(float(np.abs(audio).max()), 1e-6)).astype(np.float32)


def _play_segment(
    audio: np.ndarray,
    scene: Scene,
    segment: Segment,
    scale: np.ndarray,
    progression: tuple[int, ...],
    degree: int,
    rng: np.random.Generator,
    sample_rate: int,
) -> int:
    """Add a segment's notes to `audio` (samples,). The melody continues at `degree`. Returns its last degree."""
    level, loudness = segment.level, LOUDNESS[segment.level]
    beats = int(np.ceil((segment.stop - segment.start) / BEAT - 1e-9))

    def pitch(step: int, octave: int = 0) -> int:
        return TONIC + 12 * (octave + step // 7) + int(scale[step % 7])

    def play(note: np.ndarray, at_beat: float, gain: float) -> None:
        """Add a note, cut off at the end of the segment."""
        start = segment.start + at_beat * BEAT
        room = int(round((segment.stop - start) * sample_rate))
        if room > 0:
            _add(audio, start, gain * loudness * note[:room], sample_rate)

    for bar_start in range(0, beats, 4):
        root = progression[(bar_start // 4) % 4]
        for hit in range(0, 4, CHORD_BEATS[level]):
            for third in (0, 2, 4):
                chord_note = _tone(scene.instrument, pitch(root + third), CHORD_BEATS[level] * BEAT, sample_rate)
                play(chord_note, bar_start + hit, 0.16)
        for hit in range(4):
            play(_bass(pitch(root, -1), BEAT, sample_rate), bar_start + hit, 0.32)
        per_beat = MELODY_NOTES_PER_BEAT[level]
        for index in range(4 * per_beat):
            degree = int(np.clip(degree + rng.choice([-2, -1, 0, 1, 2]), 7, 14))
            if index % (2 * per_beat) == 0:  # strong beats have chord notes
                degree = min(
                    (root + third + octave for third in (0, 2, 4) for octave in (0, 7, 14)),
                    key=lambda step: (abs(step - degree), step),
                )
            note = _tone(scene.instrument, pitch(degree), BEAT / per_beat, sample_rate)
            play(note, bar_start + index / per_beat, 0.38)
        _play_drums(play, level, bar_start, sample_rate)
    return degree


def _play_drums(play, level: int, bar_start: int, sample_rate: int) -> None:
    kick, snare, hat = _kick(sample_rate), _snare(sample_rate), _hat(sample_rate)
    for beat in range(4):
        if level >= 1:
            play(kick, bar_start + beat, 0.7)
        if level >= 2 and beat % 2 == 1:
            play(snare, bar_start + beat, 0.4)
        for sub in range(HATS_PER_BEAT[level]):
            play(hat, bar_start + beat + sub / HATS_PER_BEAT[level], 0.25 if sub else 0.35)


def _add(audio: np.ndarray, start: float, sound: np.ndarray, sample_rate: int) -> None:
    first = int(round(start * sample_rate))
    room = len(audio) - first
    if room > 0:
        audio[first : first + len(sound[:room])] += sound[:room]


def _seconds(duration: float, sample_rate: int) -> np.ndarray:
    return np.arange(int(round(duration * sample_rate))) / sample_rate


def _fade(sound: np.ndarray, sample_rate: int, attack: float, release: float = 0.02) -> np.ndarray:
    up, down = max(int(attack * sample_rate), 1), max(int(release * sample_rate), 1)
    envelope = np.ones(len(sound))
    envelope[:up] *= np.linspace(0, 1, len(envelope[:up]))
    envelope[-down:] *= np.linspace(1, 0, len(envelope[-down:]))
    return (sound * envelope).astype(np.float32)


def _hertz(midi: int) -> float:
    return 440.0 * 2 ** ((midi - 69) / 12)


@lru_cache(maxsize=4096)
def _tone(instrument: int, midi: int, duration: float, sample_rate: int) -> np.ndarray:
    """One note. The four instruments differ in spectrum and in envelope."""
    t, f0 = _seconds(duration, sample_rate), _hertz(midi)

    def harmonics(numbers, rolloff: float, decay: float = 0.0):
        """Partials at whole multiples of f0, divided by k^rolloff; higher ones decay faster."""
        return sum(np.sin(2 * np.pi * k * f0 * t) * np.exp(-decay * (1 + 0.3 * k) * t) / k**rolloff for k in numbers)

    if instrument == 0:  # pluck: bright at once, gone soon
        return _fade(0.9 * harmonics(range(1, 11), 0.7, decay=5.0), sample_rate, 0.003)
    if instrument == 1:  # organ: octaves, steady from end to end
        return _fade(0.55 * harmonics((1, 2, 4, 8), 0.5), sample_rate, 0.01, 0.03)
    if instrument == 2:  # strings: dark, swelling and trembling
        tremolo = 0.6 + 0.4 * np.cos(2 * np.pi * 6.0 * t)
        return _fade(1.1 * tremolo * harmonics(range(1, 5), 2.0), sample_rate, 0.08, 0.06)
    ring = np.sin(4 * np.pi * f0 * t) * np.exp(-2.5 * t)  # bell: an octave up, inharmonic at first, ringing
    return _fade(0.8 * ring + 0.5 * np.sin(11 * np.pi * f0 * t) * np.exp(-12.0 * t), sample_rate, 0.002)


@lru_cache(maxsize=512)
def _bass(midi: int, duration: float, sample_rate: int) -> np.ndarray:
    t, f0 = _seconds(duration, sample_rate), _hertz(midi)
    tone = np.sin(2 * np.pi * f0 * t) + 0.4 * np.sin(4 * np.pi * f0 * t) + 0.15 * np.sin(6 * np.pi * f0 * t)
    return _fade(tone * np.exp(-1.2 * t), sample_rate, 0.008)


def _noise(duration: float, sample_rate: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(int(round(duration * sample_rate)))


@lru_cache(maxsize=4)
def _kick(sample_rate: int) -> np.ndarray:
    t = _seconds(0.22, sample_rate)
    phase = 2 * np.pi * (48 * t + 120 / 30 * (1 - np.exp(-30 * t)))
    return _fade(np.sin(phase) * np.exp(-14 * t), sample_rate, 0.002)


@lru_cache(maxsize=4)
def _snare(sample_rate: int) -> np.ndarray:
    t = _seconds(0.16, sample_rate)
    tone = 0.5 * np.sin(2 * np.pi * 190 * t) * np.exp(-25 * t)
    return _fade(tone + 0.5 * _noise(0.16, sample_rate, 11) * np.exp(-22 * t), sample_rate, 0.001)


@lru_cache(maxsize=4)
def _hat(sample_rate: int) -> np.ndarray:
    bright = np.diff(_noise(0.06, sample_rate, 12), prepend=0.0)
    return _fade(0.45 * bright * np.exp(-70 * _seconds(0.06, sample_rate)), sample_rate, 0.001)


@lru_cache(maxsize=4)
def _crash(sample_rate: int) -> np.ndarray:
    t = _seconds(1.1, sample_rate)
    bright = np.diff(_noise(1.1, sample_rate, 13), prepend=0.0)
    boom = 1.2 * np.sin(2 * np.pi * 55 * t) * np.exp(-9 * t)
    return _fade(0.5 * bright * np.exp(-4.5 * t) + boom, sample_rate, 0.001)
