"""infer.py --redo, --extend and --takes on a toy model: what is written, what stays, one line for each error."""

import json
import re
import shutil

import numpy as np
import pytest
import soundfile
from helpers import toys
from helpers.toy_scores import save_toy_score_model
from safetensors.numpy import load_file

import infer


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    return toys.save_toy_model(tmp_path_factory.mktemp("weights") / "model.safetensors")


@pytest.fixture(scope="module")
def first(ckpt, tmp_path_factory):
    """A folder with a.mp4 of 9.3 s and its result in `output`."""
    folder = tmp_path_factory.mktemp("first")
    toys.write_video(folder / "a.mp4", 9.3, seed=1)
    assert call(folder, ckpt)[0] == 0
    return folder


@pytest.fixture
def folder(first, tmp_path):
    shutil.copytree(first, tmp_path / "work")
    return tmp_path / "work"


def call(folder, ckpt, *flags, caplog=None):
    """infer.py on a.mp4: (exit status, error lines)."""
    if caplog is not None:
        caplog.clear()
    arguments = [folder / "a.mp4", "--ckpt_path", ckpt, "--output_dir", folder / "output", "--steps", 3, *flags]
    status = infer.main([*map(str, arguments), "--feature_cache", str(folder / "features"), "--device", "cpu"])
    found = caplog.records if caplog is not None else []
    lines = [record.getMessage() for record in found if record.levelname == "ERROR"]
    return status, [line for line in lines if line.startswith("error: ")]


def samples(folder, name="a"):
    return soundfile.read(folder / "output" / f"{name}.wav", dtype="int32")[0]


def manifest(folder, name="a"):
    return json.loads((folder / "output" / f"{name}.json").read_text())


def test_a_result_keeps_its_latents_and_no_steps(first):
    latents = load_file(first / "output/a.latents.safetensors")["latents"]
    assert latents.dtype == np.float16 and latents.shape[0] == 64
    names = sorted(path.name for path in (first / "output").iterdir())
    assert names == ["a.cues.csv", "a.json", "a.latents.safetensors", "a.mp4", "a.png", "a.wav"]
    assert "a.latents.safetensors" in manifest(first)["outputs"]
    assert len({path.stat().st_mode for path in (first / "output").iterdir()}) == 1  # whoever reads one reads all


def test_redo_changes_the_span_alone_and_a_rerun_keeps_it(folder, ckpt, caplog):
    before = samples(folder)
    assert call(folder, ckpt, "--redo", "0:03-0:06", "--seed", 7) == (0, [])
    after, rate = samples(folder), toys.RATE
    outside = np.r_[0 : 3 * rate, 6 * rate : len(before)]
    np.testing.assert_array_equal(after[outside], before[outside])
    assert (after[round(3.3 * rate) : round(5.7 * rate)] != before[round(3.3 * rate) : round(5.7 * rate)]).mean() > 0.9
    record = manifest(folder)
    (change,) = record["revisions"]
    assert change["spans"] == [[3.0, 6.0]] and len(change["joins"]) == 2 and change["asked"]["seed"] == 7
    assert record["request"]["seed"] == 42
    with caplog.at_level("INFO"):
        for flags in ((), ("--redo", "3-6", "--seed", 7)):
            assert call(folder, ckpt, *flags, caplog=caplog) == (0, [])
            assert "0 generated, 1 skipped" in caplog.text
    np.testing.assert_array_equal(samples(folder), after)
    assert call(folder, ckpt, "--redo", "7-9.3,0-1.5") == (0, [])
    middle = slice(round(1.5 * rate), 7 * rate)
    np.testing.assert_array_equal(samples(folder)[middle], after[middle])
    assert len(manifest(folder)["revisions"]) == 2


@pytest.mark.slow
def test_variations_of_a_span(folder, ckpt, caplog):
    before = samples(folder)
    assert call(folder, ckpt, "--redo", "3-6", "--variations", 2) == (0, [])
    one, two, rate = samples(folder), samples(folder, "a_v2"), toys.RATE
    for music in (one, two):
        np.testing.assert_array_equal(music[: 3 * rate], before[: 3 * rate])
    assert (one[4 * rate : 5 * rate] != two[4 * rate : 5 * rate]).mean() > 0.9
    assert call(folder, ckpt, "--variations", 3, "--seed", 5) == (0, [])  # three pieces of another seed
    status, errors = call(folder, ckpt, "--redo", "3-6", "--variations", 2, caplog=caplog)
    assert status == 1 and len(errors) == 1 and "a_v2.json is another variation of the whole video" in errors[0]


