"""infer.py with videos that have sound: what is kept of it, what is written, and when a rerun generates again."""

import json

import av
import numpy as np
import pytest
import soundfile
from helpers import sounds, toys

import infer
from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.media.metering import integrated_loudness, true_peak

RATE = sounds.RATE


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    return toys.save_toy_model(tmp_path_factory.mktemp("weights") / "model.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """talk.mp4 with German speech in stereo, and mute.mp4."""
    folder = tmp_path_factory.mktemp("videos")
    speech = np.tile(sounds.talk(5.5, (1.0,)), (2, 1))
    sounds.write_video(folder / "talk.mp4", speech, RATE, "-c:a", "aac", "-metadata:s:a:0", "language=deu")
    toys.write_video(folder / "mute.mp4", 1.5, seed=1)
    return folder


@pytest.fixture
def generate(ckpt, tmp_path, caplog):
    """generate(*arguments) → (exit status, lines of the log); results in tmp_path/output."""

    def run(*arguments):
        caplog.clear()
        where = ["--output_dir", tmp_path / "output", "--feature_cache", tmp_path / "features"]
        given = [*arguments, "--ckpt_path", ckpt, "--device", "cpu", *where]
        status = infer.main([str(argument) for argument in given])
        return status, [record.getMessage() for record in caplog.records]

    with caplog.at_level("INFO", logger="diff_v2m"):
        yield run


def manifest(tmp_path, name="talk"):
    return json.loads((tmp_path / "output" / f"{name}.json").read_text())


@pytest.mark.slow
def test_a_ducked_mix_with_tracks(generate, folder, tmp_path):
    flags = ("--video_sound", "duck", "--tracks", "--target", "web")
    assert generate(folder, *flags)[0] == 0
    output = tmp_path / "output"
    names = [f"talk.{part}.wav" for part in ("music", "original", "mix")]
    music, original, mix = (soundfile.read(output / name, dtype="int32")[0] >> 8 for name in names)
    np.testing.assert_array_equal(music + original, mix)
    assert mix.shape == (round(5.5 * RATE), 2)
    record = manifest(tmp_path)
    assert set(names) < set(record["outputs"])
    assert record["request"]["target"] == -16 and record["mix"]["anchor"] == "speech"
    assert record["mix"]["span_share"] == pytest.approx(3.6 / 5.5, abs=0.05)

    with av.open(str(output / "talk.mp4")) as container, av.open(str(folder / "talk.mp4")) as source:
        tracks = container.streams.audio
        assert [track.metadata["handler_name"] for track in tracks] == ["Mix", "Original", "Music"]
        assert [track.language for track in tracks] == ["deu", "deu", "zxx"]
        assert [bool(track.disposition & av.stream.Disposition.default) for track in tracks] == [True, False, False]
        copied = [bytes(packet) for packet in container.demux(tracks[1]) if packet.size]
        assert copied == [bytes(packet) for packet in source.demux(source.streams.audio[0]) if packet.size]
    heard = media.read_audio(output / "talk.mp4", RATE, 2)
    assert np.corrcoef(heard[0][: len(mix)], mix[: heard.shape[1], 0])[0, 1] > 0.99  # in step with the wav
    assert true_peak(heard) <= -1

    assert (output / "mute.mix.wav").exists() and not (output / "mute.original.wav").exists()
    assert "2 skipped" in generate(folder, *flags)[1][-1]
    status, lines = generate(folder / "talk.mp4")
    assert status == 0 and any("another video_sound; generated again" in line for line in lines)
    assert [line for line in lines if "has sound, which the music replaces" in line] == [
        f"{folder / 'talk.mp4'} has sound, which the music replaces; --video_sound duck or mix keeps it"
    ]
    assert not (output / "talk.mix.wav").exists()


@pytest.mark.slow
def test_nothing_is_said_of_sound_that_is_replaced_on_purpose_or_not_there(generate, folder):
    for arguments in ((folder / "mute.mp4",), (folder / "talk.mp4", "--video_sound", "replace")):
        assert not [line for line in generate(*arguments)[1] if "has sound" in line]


@pytest.mark.slow
def test_an_album_gets_one_gain(generate, folder, tmp_path):
    assert generate(folder, "--album")[0] == 0
    gains = {manifest(tmp_path, name)["loudness"]["gain_db"] for name in ("talk", "mute")}
    assert len(gains) == 1
    both = np.concatenate([soundfile.read(tmp_path / "output" / f"{n}.wav")[0] for n in ("talk", "mute")])
    rate = soundfile.info(tmp_path / "output" / "talk.wav").samplerate
    assert integrated_loudness(np.atleast_2d(both.T), rate) == pytest.approx(-16, abs=0.5)

    (tmp_path / "output" / "mute.wav").unlink()
    assert "2 generated, 0 skipped" in generate(folder, "--album")[1][-1]
    assert "2 skipped" in generate(folder, "--album")[1][-1]
    assert generate(folder, "--album", "--video_sound", "mix")[0] == 0
    assert manifest(tmp_path)["request"]["video_sound"] == "mix" and (tmp_path / "output" / "talk.mix.wav").exists()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["media.open_sound", "prepare", "true_peak"])
def test_a_clip_that_cannot_be_mixed_leaves_the_others_of_its_album(generate, folder, tmp_path, monkeypatch, step):
    def fails_once(*arguments):
        monkeypatch.undo()
        raise InputError("its sound is broken")

    monkeypatch.setattr(f"diff_v2m.generation.album.{step}", fails_once)
    status, lines = generate(folder, "--album", "--video_sound", "duck", "--steps", 2)
    assert status == 1 and "1 generated, 0 skipped, 1 failed" in lines[-1], lines
    assert [line for line in lines if line.startswith("error: ")] == [
        f"error: {folder / 'mute.mp4'}: its sound is broken"
    ]
    assert manifest(tmp_path)["mix"]["anchor"] == "speech" and (tmp_path / "output" / "talk.mix.wav").exists()
    assert not list((tmp_path / "output").glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gap", "3"], "--gap needs --video_sound mix or duck"),
        (["--video_sound", "mix", "--dip", "3"], "--dip needs --video_sound duck"),
        (["--video_sound", "duck", "--gap", "14"], "--gap 14: expected at most --under 12"),
        (["--video_sound", "duck", "--target", "loud"], "argument --target: 'loud': expected r128"),
        (["--album", "--part", "0/2"], "--album: all videos have to be generated in one call"),
    ],
)
def test_flags_without_effect_are_refused(generate, folder, arguments, message, capsys):
    try:
        status, lines = generate(folder, *arguments)
    except SystemExit as stopped:
        status, lines = stopped.code, [capsys.readouterr().err]
    assert status in (1, 2) and message in "\n".join(lines)
