"""MIDI: what is written reads back; what an editor or another program writes is read; what is broken is refused."""

import mido
import numpy as np
import pytest
from helpers.scores import small_score

from diff_v2m.common.errors import InputError
from diff_v2m.score.midi import read_midi, write_midi
from diff_v2m.score.planner import plan
from diff_v2m.score.score import DRUMS, VOICES, Key, Score, Voice


@pytest.fixture
def written(tmp_path):
    score = small_score()
    write_midi(tmp_path / "score.mid", score)
    return score, tmp_path / "score.mid"


def assert_same_notes(first: Score, second: Score, tolerance: float = 0.001) -> None:
    for name in VOICES:
        before, after = first[name], second[name]
        assert len(before.notes) == len(after.notes), name
        assert not len(before.notes) or before.program == after.program
        for column in ("start", "duration"):
            np.testing.assert_allclose(before.notes[column], after.notes[column], atol=tolerance)
        for column in ("pitch", "velocity"):
            np.testing.assert_array_equal(before.notes[column], after.notes[column])


def save(path, *tracks, ticks=480, kind=1):
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks)
    file.tracks.extend(mido.MidiTrack(messages) for messages in tracks)
    file.save(path)
    return path


def line(channel, pitches, length=480, program=0, name=""):
    messages = [mido.MetaMessage("track_name", name=name)] if name else []
    messages.append(mido.Message("program_change", channel=channel, program=program))
    for pitch in pitches:
        messages.append(mido.Message("note_on", channel=channel, note=pitch, velocity=80))
        messages.append(mido.Message("note_off", channel=channel, note=pitch, time=length))
    return messages


def test_round_trip(written):
    score, path = written
    again = read_midi(path)
    assert_same_notes(score, again)
    assert again.key == score.key and again.duration == pytest.approx(score.duration, abs=0.001)
    assert (again.grid.beats_per_bar, again.grid.first_downbeat) == (3, 1)
    np.testing.assert_allclose(again.grid.bars, score.grid.bars, atol=0.001)


def test_round_trip_of_a_changing_tempo(tmp_path):
    planned = plan(20.0, np.array([2.9, 7.3, 11.1, 16.4]), 5, mood="minor")
    score = Score(small_score(20.0).voices, planned.grid, planned.key, 20.0)
    write_midi(tmp_path / "a.mid", score)
    again = read_midi(tmp_path / "a.mid", 20.0)
    assert_same_notes(score, again)
    np.testing.assert_allclose(again.grid.beats, planned.grid.beats, atol=0.001)
    assert again.key == planned.key


def test_a_window_that_starts_between_beats_keeps_its_times(tmp_path):
    part = small_score().slice(1.0, 5.0)
    write_midi(tmp_path / "part.mid", part)
    again = read_midi(tmp_path / "part.mid", 4.0)
    assert_same_notes(part, again)
    bars = [grid.bars[grid.bars > 0] for grid in (again.grid, part.grid)]
    np.testing.assert_allclose(*bars, atol=0.001)


def test_file_is_what_a_workstation_expects(written):
    _, path = written
    file = mido.MidiFile(path)
    assert file.type == 1 and file.tracks[0][0].type == "track_name"
    assert [track.name for track in file.tracks[1:]] == list(VOICES)
    kinds = {message.type for message in file.tracks[0]}
    assert {"set_tempo", "time_signature", "key_signature"} <= kinds
    channels = {m.channel for m in file.tracks[-1] if m.type == "note_on"}
    assert channels == {9}


@pytest.mark.parametrize("tonic", range(12))
@pytest.mark.parametrize("mode", ["major", "minor", "dorian", "mixolydian"])
def test_every_key_is_written(tmp_path, tonic, mode):
    base = small_score()
    score = Score(base.voices, base.grid, Key(tonic, mode), base.duration)
    write_midi(tmp_path / "key.mid", score)
    assert read_midi(tmp_path / "key.mid").key == score.key


def test_a_key_signature_that_was_edited_wins(written):
    _, path = written
    file = mido.MidiFile(path)
    for index, message in enumerate(file.tracks[0]):
        if message.type == "key_signature":
            file.tracks[0][index] = message.copy(key="Em")
    file.save(path)
    assert read_midi(path).key == Key(4, "minor")


@pytest.mark.parametrize("title", ["", "Main theme", "Bass and drums"])
def test_single_track_with_many_channels(written, tmp_path, title):
    score, path = written
    file = mido.MidiFile(path)
    merged = mido.MidiFile(type=0, ticks_per_beat=file.ticks_per_beat)
    merged.tracks.append(mido.merge_tracks(file.tracks))
    merged.tracks[0][:] = [m for m in merged.tracks[0] if m.type != "track_name"]
    merged.tracks[0].name = title
    merged.save(tmp_path / "merged.mid")
    again = read_midi(tmp_path / "merged.mid")
    assert again.note_count == score.note_count
    assert len(again[DRUMS].notes) == len(score[DRUMS].notes)
    assert again["bass"].program == 33 and again["pad"].program == 89
    assert again["melody"].program == 73