@pytest.mark.slow
def test_extend(folder, ckpt, caplog):
    before = samples(folder)
    with caplog.at_level("INFO"):
        assert call(folder, ckpt, "--extend", caplog=caplog) == (0, [])
        assert "a.mp4 is as long as its earlier result; skipped" in caplog.text
    toys.write_video(folder / "a.mp4", 12.0, seed=1)
    assert call(folder, ckpt, "--extend") == (0, [])
    after, rate = samples(folder), toys.RATE
    assert len(after) == 12 * rate
    np.testing.assert_array_equal(after[: 3 * rate], before[: 3 * rate])
    sheet = (folder / "output/a.cues.csv").read_text()
    assert re.search(r"^10,cut", sheet, re.M), sheet  # of the part that was gained
    with caplog.at_level("INFO"):
        for flags in ((), ("--extend",)):
            assert call(folder, ckpt, *flags, caplog=caplog) == (0, []) and "1 skipped" in caplog.text


@pytest.mark.slow
def test_extend_refuses_another_video(folder, ckpt, caplog):
    before = samples(folder)
    toys.write_video(folder / "a.mp4", 12.0, seed=1, fps=25)  # it moves faster, with other cuts
    status, errors = call(folder, ckpt, "--extend", caplog=caplog)
    assert status == 1 and len(errors) == 1 and "begins otherwise than" in errors[0] and "\n" not in errors[0]
    np.testing.assert_array_equal(samples(folder), before)


@pytest.mark.slow
def test_the_best_take_is_kept_with_the_scores_of_all(tmp_path, ckpt, caplog):
    toys.write_video(tmp_path / "a.mp4", 2.5, seed=1)
    with caplog.at_level("INFO"):
        assert call(tmp_path, ckpt, "--takes", 3, "--keep", 2, caplog=caplog) == (0, [])
    assert "takes, best first" in caplog.text
    first, second = manifest(tmp_path)["takes"], manifest(tmp_path, "a_v2")["takes"]
    totals = {score["take"]: score["total"] for score in first["scores"]}
    assert sorted(totals) == [1, 2, 3] and first["scores"] == second["scores"]
    assert [first["kept"], second["kept"]] == sorted(totals, key=lambda take: -totals[take])[:2]
    best, alone = samples(tmp_path), tmp_path / "alone"
    assert call(tmp_path, ckpt, "--variations", first["kept"], "--output_dir", alone) == (0, [])
    name = "a" if first["kept"] == 1 else f"a_v{first['kept']}"
    np.testing.assert_allclose(best, soundfile.read(alone / f"{name}.wav", dtype="int32")[0], atol=2**16)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--redo", "12-20"], "span 0:12-0:20 is outside the video, which lasts 0:09.3"),
        (["--redo", "2-5,4-6"], "spans 0:02-0:05 and 0:04-0:06 overlap"),
        (["--redo", "5-3"], "too short"),
    ],
)
def test_spans_that_cannot_be_composed_again(folder, ckpt, caplog, flags, message):
    status, errors = call(folder, ckpt, *flags, caplog=caplog)
    assert status == 1 and len(errors) == 1 and message in errors[0] and "\n" not in errors[0]


def test_results_that_cannot_be_changed(folder, ckpt, caplog, tmp_path):
    def fails(message, *flags, weights=ckpt):
        status, errors = call(folder, weights, "--redo", "3-6", *flags, caplog=caplog)
        assert status == 1 and len(errors) == 1 and message in errors[0], errors

    fails("no earlier result", "--output_dir", tmp_path / "empty")
    fails("latents of another autoencoder", weights=save_toy_score_model(tmp_path / "score.safetensors"))
    latents = folder / "output/a.latents.safetensors"
    latents.write_bytes(latents.read_bytes()[:200])
    fails("a.latents.safetensors: cannot be read")
    toys.write_video(folder / "a.mp4", 9.3, seed=9)
    fails("is of another video")


@pytest.mark.parametrize(
    "flags",
    [
        ["--redo", "soon"],
        ["--redo", "1-2-3"],
        ["--redo", "3-6", "--extend"],
        ["--takes", "2", "--keep", "3"],
        ["--takes", "2", "--variations", "2"],
        ["--takes", "2", "--redo", "3-6"],
    ],
)
def test_flags_that_do_not_go_together(first, ckpt, flags, capsys):
    with pytest.raises(SystemExit) as caught:
        call(first, ckpt, *flags)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.startswith("infer.py: ") and error.count("\n") == 1


@pytest.mark.slow
def test_stems_of_a_changed_score_still_add_up(tmp_path):
    weights = save_toy_score_model(tmp_path / "model.safetensors")
    toys.write_video(tmp_path / "a.mp4", 3.5, seed=1)
    assert call(tmp_path, weights, "--stems") == (0, [])
    before = samples(tmp_path)
    assert call(tmp_path, weights, "--redo", "1-2.5", "--seed", 3) == (0, [])
    after = samples(tmp_path)
    np.testing.assert_array_equal(after[:44100], before[:44100])
    stems = [name for name in manifest(tmp_path)["outputs"] if name.endswith(".wav") and name.count(".") == 2]
    total = sum(soundfile.read(tmp_path / "output" / name, dtype="int32")[0].astype(np.int64) for name in stems)
    assert len(stems) > 1
    np.testing.assert_array_equal(total, after)
