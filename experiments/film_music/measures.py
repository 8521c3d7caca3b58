"""Is the music sane? Numbers on a score, and on the sound of it."""

import numpy as np

from diff_v2m.media.metering import integrated_loudness, true_peak
from diff_v2m.score.keys import find_key, pitch_class_weights
from diff_v2m.score.score import DRUMS, MODES, BeatGrid, Score

OPEN_FIFTHS = (29,)  # programs whose chords are fifths on purpose
_TOGETHER = 0.045  # s; notes closer than this are one chord


def score_measures(score: Score, cuts: tuple[float, ...]) -> dict[str, float]:
    """Numbers about the notes alone. Shares are from 0 to 1; nan where there is nothing to measure."""
    found = find_key(pitch_class_weights(score), tuple(MODES))
    melody = np.sort(score["melody"].notes, order="start")
    sizes = np.abs(np.diff(melody["pitch"].astype(int)))
    onsets = score.onsets()
    nearest = [float(np.abs(onsets - cut).min()) for cut in cuts]
    return {
        "tonic": float(found.tonic == score.key.tonic),
        "mode": float(found.minor_third == score.key.minor_third),
        "cuts 30": _share([distance <= 0.03 for distance in nearest]),
        "cuts 50": _share([distance <= 0.05 for distance in nearest]),
        "repeats": _share(sizes == 0),
        "steps": _share((sizes > 0) & (sizes <= 2)),
        "thirds": _share((sizes > 2) & (sizes <= 4)),
        "leaps": _share(sizes > 4),
        "wide": _share(sizes > 9),
        "stable ends": _share(_phrase_ends_stable(score, melody)),
        "motif": motif_share(score),
        "clash": _share(_strong_clashes(score, melody)),
        "parallels": float("nan")
        if score["harmony"].program in OPEN_FIFTHS
        else parallel_fifths(score) / max(len(score.grid.bars), 1),
        "notes/s": score.note_count / score.duration,
        "melody notes/s": len(melody) / score.duration,
    }


