"""DiffV2M with cue sheets, and the command line: what a sheet asks for is in the music, the json and the files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from helpers import toys
from helpers.toy_scores import save_toy_score_model

import infer
from diff_v2m.common.errors import InputError
from diff_v2m.common.scratch import Scratch
from diff_v2m.cues import Cue, CueSheet
from diff_v2m.cues.markers import read_cues
from diff_v2m.cues.table import format_sheet, parse_sheet
from diff_v2m.cues.timebase import Timebase
from diff_v2m.generation.pipeline import DiffV2M


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    return toys.save_toy_model(tmp_path_factory.mktemp("toy") / "model.safetensors")


@pytest.fixture(scope="module")
def model(ckpt):
    return DiffV2M.from_pretrained(ckpt, device="cpu")


@pytest.fixture(scope="module")
def score_model(tmp_path_factory):
    return DiffV2M.from_pretrained(save_toy_score_model(tmp_path_factory.mktemp("s") / "model.safetensors"))


@pytest.fixture(scope="module", params=["audio", "score"])
def any_model(request):
    return request.getfixturevalue("model" if request.param == "audio" else "score_model")


def compose(model, features, sheet=None, **options):
    return model.compose([features], ["a"], sheets=[sheet], **({"steps": 2} | options))[0]


@pytest.mark.slow
def test_an_unedited_sheet_gives_the_same_music(any_model, tmp_path):
    check_unedited(any_model, toys.toy_features(3.6), tmp_path)


def test_an_unedited_sheet_of_a_long_video_gives_the_same_music(model, tmp_path):
    check_unedited(model, toys.toy_features(9.3), tmp_path)


def check_unedited(model, features, folder):
    plain = compose(model, features)
    assert format_sheet(model.cue_sheet(features, "a")) == format_sheet(plain.sheet)
    sheet = parse_sheet(format_sheet(plain.sheet), folder / "a.cues.csv", Timebase())
    again = compose(model, features, sheet)
    np.testing.assert_array_equal(again.audio, plain.audio)
    assert again.sheet == plain.sheet


def test_rhythm_is_what_the_sheet_says_and_raised_at_hits(model):
    features = toys.toy_features(4.0)
    plain = compose(model, features).rhythm
    edited = compose(model, features, CueSheet([Cue(2, "rhythm", 5.0)]))
    np.testing.assert_allclose(edited.rhythm, [plain[0], plain[1], 5.0, plain[3]], atol=1e-5)
    lowest = int(plain.argmin())
    raised = compose(model, features, CueSheet([Cue(lowest + 0.5, "hit")])).rhythm
    assert raised[lowest] == pytest.approx(plain.max(), abs=1e-5)
    half = compose(model, features, CueSheet([Cue(lowest + 0.5, "hit", 0.5)])).rhythm
    assert half[lowest] == pytest.approx((plain.max() + plain.min()) / 2, abs=1e-5)
    sheet = compose(model, features, CueSheet([Cue(2, "rhythm", 5.0), Cue(1.5, "hit", name="x")])).sheet
    assert sheet["rhythm"][2].value == 5.0 and sheet["hit"][0].name == "x"


@pytest.mark.slow
def test_notes_follow_a_drawn_rhythm(score_model):
    features = toys.toy_features(4.0)
    plain = compose(score_model, features)
    loud, soft = (
        compose(score_model, features, CueSheet([Cue(2, "rhythm", plain.rhythm[2] + change)])) for change in (2, -2)
    )
    drawn = {name: velocities(made) for name, made in (("loud", loud), ("soft", soft))}
    assert drawn["loud"][2] > 1.3 * drawn["soft"][2]
    assert drawn["loud"][0] == pytest.approx(drawn["soft"][0], rel=0.1)
    np.testing.assert_allclose(sum(loud.stems().values()), loud.audio, atol=1e-6)


@pytest.mark.slow
def test_the_sheet_of_a_result_gives_its_music_again(score_model):
    features = toys.toy_features(4.0)
    rhythm, hit = Cue(2, "rhythm", -1.0), Cue(2.4, "hit")
    for cues in ([rhythm], [hit], [rhythm, hit]):
        made = compose(score_model, features, CueSheet(cues))
        again = compose(score_model, features, made.sheet)
        assert again.sheet == made.sheet and velocities(again) == velocities(made)
        np.testing.assert_array_equal(again.audio, made.audio)


def velocities(made):
    """(4,) mean velocity of the notes that begin in each second."""
    notes = np.concatenate([voice.notes for voice in made.score.voices])
    return [notes["velocity"][notes["start"].astype(int) == second].mean() for second in range(4)]


@pytest.mark.slow
def test_silences_are_silent_and_voices_add_up(any_model):
    features = toys.toy_features(4.0)
    sheet = CueSheet([Cue(1.5, "silence", "0.25 0.1", stop=2.25)])
    music, plain = compose(any_model, features, sheet), compose(any_model, features)
    rate = any_model.config.sample_rate
    assert not music.audio[:, round(1.5 * rate) : round(2.25 * rate)].any()
    np.testing.assert_allclose(music.audio[:, : rate // 2], plain.audio[:, : rate // 2], atol=1e-6)
    assert np.abs(music.audio[:, round(2.4 * rate) :]).max() > 0
    if stems := music.stems():
        np.testing.assert_allclose(sum(stems.values()), music.audio, atol=1e-6)


@pytest.mark.slow
def test_hits_are_reported_with_the_music(any_model):
    features = toys.toy_features(4.0)
    music = compose(any_model, features, CueSheet([Cue(1.3, "hit", name="door"), Cue(3.1, "hit")]))
    assert [(hit.wanted, hit.name) for hit in music.hits] == [(1.3, "door"), (3.1, "")]
    assert music.audio.shape[1] == round(4.0 * any_model.config.sample_rate)
    again = compose(any_model, features, CueSheet([Cue(1.3, "hit", name="door"), Cue(3.1, "hit")]))
    np.testing.assert_array_equal(again.audio, music.audio)


@pytest.mark.slow
def test_sound_that_lies_in_files_is_the_same(any_model, monkeypatch, tmp_path):
    features, sheet = toys.toy_features(5.0), CueSheet([Cue(1.3, "hit"), Cue(2.0, "silence", "0.1 0.1", stop=2.5)])
    music = compose(any_model, features, sheet)
    monkeypatch.setattr(any_model.memory, "scratch", Scratch(tmp_path, in_memory=0))
    again = compose(any_model, features, sheet)
    assert again.audio.base is not None and not list(tmp_path.iterdir())
    np.testing.assert_array_equal(again.audio, music.audio)
    for voice, stem in again.stems().items():
        np.testing.assert_array_equal(stem, music.stems()[voice])


def test_cuts_moods_and_sheets_of_other_videos(model):
    features = toys.toy_features(4.0)
    for cue in (Cue(1, "mood", "red", stop=3), Cue(2.5, "cut"), Cue(2, "beat", 1.0)):
        assert np.abs(compose(model, features, CueSheet([cue])).audio - compose(model, features).audio).max() > 1e-6
    other = CueSheet([Cue(9.0, "end", name="b")])
    with pytest.raises(InputError, match=r"end 9: the sheet is of a video of 9.00 s \(b\), this one has 4.00 s"):
        compose(model, features, other)


def test_a_span_is_composed_again_to_another_sheet(model):
    features = toys.toy_features(4.0)
    old = compose(model, features)
    sheet = CueSheet([Cue(2, "rhythm", 5.0), Cue(2.2, "hit")])
    new = model.redo(old, features, "a", [(1.5, 3.5)], steps=2, sheet=sheet)
    assert np.abs(new.audio - old.audio).max() > 1e-6 and new.hits[0].wanted == 2.2
    rate = model.config.sample_rate
    np.testing.assert_array_equal(new.audio[:, : rate // 2], old.audio[:, : rate // 2])
    extended = replace(features, duration=4.0)
    assert len(model.redo(old, extended, "a", [(1.5, 3.5)], steps=2).hits) == 0


# ------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def generate(ckpt, tmp_path, caplog):
    """generate(*flags) → (exit status, messages); one video of 3.4 s, results in tmp_path/output."""
    video = toys.write_video(tmp_path / "a.mp4", 3.4, seed=1)

    def run(*flags, videos=(video,)):
        caplog.clear()
        arguments = [*videos, "--ckpt_path", ckpt, "--output_dir", tmp_path / "output", "--steps", 2, *flags]
        status = infer.main([*map(str, arguments), "--feature-cache", str(tmp_path / "cache"), "--device", "cpu"])
        return status, "\n".join(record.getMessage() for record in caplog.records)

    with caplog.at_level("INFO", logger="diff_v2m"):
        yield run


@pytest.mark.slow
def test_a_sheet_is_written_edited_and_composed_to(generate, tmp_path):
    sheet = tmp_path / "output" / "a.cues.csv"
    assert generate("--write_sheet")[0] == 0
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["a.cues.csv"]
    status, said = generate("--write_sheet")
    assert status == 0 and "exists; skipped" in said
    text = sheet.read_text() + "1.3,hit,,door\n2.0-2.5,silence,0.1,\n"
    sheet.write_text(text)

    status, said = generate()
    assert status == 1 and f"{sheet} was edited; compose to it with --sheet" in said
    assert generate("--sheet", sheet)[0] == 0
    assert sheet.read_text() == text  # it stays the person's
    record = json.loads((tmp_path / "output" / "a.json").read_text())
    assert "a.cues.csv" in record["outputs"] and record["request"]["sheet"]
    assert record["hits"][0].keys() == {"wanted", "achieved", "stretch", "added", "name", "landed"}
    audio, rate = soundfile.read(tmp_path / "output" / "a.wav")
    assert not audio[2 * rate : round(2.5 * rate)].any()
    assert "skipped" in generate("--sheet", sheet)[1]

    sheet.write_text(text.replace("door", "window"))
    assert "has another sheet; generated again" in generate("--sheet", sheet)[1]


@pytest.mark.slow
def test_sheets_of_an_album_are_written_where_they_are_missing(generate, tmp_path):
    videos = [toys.write_video(tmp_path / f"{name}.mp4", 2.4, seed=1) for name in "ab"]
    assert generate("--write_sheet", videos=videos[:1])[0] == 0
    edited = tmp_path / "output" / "a.cues.csv"
    edited.write_text(text := edited.read_text() + "1.3,hit,,door\n")
    assert generate("--write_sheet", "--album", videos=videos)[0] == 0
    assert edited.read_text() == text and (tmp_path / "output" / "b.cues.csv").exists()


@pytest.mark.slow
def test_every_result_has_its_sheet_and_keeps_it_without_edits(generate, tmp_path):
    assert generate()[0] == 0
    sheet = read_cues(tmp_path / "output" / "a.cues.csv", Timebase())
    assert len(sheet["rhythm"]) == 4 and sheet["end"][0].name == "a"
    (tmp_path / "new.srt").write_text("1\n00:00:01,300 --> 00:00:01,800\ndoor\n")
    assert generate("--sheet", tmp_path / "new.srt")[0] == 0
    assert read_cues(tmp_path / "output" / "a.cues.csv", Timebase())["hit"][0].name == "door"
    assert "another sheet" in generate()[1]  # and back
    assert not read_cues(tmp_path / "output" / "a.cues.csv", Timebase())["hit"]


@pytest.mark.slow
def test_markers_with_timecodes_use_the_frame_rate_of_the_video(generate, tmp_path):
    event = "001  001      V     C        01:00:01:05 01:00:01:06 01:00:01:05 01:00:01:06\n |C:Blue |M:door |D:1\n"
    (tmp_path / "reel.edl").write_text(f"TITLE: a\nFCM: NON-DROP FRAME\n\n{event}")
    assert generate("--sheet", tmp_path / "reel.edl")[0] == 0  # the video has 10 frames a second
    assert json.loads((tmp_path / "output" / "a.json").read_text())["hits"][0]["wanted"] == pytest.approx(1.5)
    flags = ("--fps", "25", "--timecode_start", "01:00:00:00")
    assert generate("--sheet", tmp_path / "reel.edl", *flags)[0] == 0
    assert json.loads((tmp_path / "output" / "a.json").read_text())["hits"][0]["wanted"] == pytest.approx(1.2)
    status, said = generate("--sheet", tmp_path / "reel.edl", "--timecode_start", "01:00:00:10")
    assert status == 1 and "--timecode_start: '01:00:00:10' is no timecode at 10 frames a second" in said


@pytest.mark.slow
def test_a_folder_of_sheets_and_a_bad_one_that_stops_only_its_video(generate, tmp_path):
    good = toys.write_video(tmp_path / "b.mp4", 2.2, seed=2)
    folder = tmp_path / "sheets"
    folder.mkdir()
    (folder / "a.cues.csv").write_text("time,kind,value,name\n2,hit,,\n1,hit,,\n")
    (folder / "b.cues.csv").write_text("time,kind,value,name\n1,hit,,\n")
    status, said = generate("--sheet", folder, videos=(tmp_path / "a.mp4", good))
    assert status == 1 and f"{folder / 'a.cues.csv'}: line 3: hit 1: unsorted" in said
    assert (tmp_path / "output" / "b.json").exists() and not (tmp_path / "output" / "a.json").exists()


@pytest.mark.parametrize(
    "sheet, message",
    [
        (None, "no such file or folder"),
        ("time,kind,value,name\n9,hit,,\n", "line 2: hit 9: after the end of the video, which has 3.40 s"),
        ("time,kind,value,name\n30,end,,film\n", r"line 2: end 30: the sheet is of a video of 30.00 s (film)"),
        ("time,kind,value,name\n00:00:01:10,hit,,\n", "line 2: '00:00:01:10' is no timecode at 10 frames a second"),
    ],
)
def test_a_bad_sheet_is_one_line_and_leaves_nothing(generate, tmp_path, sheet, message):
    path = tmp_path / "x.cues.csv"
    if sheet is not None:
        path.write_text(sheet)
    status, said = generate("--sheet", path)
    assert status == 1 and message in said and "Traceback" not in said
    assert not list((tmp_path / "output").glob("a.*"))


def test_one_sheet_is_for_one_video(generate, tmp_path):
    (tmp_path / "x.cues.csv").write_text("time,kind,value,name\n1,hit,,\n")
    other = toys.write_video(tmp_path / "b.mp4", 0.5, seed=2)
    status, said = generate("--sheet", tmp_path / "x.cues.csv", videos=(tmp_path / "a.mp4", other))
    assert status == 1 and "one sheet for 2 videos" in said
    (tmp_path / "none").mkdir()
    assert "has a sheet of no video" in generate("--sheet", tmp_path / "none")[1]
