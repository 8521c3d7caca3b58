"""Score ↔ Standard MIDI file: tempo map, metre, key, a track for each voice, drums on channel 10.

What is written reads back within a millisecond. What an audio workstation has edited is read too: parts are given to
voices by the name of their track, else by program, range and polyphony. The one track of a type 0 file has the name of
the piece, which says nothing of the voices if it has several channels.
"""

import logging
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic
from diff_v2m.score.keys import find_key, parse_key, pitch_class_weights
from diff_v2m.score.score import DRUMS, NOTE, PITCH_CLASSES, VOICES, BeatGrid, Key, Score, Voice

try:
    import mido
except ModuleNotFoundError:
    raise InputError("the package mido is missing; run: bash setup.sh") from None

log = logging.getLogger(__name__)

_TICKS = 960  # of a quarter note
_CHANNELS = {"melody": 0, "harmony": 1, "bass": 2, "figure": 3, "pad": 4, DRUMS: 9}
_KEY_TEXT = "key: "  # a MIDI key signature knows two modes only, so the key stands in a text event too
_SHARPS = {"major": 0, "minor": 3, "dorian": 10, "mixolydian": 5}  # semitones up to the major key of the same signature
_SYNONYMS = {
    "melody": {"melody", "lead", "solo", "vocal", "theme"},
    "harmony": {"harmony", "chord", "comp", "key"},
    "bass": {"bass", "bas"},  # a plural's "s" is taken off each word
    "figure": {"figure", "arp", "arpeggio", "ostinato"},
    "pad": {"pad", "choir"},
    DRUMS: {"drum", "percussion", "kit"},
}
_BASS_PROGRAMS, _PAD_PROGRAMS = frozenset((*range(32, 40), 43, 58)), frozenset(range(88, 96))
_DEFAULT_TEMPO = 500_000  # µs in a quarter note, as the standard says


def write_midi(path: str | Path, score: Score) -> None:
    """Write a type 1 file, atomically. A video that starts between two beats gets a short first beat."""
    grid = score.grid.covering(0.0, score.duration)
    beats = np.concatenate([[0.0], grid.beats[grid.beats > 1e-6]])
    ticks = np.arange(len(beats)) * _TICKS

    def tick(seconds: np.ndarray | float) -> np.ndarray:
        return np.round(np.interp(seconds, beats, ticks)).astype(int)

    file = mido.MidiFile(type=1, ticks_per_beat=_TICKS)
    file.tracks.append(_conductor(score, grid, beats, int(tick(score.duration))))
    for voice in score.voices:
        channel = _CHANNELS[voice.name]
        start = tick(voice.notes["start"])
        stop = np.maximum(tick(voice.notes["start"] + voice.notes["duration"]), start + 1)
        pitch, velocity = voice.notes["pitch"], np.maximum(voice.notes["velocity"], 1)
        events = np.stack([start, np.ones_like(start), pitch, velocity], 1).tolist()
        events += np.stack([stop, np.zeros_like(stop), pitch, np.zeros_like(stop)], 1).tolist()
        track = mido.MidiTrack([mido.MetaMessage("track_name", name=voice.name)])
        track.append(mido.Message("program_change", channel=channel, program=voice.program))
        now = 0
        for at, sounding, pitch, velocity in sorted(events):
            kind = "note_on" if sounding else "note_off"
            track.append(mido.Message(kind, channel=channel, note=pitch, velocity=velocity, time=at - now))
            now = at
        file.tracks.append(track)
    with atomic(path) as part:
        file.save(part)


def _conductor(score: Score, grid: BeatGrid, beats: np.ndarray, end: int) -> mido.MidiTrack:
    """The track of tempo, metre and key, which is as long as the video."""
    track = mido.MidiTrack([mido.MetaMessage("track_name", name="Diff-V2M")])
    track.append(mido.MetaMessage("text", text=_KEY_TEXT + str(score.key)))
    track.append(mido.MetaMessage("key_signature", key=_signature(score.key)))
    events = []
    if grid.first_downbeat:
        events.append((0, mido.MetaMessage("time_signature", numerator=grid.first_downbeat, denominator=4)))
    metre = mido.MetaMessage("time_signature", numerator=grid.beats_per_bar, denominator=4)
    events.append((grid.first_downbeat * _TICKS, metre))
    last = None
    for number, length in enumerate(np.round(np.diff(beats) * 1e6).astype(int)):
        if last is None or abs(length - last) > 1:
            events.append((number * _TICKS, mido.MetaMessage("set_tempo", tempo=int(length))))
            last = length
    now = 0
    for at, message in sorted(events, key=lambda event: event[0]):
        track.append(message.copy(time=at - now))
        now = at
    track.append(mido.MetaMessage("end_of_track", time=max(0, end - now)))
    return track