def sound_measures(audio: np.ndarray, sample_rate: int, score: Score, cuts: tuple[float, ...]) -> dict[str, float]:
    """Numbers about (2, n) float audio: level, width, silence, onsets heard at cuts, what a beat tracker finds."""
    mono = audio.mean(0)
    frames = mono[: len(mono) // 2205 * 2205].reshape(-1, 2205)
    level = 20 * np.log10(np.sqrt((frames**2).mean(1)) + 1e-9)
    side = (audio[0] - audio[1]) / 2
    tempo, f_measure = _tracked(mono, sample_rate, score)
    return {
        "LUFS": integrated_loudness(audio, sample_rate),
        "peak dB": true_peak(audio),
        "silence": float((level < -55).mean()),
        "side/mid dB": float(10 * np.log10((side**2).mean() / (mono**2).mean() + 1e-9)),
        "cuts heard": _heard(mono, sample_rate, cuts),
        "chance": _heard(mono, sample_rate, tuple(np.random.default_rng(3).uniform(1, score.duration - 1, 40))),
        "tracked tempo": tempo,
        "beat F1": f_measure,
    }


def _heard(mono: np.ndarray, sample_rate: int, times: tuple[float, ...]) -> float:
    """Share of the times that an onset is detected within 50 ms of."""
    import librosa

    found = librosa.onset.onset_detect(y=mono, sr=sample_rate, hop_length=256, units="time")
    return _share([np.abs(found - time).min(initial=9.0) <= 0.05 for time in times])


def _tracked(mono: np.ndarray, sample_rate: int, score: Score) -> tuple[float, float]:
    """Tempo and F-measure of librosa's beat tracker."""
    import librosa

    tempo, frames = librosa.beat.beat_track(y=mono, sr=sample_rate, hop_length=512)
    found = librosa.frames_to_time(frames, sr=sample_rate, hop_length=512)
    return float(np.atleast_1d(tempo)[0]), beat_f1(found, score.grid, score.duration)


def beat_f1(found: np.ndarray, grid: BeatGrid, duration: float) -> float:
    """F-measure (70 ms) of tracked beats against the grid's; twice and half the tempo count, on or off the beat."""
    import mir_eval

    beats = grid.beats[(grid.beats >= 0) & (grid.beats <= duration)]
    doubled = np.sort(np.concatenate([beats, (beats[1:] + beats[:-1]) / 2]))
    levels = [level for level in (beats, doubled, beats[::2], beats[1::2]) if len(level) > 1]
    return max((mir_eval.beat.f_measure(level, found) for level in levels), default=0.0)


def _share(values) -> float:
    values = np.asarray(values)
    return float(values.mean()) if len(values) else float("nan")


def _sounding(score: Score, at: float, voices: tuple[str, ...]) -> set[int]:
    """Pitch classes of the notes of some voices that sound at a time."""
    names = set()
    for voice in voices:
        notes = score[voice].notes
        inside = (notes["start"] <= at + _TOGETHER) & (notes["start"] + notes["duration"] > at + _TOGETHER)
        names |= set((notes["pitch"][inside] % 12).tolist())
    return names


def _phrase_ends_stable(score: Score, melody: np.ndarray) -> list[bool]:
    """Whether each long note before a rest is a tone of the sounding chord or of the tonic chord."""
    beat = 60 / score.grid.tempo
    gaps = np.diff(melody["start"], append=np.inf) - melody["duration"]
    third = score.key.scale[2]
    home = {score.key.tonic, third, score.key.scale[4]}
    result = []
    for note in melody[(gaps > 0.3 * beat) & (melody["duration"] > 0.9 * beat)]:
        chord = _sounding(score, float(note["start"]), ("harmony", "pad", "bass"))
        result.append(int(note["pitch"]) % 12 in home | chord)
    return result


def _strong_clashes(score: Score, melody: np.ndarray) -> list[bool]:
    """Whether each melody note on a downbeat lies a semitone from a note of harmony, pad or bass."""
    result = []
    for note in melody:
        if np.abs(score.grid.bars - note["start"]).min(initial=9.0) < _TOGETHER:
            others = _sounding(score, float(note["start"]), ("harmony", "pad", "bass"))
            name = int(note["pitch"]) % 12
            result.append(name not in others and bool({(name + 1) % 12, (name - 1) % 12} & others))
    return result


def bar_shapes(score: Score) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """For each bar that the melody has two or more notes in: onsets in sixteenths, and directions between notes."""
    notes = np.sort(score["melody"].notes, order="start")
    position = score.grid.position(notes["start"])
    bars = np.floor((position + 0.1) / score.grid.beats_per_bar).astype(int)
    shapes = []
    for bar in np.unique(bars):
        inside = bars == bar
        if inside.sum() >= 2:
            onsets = np.round(4 * (position[inside] - bar * score.grid.beats_per_bar)).astype(int)
            directions = np.sign(np.diff(notes["pitch"][inside].astype(int)))
            shapes.append((tuple(onsets.tolist()), tuple(directions.tolist())))
    return shapes


def motif_share(score: Score) -> float:
    """Share of melody bars whose rhythm and most of whose contour, perhaps inverted, occur in another bar."""
    shapes = bar_shapes(score)
    if len(shapes) < 3:
        return float("nan")
    found = []
    for index, (onsets, directions) in enumerate(shapes):
        others = [other for number, other in enumerate(shapes) if number != index and other[0] == onsets]
        found.append(any(_alike(directions, other) for _, other in others))
    return _share(found)


def _alike(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    same = sum(a == b for a, b in zip(first, second, strict=True))
    inverted = sum(a == -b for a, b in zip(first, second, strict=True))
    return max(same, inverted) >= 0.66 * len(first)


def parallel_fifths(score: Score) -> int:
    """How often two of bass and harmony move in parallel fifths or octaves from one chord to the next."""
    chords = _chords(score)
    count = 0
    for before, after in zip(chords, chords[1:], strict=False):
        if len(before) != len(after):
            continue
        for low in range(len(before)):
            for high in range(low + 1, len(before)):
                was, now = (before[high] - before[low]) % 12, (after[high] - after[low]) % 12
                moved = before[low] != after[low] and before[high] != after[high]
                count += was == now and now in (0, 7) and moved
    return int(count)


def _chords(score: Score) -> list[tuple[int, ...]]:
    """Bass and harmony at each attack of three or more notes of the harmony, repetitions left out."""
    notes, bass = score["harmony"].notes, score["bass"].notes
    chords: list[tuple[int, ...]] = []
    at = 0
    while at < len(notes):
        group = notes[(notes["start"] >= notes["start"][at]) & (notes["start"] < notes["start"][at] + _TOGETHER)]
        under = bass[bass["start"] <= notes["start"][at] + _TOGETHER]
        at += max(len(group), 1)
        if len(group) >= 3 and len(under):
            chord = (int(under["pitch"][-1]), *sorted(int(pitch) for pitch in group["pitch"]))
            if not chords or chords[-1] != chord:
                chords.append(chord)
    return chords


def ranges(score: Score) -> dict[str, tuple[int, int]]:
    """Voice → lowest and highest MIDI pitch."""
    return {
        voice.name: (int(voice.notes["pitch"].min()), int(voice.notes["pitch"].max()))
        for voice in score.voices
        if voice.name != DRUMS and len(voice.notes)
    }
