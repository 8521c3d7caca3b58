"""`python -m diff_v2m render`: an edited score under its video, and bad input."""

import errno
import os

import mido
import numpy as np
import pytest
import soundfile
from helpers import toys
from helpers.toy_scores import toy_score
from helpers.videos import ffmpeg

from diff_v2m import media
from diff_v2m.__main__ import main
from diff_v2m.generation import render as render_command
from diff_v2m.media.loudness import level
from diff_v2m.score.midi import read_midi, write_midi
from diff_v2m.score.synth import SAMPLE_RATE, render


@pytest.fixture
def place(tmp_path):
    toys.write_video(tmp_path / "a.mp4", 2.5, seed=1)
    write_midi(tmp_path / "a.mid", toy_score())
    return tmp_path


def call(place, *flags) -> int:
    return main(["render", str(place / "a.mid"), "--video", str(place / "a.mp4"), *map(str, flags)])


def pcm(path):
    return soundfile.read(path, dtype="int32", always_2d=True)[0].T.astype(np.int64) >> 8


def test_an_edited_score_plays_under_the_picture(place, caplog):
    score = read_midi(place / "a.mid", 2.5)
    write_midi(place / "a.mid", score.transpose(2))
    assert call(place, "--stems") == 0
    wav = pcm(place / "a_rendered.wav")
    expected = np.asarray(level(render(read_midi(place / "a.mid", 2.5)).mix, SAMPLE_RATE)[0])
    assert wav.shape == (2, round(2.5 * SAMPLE_RATE)) == expected.shape
    assert np.abs(wav / (1 << 23) - expected).max() < 2**-23
    stems = [pcm(place / f"a_rendered.{voice.name}.wav") for voice in score.voices]
    np.testing.assert_array_equal(sum(stems), wav)
    info = media.probe(place / "a_rendered.mp4")
    assert info.duration == pytest.approx(2.5, abs=0.05)
    assert media.read_audio(place / "a_rendered.mp4", 16000, 1).std() > 0.01


def test_a_longer_score_is_cut_with_a_warning(place, caplog):
    assert call(place) == 0
    assert "a.mid lasts 6.0 s, the video 2.5 s: the rest is cut off" in caplog.text


def test_the_sound_of_the_video_is_kept_on_request(place):
    sound = ("-f", "lavfi", "-i", "sine=330:d=2.5", "-i", place / "a.mp4", "-c:v", "copy", "-shortest")
    ffmpeg(*sound, place / "b.mp4")
    assert main(["render", str(place / "a.mid"), "--video", str(place / "b.mp4"), "--video-sound", "mix"]) == 0
    parts = [pcm(place / f"a_rendered.{part}.wav") for part in ("original", "music", "mix")]
    assert all(part.any() for part in parts)
    np.testing.assert_array_equal(parts[0] + parts[1], parts[2])
    assert not list(place.glob(".diff-v2m*"))


def one_line(caplog, status: int, *words: str) -> None:
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert status == 1 and len(errors) == 1 and "\n" not in errors[0]
    assert all(word in errors[0] for word in words), errors


def test_nothing_is_replaced_without_being_asked(place, caplog):
    (place / "a_rendered.wav").write_text("mine")
    one_line(caplog, call(place), "a_rendered.wav", "--overwrite")
    assert (place / "a_rendered.wav").read_text() == "mine" and not (place / "a_rendered.mp4").exists()
    assert call(place, "--overwrite") == 0
    caplog.clear()
    one_line(caplog, call(place, "--output", place / "a.mp4", "--overwrite"), "a.mp4 is an input")


def test_bad_input_is_one_line(place, caplog):
    mido.MidiFile().save(place / "a.mid")
    one_line(caplog, call(place), "a.mid", "holds no notes")
    caplog.clear()
    one_line(caplog, call(place, "--output", place / "a.wav"), "a.wav", ".mp4")
    caplog.clear()
    for below in ("a.mid/x.mp4", "a.mid/further/x.mp4"):
        one_line(caplog, call(place, "--output", place / below), f"--output {place / below}: cannot be written")
        caplog.clear()
    (place / "a.mp4").write_text("no video")
    one_line(caplog, call(place), "a.mp4")


@pytest.mark.parametrize("call_of_the_system", ["tempfile.mkdtemp", "os.replace"])
def test_a_folder_that_cannot_be_written_is_one_line(place, caplog, monkeypatch, call_of_the_system):
    def refused(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x")

    target = place / "out" / "x.mp4"
    monkeypatch.setattr(render_command, "_write", lambda options, folder, name, duration: (folder / name).touch())
    monkeypatch.setattr(call_of_the_system, refused)
    one_line(caplog, call(place, "--output", target), f"--output {target}: cannot be written (Permission denied)")
