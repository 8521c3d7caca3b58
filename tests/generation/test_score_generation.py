"""Generation with a model that writes scores: MIDI, stems, manifest, windows, bad input."""

import json
import sys

import numpy as np
import pytest
import soundfile
from helpers import toys
from helpers.toy_scores import save_toy_score_model, toy_score

import infer
from diff_v2m.generation.extras import summing
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.media.loudness import level
from diff_v2m.score import synth
from diff_v2m.score.midi import read_midi
from diff_v2m.score.synth import SAMPLE_RATE, render


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    return save_toy_score_model(tmp_path_factory.mktemp("weights") / "model.safetensors")


@pytest.fixture(scope="module")
def model(ckpt):
    return DiffV2M.from_pretrained(ckpt, device="cpu")


@pytest.fixture
def generate(ckpt, tmp_path, caplog):
    """generate(*flags) → (exit status, error lines); results in tmp_path/output."""
    video = toys.write_video(tmp_path / "a.mp4", 2.5, seed=1)

    def run(*flags, weights=ckpt):
        caplog.clear()
        arguments = [video, "--ckpt_path", weights, "--output-dir", tmp_path / "output", "--steps", 2, *flags]
        status = infer.main([*map(str, arguments), "--feature-cache", "none", "--device", "cpu"])
        return status, [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]

    return run


def test_a_composition_has_a_score_that_sounds_as_its_audio(model):
    music = model.compose([toys.toy_features(2.5)], ["a"], steps=2)[0]
    assert music.audio.shape == (2, round(2.5 * SAMPLE_RATE)) and music.score.note_count > 0
    assert music.score.duration == 2.5
    np.testing.assert_array_equal(render(music.score).mix, music.audio)
    np.testing.assert_allclose(sum(music.stems().values()), music.audio, atol=2.5e-7)


def test_a_long_video_is_one_score(model):
    music = model.compose([toys.toy_features(9.3)], ["a"], steps=2)[0]
    assert len(music.windows) > 1 and music.score.duration == pytest.approx(9.3)
    assert music.score.onsets().max() > 6 and music.audio.shape[1] == round(9.3 * SAMPLE_RATE)
    whole = model.compose([toys.toy_features(9.3)], ["a"], steps=2, decode_chunk=1.0)[0]
    assert whole.score.note_count == music.score.note_count


def test_files_beside_the_mp4(generate, tmp_path):
    assert generate() == (0, [])
    made = sorted(path.name for path in (tmp_path / "output").iterdir())
    assert made == ["a.cues.csv", "a.json", "a.latents.safetensors", "a.mid", "a.mp4", "a.png", "a.wav"]
    record = json.loads((tmp_path / "output/a.json").read_text())
    assert "a.mid" in record["outputs"] and record["score"]["tempo_map"] and "key" in record["score"]
    score = read_midi(tmp_path / "output/a.mid")
    assert score.note_count == sum(record["score"]["notes"].values()) and str(score.key) == record["score"]["key"]
    before = (tmp_path / "output/a.mid").stat().st_mtime_ns
    assert generate() == (0, []) and (tmp_path / "output/a.mid").stat().st_mtime_ns == before


def test_stems_add_up_to_the_music_in_every_sample(generate, tmp_path):
    assert generate("--stems") == (0, [])
    folder = tmp_path / "output"
    music, _ = soundfile.read(folder / "a.wav", dtype="int32")
    written = json.loads((folder / "a.json").read_text())["outputs"]
    names = [name for name in written if name.endswith(".wav") and name != "a.wav"]
    assert len(names) > 1 and music.any()
    total = sum(soundfile.read(folder / name, dtype="int32")[0].astype(np.int64) for name in names)
    np.testing.assert_array_equal(total, music)
    assert generate("--seed", 2) == (0, [])  # files that the new result lacks are removed
    assert sorted(path.name for path in folder.iterdir()) == [
        "a.cues.csv",
        "a.json",
        "a.latents.safetensors",
        "a.mid",
        "a.mp4",
        "a.png",
        "a.wav",
    ]


@pytest.mark.slow
def test_stems_outside_a_span_stay_in_every_variation(generate, tmp_path):
    """The first variation replaces the files that the second one starts from."""
    assert generate("--stems", "--normalize", "none") == (0, [])
    folder = tmp_path / "output"

    def ends() -> dict[str, np.ndarray]:
        return {path.name: soundfile.read(path)[0][-SAMPLE_RATE // 2 :] for path in sorted(folder.glob("a.*.wav"))}

    before = ends()
    assert generate("--redo", "0-1.5", "--seed", 5, "--variations", 2, "--normalize", "none") == (0, [])
    for name, end in before.items():
        for made in (name, name.replace("a.", "a_v2.", 1)):
            np.testing.assert_allclose(soundfile.read(folder / made)[0][-SAMPLE_RATE // 2 :], end, atol=3e-7)


def test_stems_follow_the_limiter():
    rendering = render(toy_score(4.0))
    peaks = np.ones(rendering.mix.shape[1], np.float32)
    peaks[SAMPLE_RATE : SAMPLE_RATE + 2000] = 12  # a short accent far above the rest
    loud = {name: stem * peaks for name, stem in rendering.stems.items()}
    levelled, report = level(rendering.mix * peaks, SAMPLE_RATE, "lufs")
    finished, gain = np.asarray(levelled), levelled.gain(0, levelled.shape[1])
    assert report.limited_db > 0 and np.ptp(gain) > 0
    np.testing.assert_allclose(rendering.mix * peaks * gain, finished, atol=1e-6)
    stems = {name: stem[:, :] for name, stem in summing(loud, levelled).items()}
    assert np.abs(sum(stems.values()) - finished).max() < 2e-7
    assert all(np.abs(stems[name] - stem * gain).max() < 1e-5 for name, stem in loud.items())


def test_a_file_of_another_origin_is_not_replaced(generate, tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output/a.mid").write_text("mine")
    status, errors = generate()
    assert status == 1 and len(errors) == 1 and "a.mid exists and no json names it" in errors[0]
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["a.mid"]
    assert generate("--overwrite") == (0, []) and read_midi(tmp_path / "output/a.mid").note_count


def test_stems_of_a_model_without_voices(generate, tmp_path):
    weights = toys.save_toy_model(tmp_path / "audio.safetensors")
    status, errors = generate("--stems", weights=weights)
    assert status == 1 and "--stems: this model writes no separate voices" in errors[-1]


def test_a_missing_synthesiser_is_one_line(generate, monkeypatch):
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    synth._player.cache_clear()
    status, errors = generate()
    assert status == 1 and len(errors) == 1 and "tinysoundfont is missing" in errors[0]


def test_a_broken_soundfont_is_one_line(generate, monkeypatch, tmp_path):
    broken = tmp_path / "broken.sf3"
    broken.write_bytes(b"RIFF")
    monkeypatch.setattr(synth, "render", lambda score, scratch: render(score, broken))
    status, errors = generate()
    assert status == 1 and len(errors) == 1 and "broken.sf3" in errors[0] and "\n" not in errors[0]