def _signature(key: Key) -> str:
    """The MIDI key signature with the key's accidentals."""
    if key.mode == "minor":
        return {1: "C#m", 3: "D#m", 8: "G#m"}.get(key.tonic, PITCH_CLASSES[key.tonic] + "m")
    major = PITCH_CLASSES[(key.tonic + _SHARPS[key.mode]) % 12]
    return {"C#": "Db"}.get(major, major)


@dataclass
class _Part:
    """The notes of one track, channel and program."""

    track: str
    channel: int
    program: int
    notes: list[tuple[int, int, int, int]] = field(default_factory=list)  # tick, tick of the end, pitch, velocity


@dataclass
class _Events:
    """What a file holds, in ticks."""

    parts: list[_Part] = field(default_factory=list)
    tempi: dict[int, int] = field(default_factory=dict)
    metres: dict[int, tuple[int, int]] = field(default_factory=dict)
    key: Key | None = None
    end: int = 0


def read_midi(path: str | Path, duration: float | None = None) -> Score:
    """Read a Standard MIDI file as a score of `duration` seconds (default: as long as the file).

    Raises InputError if it cannot be read or holds no note.
    """
    path = Path(path)
    try:
        file = mido.MidiFile(path, clip=True)
        events = _events(file)
    except OSError as error:
        reason = error.strerror or "it is cut off or not MIDI"
        raise InputError(f"{path}: cannot be read as MIDI ({reason}); give a Standard MIDI file") from None
    except (EOFError, ValueError, LookupError, TypeError, mido.KeySignatureError) as error:
        raise InputError(f"{path}: cannot be read as MIDI ({_line(error)}); give a Standard MIDI file") from None
    if file.ticks_per_beat <= 0 or file.ticks_per_beat > 0x7FFF:
        raise InputError(f"{path}: counts time in video frames (SMPTE); export it with a tempo in beats")
    if not any(part.notes for part in events.parts):
        raise InputError(f"{path}: holds no notes; export a file with at least one")

    seconds = _clock(events, file.ticks_per_beat)
    voices = _voices(events.parts, seconds)
    end = float(seconds(events.end))
    length = duration or max(end, max(float(np.max(_ends(voice))) for voice in voices))
    grid = _grid(events, file.ticks_per_beat, seconds, length)
    score = Score(tuple(voices), grid, Key(0, "major"), length)
    key = events.key or find_key(pitch_class_weights(score))
    return Score(score.voices, grid, key, length).slice(0.0, length)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _ends(voice: Voice) -> np.ndarray:
    return voice.notes["start"] + voice.notes["duration"]


def _events(file: mido.MidiFile) -> _Events:
    events, text_key, signature = _Events(), None, None
    for track in file.tracks:
        parts: dict[tuple[int, int], _Part] = {}
        programs, open_notes, now = defaultdict(int), defaultdict(list), 0
        for message in track:
            now += message.time
            if message.type == "set_tempo":
                events.tempi[now] = max(message.tempo, 1)
            elif message.type == "time_signature":
                events.metres[now] = (message.numerator, message.denominator)
            elif message.type == "key_signature" and signature is None:
                signature = _key_of(message.key)
            elif message.type == "text" and message.text.startswith(_KEY_TEXT):
                text_key = text_key or parse_key(message.text[len(_KEY_TEXT) :])
            elif message.type == "program_change":
                programs[message.channel] = message.program
            elif message.type in ("note_on", "note_off"):
                waiting = open_notes[message.channel, message.note]
                if message.type == "note_on" and message.velocity:
                    program = programs[message.channel]
                    part = parts.setdefault((message.channel, program), _Part(track.name, message.channel, program))
                    waiting.append((part, now, message.velocity))
                elif waiting:
                    part, start, velocity = waiting.pop(0)
                    part.notes.append((start, max(now, start + 1), message.note, velocity))
        for (_, pitch), waiting in open_notes.items():  # notes that are never ended sound to the end of their track
            for part, start, velocity in waiting:
                part.notes.append((start, max(now, start + 1), pitch, velocity))
        if file.type == 0 and len({part.channel for part in parts.values()}) > 1:
            for part in parts.values():
                part.track = ""
        events.parts.extend(part for part in parts.values() if part.notes)
        events.end = max(events.end, now)
    events.key = text_key if text_key and _agrees(text_key, signature) else signature
    return events


