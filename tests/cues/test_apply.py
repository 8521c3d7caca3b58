"""Sheets → features that the model receives: edits change what they name, an unedited sheet changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import toys
from PIL import Image

from diff_v2m.common.errors import InputError
from diff_v2m.cues import Cue, CueSheet
from diff_v2m.cues.apply import describe, direct, dynamics, with_rhythm
from diff_v2m.cues.table import format_sheet, is_edited, parse_sheet
from diff_v2m.cues.timebase import Timebase
from diff_v2m.features.color import rgb_uv_histogram


@pytest.fixture
def shown():
    """Features with exact times that no decimal number names."""
    features = toys.toy_features(8.0)
    cuts, beats = np.array([100 / 30.0, 6.0]), np.array([[1 / 3, 2 / 3], [5.5, 1.0]])
    scene_cut, pseudo_beats = np.zeros(8, np.int64), np.zeros(8, np.float32)
    scene_cut[[3, 6]], pseudo_beats[[0, 5]] = 1, beats[:, 1]
    return replace(features, scene_cut=scene_cut, pseudo_beats=pseudo_beats, cut_times=cuts, motion_peaks=beats)


RHYTHM = np.linspace(-1, 1, 8, dtype=np.float32) / 3


def through_a_file(sheet, tmp_path):
    return parse_sheet(format_sheet(sheet), tmp_path / "a.cues.csv", Timebase())


def test_an_unedited_sheet_changes_nothing(shown, tmp_path):
    sheet = through_a_file(describe(shown, RHYTHM, "a"), tmp_path)
    assert with_rhythm(direct(shown, sheet, uses_color=True), sheet, [RHYTHM]) is shown
    nothing = {"scene_cut": np.zeros(8, np.int64), "pseudo_beats": np.zeros(8, np.float32)}
    empty = replace(shown, cut_times=np.zeros(0), motion_peaks=np.zeros((0, 2)), **nothing)
    sheet = through_a_file(describe(empty, RHYTHM, "a"), tmp_path)
    assert sheet.decides("cut") and not sheet["cut"]
    assert with_rhythm(direct(empty, sheet, uses_color=True), sheet, [RHYTHM + 1, RHYTHM]) is empty


def test_a_sheet_knows_whether_it_was_edited(shown):
    text = format_sheet(describe(shown, RHYTHM, "a, b", CueSheet([Cue(1, "hit", name='say "x"')])))
    assert not is_edited(text)
    for edited in (text.replace("6,cut", "6.1,cut"), text + "7,hit,,\n", text.replace("x", "y"), "time,kind\n1,hit\n"):
        assert is_edited(edited)


@pytest.mark.parametrize("name", ["a,end,b", "a\u2028b", "two\nlines", 'say "x"'])
def test_a_name_does_not_make_a_sheet_edited(shown, name):
    text = format_sheet(describe(shown, RHYTHM, name, CueSheet([Cue(1, "hit", name=name)])))
    assert not is_edited(text)
    assert is_edited(text.replace("1,hit", "1.5,hit"))


def test_edits_change_what_they_name_and_nothing_else(shown):
    cues = [Cue(2, "rhythm", 4.0), Cue(1.25, "cut"), Cue(7, "beat", 0.5), Cue(3.3, "hit", 0.5, "x"), Cue(6, "hit")]
    sheet = CueSheet(cues)
    directed = with_rhythm(direct(shown, sheet, uses_color=True), sheet, [RHYTHM])
    assert np.flatnonzero(~np.isnan(directed.wanted_rhythm)).tolist() == [2] and directed.wanted_rhythm[2] == 4
    assert np.flatnonzero(directed.scene_cut).tolist() == [1] and directed.cut_times.tolist() == [1.25]
    assert directed.pseudo_beats.tolist() == [0] * 7 + [0.5]
    assert directed.accents.tolist() == [[3.3, 0.5], [6.0, 1.0]]
    np.testing.assert_array_equal(directed.color, shown.color)
    np.testing.assert_array_equal(directed.semantic, shown.semantic)
    assert directed.slice(3, 6).accents.tolist() == [[pytest.approx(0.3), 0.5]]
    assert directed.accent_rows(2).tolist() == [0.0] * 6 + [0.5] + [0.0] * 5 + [1.0] + [0.0] * 3


def test_drawn_rhythm_is_told_by_the_prediction_that_a_row_names(shown, tmp_path):
    sheet = through_a_file(describe(shown, RHYTHM, "a"), tmp_path)
    assert sheet["rhythm"][3].name == "predicted -0.0476"
    assert not dynamics(sheet, RHYTHM + 1).any()  # with another seed the prediction is another
    rows = [replace(cue, value=4.0) if cue.time == 2 else cue for cue in sheet["rhythm"]]
    drawn = sheet.replacing(["rhythm"], rows)
    change = dynamics(drawn, RHYTHM + 1)
    assert np.flatnonzero(change).tolist() == [2] and change[2] == pytest.approx(4 - RHYTHM[2], abs=1e-4)
    followed = np.where(np.arange(8) == 2, 7, RHYTHM + 1)  # raised at a hit
    again = through_a_file(describe(shown, followed, "a", drawn, change), tmp_path)
    assert again["rhythm"][2] == rows[2] and not dynamics(again, RHYTHM)[[0, 1, 3, 4, 5, 6, 7]].any()
    typed = CueSheet([Cue(2, "rhythm", 4.0, "loud"), Cue(3, "rhythm", 1.0, "predicted so")])  # names no prediction
    np.testing.assert_allclose(dynamics(typed, RHYTHM)[2:4], [4 - RHYTHM[2], 1 - RHYTHM[3]], atol=1e-6)


def test_moods_take_their_share_of_a_second(shown, tmp_path):
    Image.fromarray(np.full((8, 8, 3), (255, 0, 0), np.uint8)).save(tmp_path / "red.png")
    for value in ("red", str(tmp_path / "red.png")):
        color = direct(shown, CueSheet([Cue(2.25, "mood", value, stop=4)]), uses_color=True).color
        red = rgb_uv_histogram(np.full((1, 8, 8, 3), (255, 0, 0), np.uint8))[0]
        np.testing.assert_allclose(color[3], red, atol=1e-6)
        np.testing.assert_allclose(color[2], 0.25 * shown.color[2] + 0.75 * red, atol=1e-6)
        np.testing.assert_array_equal(color[[0, 1, 4, 7]], shown.color[[0, 1, 4, 7]])


def test_what_the_model_or_the_video_does_not_allow(shown, tmp_path):
    with pytest.raises(InputError, match="mood 1-2: the model is not conditioned on colour"):
        direct(shown, CueSheet([Cue(1, "mood", "red", stop=2)]), uses_color=False)
    with pytest.raises(InputError, match="hit 9: after the end"):
        direct(shown, CueSheet([Cue(9, "hit")]), uses_color=True)
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="x.png is no image"):
        direct(shown, CueSheet([Cue(1, "mood", str(tmp_path / "x.png"), stop=2)]), uses_color=True)


def test_beats_of_a_sheet_stay_where_the_motion_is_known(shown):
    moving = replace(shown, motion=np.tile([0, 50, 0, 0, 80, 0, 0, 0], 8).astype(np.float32))
    directed = direct(moving, CueSheet([Cue(5.25, "beat", 0.5)]), uses_color=True)
    part = directed.slice(4, 8)
    assert part.pseudo_beats.tolist() == [0, 0.5, 0, 0] and part.motion_peaks.tolist() == [[1.25, 0.5]]
    assert directed.slice(0, 4).pseudo_beats.tolist() == [0, 0, 0, 0]
