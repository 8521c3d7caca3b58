"""Frames of a score: what is written is read back; faults of a decoder are mended."""

import numpy as np
import pytest
from helpers.scores import note_array
from helpers.toy_scores import toy_score

from diff_v2m.score.frames import LAYOUT, PITCH_ROWS, RANGES, from_frames, to_frames
from diff_v2m.score.score import BeatGrid, Key, Score, Voice
from experiments.film_music.composer import compose
from experiments.film_music.scene import draw_scene

RATE = 15


def read_back(score: Score) -> Score:
    return from_frames(to_frames(score, RATE, round(score.duration * RATE)), RATE, score.duration)


def of_voice(name: str, *rows: tuple[float, float, int, int], duration: float = 4.0) -> Score:
    voice = Voice(name, 0, note_array(rows))
    return Score((voice,), BeatGrid(np.arange(9) * 0.5, 4), Key(0, "major"), duration)


def test_a_score_reads_back():
    score = toy_score()
    again = read_back(score)
    assert [voice.name for voice in again.voices] == ["melody", "harmony", "bass", "drums"]
    for voice in score.voices:
        notes = again[voice.name].notes
        assert again[voice.name].program == voice.program
        np.testing.assert_array_equal(notes["pitch"], voice.notes["pitch"])
        np.testing.assert_array_equal(notes["velocity"], voice.notes["velocity"])
        np.testing.assert_allclose(notes["start"], voice.notes["start"], atol=1e-3)
    assert np.abs(again["melody"].notes["duration"] - score["melody"].notes["duration"]).max() < 1e-3
    assert again.key == score.key and again.grid.beats_per_bar == 3
    np.testing.assert_allclose(again.grid.bars, score.grid.covering(0, score.duration).bars, atol=1e-3)


@pytest.mark.parametrize("seed", range(2000, 2006))
def test_composed_pieces_read_back(seed):
    score = compose(draw_scene(seed))
    again = read_back(score)
    for voice in score.voices:
        notes = again[voice.name].notes
        assert again[voice.name].program == voice.program
        assert abs(len(notes) - len(voice.notes)) <= 0.01 * len(voice.notes)
        if len(notes) == len(voice.notes):
            assert np.abs(np.sort(notes["start"]) - np.sort(voice.notes["start"])).max() < 0.03
    assert again.grid.beats_per_bar == score.grid.beats_per_bar
    assert abs(again.grid.tempo / score.grid.tempo - 1) < 0.001


def test_repeated_and_short_notes_keep_their_lengths():
    rows = [(0.0, 0.2, 60, 80), (0.2, 0.2, 60, 90), (1.01, 0.05, 64, 70), (2.03, 1.4, 67, 60)]
    notes = read_back(of_voice("figure", *rows))["figure"].notes
    np.testing.assert_allclose(notes["start"], [row[0] for row in rows], atol=1e-3)
    np.testing.assert_allclose(notes["duration"], [row[1] for row in rows], atol=0.035)


def test_pitches_outside_the_range_move_by_octaves():
    low, high = RANGES["bass"]
    notes = read_back(of_voice("bass", (0.0, 1.0, 12, 80), (1.0, 1.0, 90, 80)))["bass"].notes
    assert (notes["pitch"] % 12).tolist() == [0, 90 % 12] and (notes["pitch"] >= low).all()
    assert (notes["pitch"] < high).all()


def test_two_peaks_of_one_onset_are_one_note_the_likelier():
    frames = np.zeros((LAYOUT.rows, 30), np.float32)
    row = PITCH_ROWS["melody"].start + 10
    frames[LAYOUT.onset][row, 4:6] = 0.6, 0.9
    frames[LAYOUT.offset][0:2, 4:6] = [[0.9, 0.1], [0.9, 0.1]]
    frames[LAYOUT.sustain][row, 4:12] = 1
    notes = from_frames(frames, RATE, 2.0)["melody"].notes
    assert len(notes) == 1 and notes["start"][0] == pytest.approx(5.1 / RATE)


def test_a_missing_and_a_wrong_beat_do_not_move_the_others():
    score = toy_score(9.0)
    frames = to_frames(score, RATE, 135)
    beats = np.flatnonzero(frames[LAYOUT.beat][0])
    frames[LAYOUT.beat][0, beats[5]] = 0
    frames[LAYOUT.beat][0, beats[8] + 4] = 1
    again = from_frames(frames, RATE, 9.0)
    assert again.grid.tempo == pytest.approx(100, rel=0.001) and again.grid.beats_per_bar == 3
    assert np.abs(again.grid.bars[:4] - score.grid.bars[:4]).max() < 0.01


def test_frames_without_anything_are_a_score_without_voices():
    score = from_frames(np.zeros((LAYOUT.rows, 30), np.float32), RATE, 2.0)
    assert score.voices == () and score.grid.tempo == pytest.approx(120)