def _key_of(signature: str) -> Key | None:
    name = signature.removesuffix("m")
    name = {"Db": "C#", "D#": "Eb", "Gb": "F#", "G#": "Ab", "A#": "Bb", "Cb": "B"}.get(name, name)
    mode = "minor" if signature.endswith("m") else "major"
    return Key(PITCH_CLASSES.index(name), mode) if name in PITCH_CLASSES else None


def _agrees(key: Key, signature: Key | None) -> bool:
    """Whether the text's key still has the accidentals of the signature; an editor may have changed the latter."""
    return signature is None or _key_of(_signature(key)) == signature


def _clock(events: _Events, ticks_per_beat: int):
    """A function from ticks to seconds."""
    tempi = {0: _DEFAULT_TEMPO} | events.tempi
    at = np.array(sorted(tempi))
    lengths = np.array([tempi[tick] for tick in at]) / 1e6 / ticks_per_beat
    begin = np.concatenate([[0.0], np.cumsum(np.diff(at) * lengths[:-1])])

    def seconds(tick: np.ndarray | int) -> np.ndarray:
        piece = np.searchsorted(at, tick, side="right") - 1
        return begin[piece] + (tick - at[piece]) * lengths[piece]

    return seconds


def _grid(events: _Events, ticks_per_beat: int, seconds, duration: float) -> BeatGrid:
    """Beats and bars of the metre that lasts longest. The beat of 6/8, 9/8 and 12/8 is a dotted quarter."""
    metres = {0: (4, 4)} | events.metres
    at = sorted(metres)
    lengths = np.diff([*at, max(events.end, at[-1] + 1)])
    start = at[int(np.argmax(lengths))]
    numerator, denominator = metres[start]
    compound = denominator == 8 and numerator % 3 == 0 and numerator > 3
    beats_per_bar = max(1, numerator // 3 if compound else numerator)
    beat = max(1, round(ticks_per_beat * 4 / denominator * (3 if compound else 1)))
    before = -(-start // beat)  # beats before the first bar line of that metre
    ticks = start + (np.arange(-before, 2)) * beat
    while seconds(int(ticks[-1])) < duration:
        ticks = np.concatenate([ticks, ticks[-1] + beat * np.arange(1, len(ticks) + 1)])
    grid = BeatGrid(seconds(ticks), beats_per_bar, before % beats_per_bar)
    return grid.covering(0.0, duration)


def _voices(parts: list[_Part], seconds) -> list[Voice]:
    """Give each part to a voice; parts that share one are merged under the program with the most notes."""
    given: dict[str, list[_Part]] = defaultdict(list)
    named = {id(part): _by_name(part) for part in parts}
    for part in parts:
        if named[id(part)]:
            given[named[id(part)]].append(part)
    rest = [part for part in parts if not named[id(part)]]
    for part in sorted(rest, key=lambda part: -np.median([note[2] for note in part.notes])):  # highest part first
        given[_by_content(part, seconds, given)].append(part)
    voices = []
    for name in VOICES:
        if not given[name]:
            continue
        if len({part.program for part in given[name]}) > 1:
            log.warning("MIDI: %d parts share the voice %s and play one instrument", len(given[name]), name)
        leading = max(given[name], key=lambda part: len(part.notes))
        rows = np.array([note for part in given[name] for note in part.notes])
        notes = np.empty(len(rows), NOTE)
        notes["start"] = seconds(rows[:, 0])
        notes["duration"] = seconds(rows[:, 1]) - notes["start"]
        notes["pitch"], notes["velocity"] = rows[:, 2], rows[:, 3]
        voices.append(Voice(name, leading.program, notes))
    return voices


def _by_name(part: _Part) -> str | None:
    if part.channel == _CHANNELS[DRUMS]:
        return DRUMS
    words = {word.removesuffix("s") for word in re.split("[^a-z]+", part.track.lower())}
    return next((voice for voice, names in _SYNONYMS.items() if words & names), None)


def _by_content(part: _Part, seconds, given: dict[str, list[_Part]]) -> str:
    """A voice by program, range and polyphony; a free one where two would do."""
    rows = np.array(part.notes)
    length = seconds(rows[:, 1]) - seconds(rows[:, 0])
    span = seconds(int(rows[:, 1].max())) - seconds(int(rows[:, 0].min()))
    chords = len(np.unique(rows[:, 0])) < 0.7 * len(rows) or length.sum() > 1.8 * span
    if part.program in _BASS_PROGRAMS or (np.median(rows[:, 2]) < 48 and not chords):
        return "bass"
    if part.program in _PAD_PROGRAMS:
        return "pad"
    wanted = ("pad", "harmony") if chords and np.median(length) > 1.5 else ("harmony", "pad")
    if not chords:
        wanted = ("melody", "figure")
    return next((name for name in wanted if not given[name]), wanted[-1])