def test_single_track_with_one_channel_is_named(tmp_path):
    path = save(tmp_path / "a.mid", line(0, [60, 62, 64], name="Bass line"), kind=0)
    assert len(read_midi(path)["bass"].notes) == 3


def test_parts_find_their_voices_without_names(tmp_path):
    tracks = [
        line(0, [72, 74, 76, 77], program=40),
        line(1, [36, 43, 36, 43], program=0),
        line(2, [60, 64, 67, 72], length=240, program=46),
        line(3, [60, 60], length=960, program=91),
        line(9, [36, 38, 36, 38]),
    ]
    score = read_midi(save(tmp_path / "a.mid", *tracks))
    programs = {voice.name: voice.program for voice in score.voices}
    assert programs == {"melody": 40, "bass": 0, "figure": 46, "pad": 91, "drums": 0}


def test_names_beat_programs_and_a_bassoon_is_no_bass(tmp_path):
    tracks = [line(0, [60, 62], program=33, name="Lead Synth"), line(1, [50, 52], program=70, name="Bassoon")]
    score = read_midi(save(tmp_path / "a.mid", *tracks))
    assert score["melody"].program == 33 and len(score["bass"].notes) == 0


def test_chords_without_a_name_are_harmony(tmp_path):
    messages = [mido.Message("program_change", program=4)]
    for chord in ((60, 64, 67), (59, 62, 67)):
        messages += [mido.Message("note_on", note=pitch, velocity=70) for pitch in chord]
        messages += [mido.Message("note_off", note=p, time=480 if i == 0 else 0) for i, p in enumerate(chord)]
    assert len(read_midi(save(tmp_path / "a.mid", messages))["harmony"].notes) == 6


def test_other_metres_and_default_tempo(tmp_path):
    metre = [mido.MetaMessage("time_signature", numerator=6, denominator=8)]
    score = read_midi(save(tmp_path / "a.mid", metre, line(0, [60] * 12, length=240)))
    assert score.grid.beats_per_bar == 2 and score.grid.tempo == pytest.approx(80)
    assert score["melody"].notes["start"][:3].tolist() == pytest.approx([0.0, 0.25, 0.5])


def test_notes_that_are_never_ended_and_velocity_zero(tmp_path):
    messages = [
        mido.Message("note_on", note=72, velocity=90),
        mido.Message("note_on", note=72, velocity=0, time=480),
        mido.Message("note_on", note=74, velocity=90),
        mido.MetaMessage("end_of_track", time=480),
    ]
    notes = read_midi(save(tmp_path / "a.mid", messages))["melody"].notes
    assert notes["duration"].tolist() == pytest.approx([0.5, 0.5])


def test_given_duration_cuts_the_music(written):
    _, path = written
    score = read_midi(path, 3.0)
    assert score.duration == 3.0
    assert all((voice.notes["start"] + voice.notes["duration"]).max() <= 3.0 + 1e-9 for voice in score.voices)


def test_bad_files_are_refused_in_one_line(tmp_path, written):
    _, good = written
    content = good.read_bytes()
    smpte = bytearray(content)
    smpte[12:14] = b"\xe7\x28"
    cases = {
        "missing.mid": None,
        "empty.mid": b"",
        "text.mid": b"this is no music at all",
        "cut.mid": content[: len(content) // 2],
        "smpte.mid": bytes(smpte),
    }
    save(tmp_path / "silent.mid", [mido.MetaMessage("set_tempo", tempo=500000)])
    for name, broken in cases.items():
        if broken is not None:
            (tmp_path / name).write_bytes(broken)
    for name in (*cases, "silent.mid"):
        with pytest.raises(InputError) as error:
            read_midi(tmp_path / name)
        assert "\n" not in str(error.value) and name in str(error.value)
    with pytest.raises(InputError, match="no notes"):
        read_midi(tmp_path / "silent.mid")


def test_damaged_bytes_never_end_in_a_traceback(tmp_path, written):
    _, good = written
    content, rng = good.read_bytes(), np.random.default_rng(0)
    path = tmp_path / "damaged.mid"
    for _ in range(150):
        damaged = bytearray(content)
        for at in rng.integers(0, len(content), 4):
            damaged[at] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            read_midi(path)
        except InputError as error:
            assert "\n" not in str(error)


def test_a_score_without_notes_writes(tmp_path):
    base = small_score()
    write_midi(tmp_path / "a.mid", Score((Voice("melody"),), base.grid, base.key, 2.0))
    with pytest.raises(InputError, match="no notes"):
        read_midi(tmp_path / "a.mid")
