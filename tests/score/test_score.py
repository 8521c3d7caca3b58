"""The score: grid, notes, slices."""

import numpy as np
import pytest
from helpers.scores import note_array, small_score

from diff_v2m.score.editing import with_dynamics
from diff_v2m.score.keys import find_key, parse_key, pitch_class_weights
from diff_v2m.score.score import MODES, VOICES, BeatGrid, Key, Score, Voice


def test_grid_converts_both_ways_and_reaches_beyond_its_ends():
    grid = BeatGrid(np.array([0.0, 0.5, 1.0, 1.6, 2.2]), 4, 1)
    assert grid.position(0.5) == 0 and grid.position(1.3) == pytest.approx(1.5)
    times = np.linspace(-2, 4, 50)
    np.testing.assert_allclose(grid.seconds(grid.position(times)), times, atol=1e-12)
    np.testing.assert_allclose(grid.bars, [0.5])
    assert BeatGrid(np.arange(0, 10, 0.6), 3).tempo == pytest.approx(100)


def test_grid_that_covers_a_window_keeps_its_bars():
    grid = BeatGrid(np.arange(0, 20, 0.5), 4, 3)
    window = grid.covering(4.2, 9.1)
    assert window.beats[0] <= 4.2 < window.beats[1] and window.beats[-2] < 9.1 <= window.beats[-1]
    assert set(window.bars.tolist()) <= set(grid.bars.tolist())
    longer = grid.covering(-3.0, 30.0)
    assert longer.beats[0] <= -3 and longer.beats[-1] >= 30
    assert set(grid.bars.tolist()) <= set(longer.bars.tolist())


def test_grid_must_rise():
    with pytest.raises(ValueError, match="later"):
        BeatGrid(np.array([0.0, 0.5, 0.5]), 4)


def test_notes_of_one_pitch_do_not_overlap_and_are_sorted():
    rows = [(1.0, 2.0, 60, 90), (0.0, 3.0, 60, 80), (0.5, 1.0, 64, 70), (1.005, 0.001, 67, 70), (1.0, 1.0, 60, 50)]
    notes = Voice("melody", 0, note_array(rows)).notes
    assert notes["start"].tolist() == [0.0, 0.5, 1.0]
    assert notes["duration"].tolist() == [1.0, 1.0, 1.0]


def test_voices_are_ordered_named_once_and_always_there():
    score = small_score()
    assert [voice.name for voice in score.voices] == list(VOICES)
    assert len(Score((), score.grid, score.key, 1.0)["bass"].notes) == 0
    with pytest.raises(ValueError, match="twice"):
        Score((Voice("bass"), Voice("bass")), score.grid, score.key, 1.0)
    with pytest.raises(ValueError, match="voice 'kazoo'"):
        Voice("kazoo")


def test_slices_joined_are_the_whole():
    score = small_score()
    first, second = score.slice(0.0, 2.5), score.slice(2.5, 6.0)
    assert first.duration == 2.5 and second.duration == 3.5
    moved = second.shift(2.5)
    for name in VOICES:
        kept = [part[name].notes for part in (first, moved)]
        total = sum(float(notes["duration"].sum()) for notes in kept)
        assert total == pytest.approx(float(score[name].notes["duration"].sum()))
    inside = moved.grid.beats[(moved.grid.beats > 2.5) & (moved.grid.beats < 6)]
    assert np.abs(inside[:, None] - score.grid.beats).min(1).max() < 1e-9
    np.testing.assert_allclose(moved.grid.bars % 1.8, 0.6, atol=1e-9)


def test_transposing_leaves_drums():
    up = small_score().transpose(3)
    assert str(up.key) == "F dorian"
    assert up["bass"].notes["pitch"][0] == 41 and up["drums"].notes["pitch"][0] == 36


def test_a_score_without_voices_has_no_onsets():
    score = Score((), small_score().grid, Key(0, "major"), 2.0)
    assert len(score.onsets()) == 0


@pytest.mark.parametrize("mode", MODES)
def test_key_is_found_in_a_scale_with_a_strong_triad(mode):
    for tonic in range(12):
        key = Key(tonic, mode)
        weights = np.zeros(12)
        weights[list(key.scale)] = 1.0
        weights[[key.scale[0], key.scale[2], key.scale[4]]] += (2.0, 1.0, 1.5)
        assert find_key(weights, tuple(MODES)) == key
        assert parse_key(str(key)) == key
    assert parse_key("H major") is None
    assert find_key(np.zeros(12)) == Key(0, "major")


def test_drums_do_not_count_for_the_key():
    score = small_score()
    only_drums = Score((score["drums"],), score.grid, score.key, 6.0)
    assert pitch_class_weights(only_drums).sum() == 0


def test_a_score_in_c_comes_back_in_its_key():
    for tonic in range(12):
        score = small_score().transpose((tonic - small_score().key.tonic) % 12 - 6)
        plain = score.in_c()
        assert plain.key == Key(0, score.key.mode)
        shift = plain["bass"].notes["pitch"].astype(int) - score["bass"].notes["pitch"]
        assert len(set(shift.tolist())) == 1 and abs(shift[0]) <= 6
        back = plain.in_key(score.key)
        assert back.key == score.key and back["drums"].notes.tolist() == score["drums"].notes.tolist()
        assert back["bass"].notes["pitch"].tolist() == score["bass"].notes["pitch"].tolist()


def test_dynamics_scale_velocities_within_the_range_of_midi():
    notes = note_array(
        [(0.2, 0.5, 60, 80), (1.2, 0.5, 60, 80), (2.2, 0.5, 60, 80), (3.9, 0.5, 60, 80), (4.2, 0.5, 60, 80)]
    )
    score = Score((Voice("melody", 0, notes),), BeatGrid(np.arange(12) * 0.5, 4), Key(0, "major"), 4.5)
    changed = with_dynamics(score, np.array([0.0, 1.0, -1.0, 50.0, -1000.0]))["melody"].notes
    assert changed["velocity"].tolist() == [80, round(80 * np.exp(0.4)), round(80 * np.exp(-0.4)), 127, 16]
    rest = ["start", "duration", "pitch"]
    np.testing.assert_array_equal(changed[rest], score["melody"].notes[rest])
    after = with_dynamics(score, np.array([0.0, 1.0]))["melody"].notes
    assert after["velocity"].tolist() == [80, *[round(80 * np.exp(0.4))] * 4]  # what lies after the last second
