"""infer.py, end to end on a toy model: real videos to files, and one line for each error."""

import inspect
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pyloudnorm
import pytest
import soundfile
from helpers import toys
from helpers.processes import swallow_a_stop

import infer
from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.common.versions import FEATURE_VERSION
from diff_v2m.config import load_dataset_config
from diff_v2m.generation import inputs, manifest, runner, settings
from diff_v2m.generation.inputs import Output
from diff_v2m.generation.manifest import Request, Weights
from diff_v2m.generation.settings import SamplingSettings

KINDS = (".mp4", ".wav", ".png", ".json", ".cues.csv", ".latents.safetensors")


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    return toys.save_toy_model(tmp_path_factory.mktemp("weights") / "model.safetensors")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Copies are cheap, encoding is not."""
    folder = tmp_path_factory.mktemp("videos")
    toys.write_video(folder / "a.mp4", 2.5, seed=1)
    toys.write_video(folder / "b.mp4", 0.3, seed=2)
    return folder


@pytest.fixture
def generate(ckpt, tmp_path, caplog):
    """generate(*arguments) → (exit status, error lines); results in tmp_path/output."""

    def run(*arguments, output="output"):
        caplog.clear()
        status = infer.main(
            [
                *map(str, arguments),
                "--ckpt_path",
                str(ckpt),
                "--output-dir",
                str(tmp_path / output),
                "--device",
                "cpu",
                "--feature-cache",
                str(tmp_path / "features"),
            ]
        )
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        return status, [line for line in errors if line.startswith("error: ")]

    with caplog.at_level("INFO", logger="diff_v2m"):
        yield run


def written(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")} if folder.exists() else set()


def files_of(*names: str) -> set[str]:
    return {f"{name}{kind}" for name in names for kind in KINDS}


def wav(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


# --------------------------------------------------------------------------------------------- what comes out


def test_a_folder_of_videos_becomes_generated_videos(generate, videos, tmp_path):
    assert generate(videos) == (0, [])
    assert written(tmp_path / "output") == files_of("a", "b")
    for name, seconds in (("a", 2.5), ("b", 0.3)):
        path = tmp_path / "output" / f"{name}.wav"
        assert soundfile.info(path).subtype == "PCM_24"
        audio = wav(path)
        assert audio.shape == (1, round(seconds * toys.RATE))
        meter = pyloudnorm.Meter(toys.RATE, block_size=min(0.4, seconds))
        assert meter.integrated_loudness(audio.T.astype(float)) == pytest.approx(-16, abs=0.3)

        video = tmp_path / "output" / f"{name}.mp4"
        assert packets(video) == packets(videos / f"{name}.mp4"), "the picture is the original, packet by packet"
        with av.open(str(video)) as container:
            assert len(container.streams.audio) == 1
            sound = sum(frame.samples for frame in container.decode(audio=0)) / container.streams.audio[0].rate
        assert sound == pytest.approx(seconds, abs=0.05)

    record = json.loads((tmp_path / "output" / "a.json").read_text())
    assert record["request"]["seed"] == 42 and record["steps"] == 20 and record["duration"] == pytest.approx(2.5)
    assert record["config"] == toys.toy_raw_config() and len(record["predicted_rhythm"]) == 3
    assert record["cut_seconds"] == [2] and record["loudness"]["lufs_after"] == pytest.approx(-16, abs=0.1)


@pytest.mark.slow
def test_a_clip_is_the_same_in_any_batch_and_is_generated_once(generate, videos, tmp_path, monkeypatch):
    assert generate(videos, "--variations", 2, "--batch-size", 3)[0] == 0
    assert written(tmp_path / "output") == files_of("a", "a_v2", "b", "b_v2")
    together, second = (wav(tmp_path / "output" / f"{name}.wav") for name in ("b", "b_v2"))
    assert np.abs(together - second).max() > 1e-3
    assert generate(videos / "b.mp4", output="alone")[0] == 0
    np.testing.assert_allclose(wav(tmp_path / "alone" / "b.wav"), together, atol=1e-4)

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "output").iterdir()}
    (tmp_path / "output" / "a_v2.mp4").unlink()
    assert generate(videos, "--variations", 2) == (0, [])
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "output").iterdir()}
    assert {path.name for path in after if before.get(path) != after[path]} == files_of("a_v2")

    monkeypatch.setattr(
        "diff_v2m.generation.pipeline.DiffV2M.from_pretrained", lambda *_, **__: pytest.fail("nothing to do")
    )
    assert generate(videos, "--variations", 2) == (0, [])


def test_samplers_offered_are_those_there_are():
    from diff_v2m.generation.pipeline import DiffV2M
    from diff_v2m.model.diffusion import SAMPLERS

    assert tuple(SAMPLERS) == settings.SAMPLERS
    for name in SAMPLERS:
        assert infer.parse(["--sampler", name]).sampler == name
    args, defaults = infer.parse([]), SamplingSettings()
    assert {name: getattr(args, name) for name in vars(defaults)} == vars(defaults)
    assert inspect.signature(DiffV2M.compose).parameters["settings"].default == defaults


def test_the_json_says_how_it_was_sampled(generate, videos, tmp_path):
    flags = ("--sampler", "ddim", "--guidance-interval", 0.1, 0.9, "--decode-chunk", 1)
    assert generate(videos / "b.mp4", *flags)[0] == 0
    record = json.loads((tmp_path / "output" / "b.json").read_text())
    assert record["sampler"] == "ddim, v-prediction, eta 0" and record["request"]["guidance_interval"] == [0.1, 0.9]
    written = (tmp_path / "output" / "b.wav").stat().st_mtime_ns
    assert generate(videos / "b.mp4", *flags[:-1], 2) == (0, [])  # chunks change nothing, so it is there already
    assert (tmp_path / "output" / "b.wav").stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_video_is_decoded_once_with_and_without_cached_features(generate, videos, tmp_path, monkeypatch):
    passes, isolated = [], media.video.isolated  # each decoding is a process of its own

    def counted(path, decoding):
        if decoding.__qualname__.startswith("iter_views"):  # others look at a few packets only
            passes.append(path.name)
        return isolated(path, decoding)

    monkeypatch.setattr(media.video, "isolated", counted)
    for output in ("first", "cached"):
        passes.clear()
        assert generate(videos / "a.mp4", "--variations", 2, "--steps", 2, output=output) == (0, [])
        assert passes == ["a.mp4"]
    assert (tmp_path / "first" / "a.png").read_bytes() == (tmp_path / "cached" / "a.png").read_bytes()


@pytest.mark.slow
def test_features_are_kept_and_a_video_is_read_once(generate, videos, tmp_path, monkeypatch):
    assert generate(videos / "b.mp4", "--offload") == (0, [])
    first = wav(tmp_path / "output" / "b.wav")
    shutil.copy(videos / "b.mp4", tmp_path / "b.mp4")
    monkeypatch.setattr(
        "diff_v2m.generation.pipeline.DiffV2M.extract_with_thumbnails", lambda *_: pytest.fail("it was read before")
    )
    assert generate(tmp_path / "b.mp4", output="again") == (0, [])
    np.testing.assert_allclose(wav(tmp_path / "again" / "b.wav"), first, atol=1e-4)
    assert infer.parse(["--feature_cache", "none"]).feature_cache is None
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # an account without a home
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert infer.parse([]).feature_cache is None


@pytest.mark.slow
def test_reading_ahead_and_writing_behind_change_nothing(generate, videos, tmp_path, monkeypatch):
    results = []
    for idle in (0, 3):
        monkeypatch.setattr("diff_v2m.generation.pipeline.DiffV2M.idle_cores", idle)
        output = f"with_{idle}"
        (tmp_path / "features").exists() and shutil.rmtree(tmp_path / "features")
        status, errors = generate(
            videos, videos / "gone.mp4", "--batch-size", 2, "--steps", 2, "--variations", 2, output=output
        )
        names = ("a", "a_v2", "b", "b_v2")
        assert status == 1 and len(errors) == 1 and written(tmp_path / output) == files_of(*names)
        results.append([wav(tmp_path / output / f"{name}.wav") for name in names])
    for alone, overlapping in zip(*results, strict=True):
        np.testing.assert_array_equal(overlapping, alone)


@pytest.mark.slow
def test_a_result_that_cannot_be_written_behind_is_reported_and_the_others_are_there(
    generate, videos, tmp_path, monkeypatch
):
    monkeypatch.setattr("diff_v2m.generation.pipeline.DiffV2M.idle_cores", 3)
    (tmp_path / "output" / "a.png" / "in the way").mkdir(parents=True)
    status, errors = generate(videos, "--steps", 2, "--overwrite")
    assert status == 1 and len(errors) == 1 and "a.png" in errors[0]
    assert files_of("b") <= written(tmp_path / "output") and "a.json" not in written(tmp_path / "output")
    assert not [name for name in written(tmp_path / "output") if name.startswith(".")]


@pytest.mark.slow
def test_other_settings_are_generated_again_and_overwrite_makes_it_again(generate, videos, tmp_path):
    result = tmp_path / "output" / "b.wav"
    generate(videos / "b.mp4")
    first, written = wav(result), result.stat().st_mtime_ns
    assert generate(videos / "b.mp4", "--seed", 7) == (0, [])
    assert np.abs(wav(result) - first).max() > 1e-3
    assert generate(videos / "b.mp4", "--overwrite") == (0, [])
    np.testing.assert_allclose(wav(result), first, atol=1e-6)
    assert result.stat().st_mtime_ns > written


@pytest.mark.slow
def test_videos_of_one_name_and_foreign_files_in_the_output(generate, videos, tmp_path):
    for folder, video in (("x", "a.mp4"), ("y", "b.mp4")):
        (tmp_path / folder).mkdir()
        shutil.copy(videos / video, tmp_path / folder / "clip.mp4")
    assert generate(tmp_path / "x", tmp_path / "y")[0] == 0
    assert written(tmp_path / "output") == files_of("x_clip", "y_clip")

    assert generate(tmp_path / "x", output="one")[0] == 0
    kept = wav(tmp_path / "one" / "clip.wav")
    status, errors = generate(tmp_path / "y", output="one")
    assert status == 1 and len(errors) == 1 and "of another video" in errors[0] and "--overwrite" in errors[0]
    np.testing.assert_array_equal(wav(tmp_path / "one" / "clip.wav"), kept)

    status, errors = generate(tmp_path / "y", "--variations", 2, output="one")
    assert status == 1 and len(errors) == 1 and written(tmp_path / "one") == files_of("clip")

    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "clip.mp4").write_bytes(b"somebody's own video")
    status, errors = generate(tmp_path / "x", output="two")
    assert status == 1 and "no json names it" in errors[0]
    assert (tmp_path / "two" / "clip.mp4").read_bytes() == b"somebody's own video"


def test_both_spellings_and_parts(generate, videos, tmp_path):
    assert generate(videos, "--guidance-scale", 2, "--shard", "1/2")[0] == 0
    assert written(tmp_path / "output") == files_of("b")
    assert infer.parse(["--guidance_scale", "2", "--ckpt-path", "x"]) == infer.parse(
        ["--guidance-scale", "2", "--ckpt_path", "x"]
    )
    for wrong in (
        ["--steps", "0"],
        ["--shard", "2/2"],
        ["--guidance_scale", "nan"],
        ["--class_label", "3"],
        ["--sampler", "ab2"],
        ["--guidance_interval", "0.5", "0.1"],
        ["--guidance_interval", "0", "2"],
        ["--decode_chunk", "0"],
    ):
        with pytest.raises(SystemExit):
            infer.parse(wrong)


# ------------------------------------------------------------------------------------------------- data sets


@pytest.fixture
def dataset(tmp_path, videos):
    """Three clips of features as preprocessing writes them; only `a` has its video."""
    root, info = tmp_path / "set", {}
    for name in ("clip", "color", "video"):
        (root / name).mkdir(parents=True)
    shutil.copy(videos / "a.mp4", root / "video" / "a.mp4")
    for number, (name, seconds) in enumerate((("a", 2.5), ("c", 3.0), ("d", 9.0))):
        info[f"{name}.mp4"] = toys.toy_features(seconds, number).save(root, name)
    (root / "videoInfo_30.json").write_text(json.dumps(info))
    (root / "features.json").write_text(json.dumps({"feature_version": FEATURE_VERSION, "encoder": "hog"}))
    entry = {
        "id": "set",
        "video_feat": "clip",
        "video_color": "color",
        "video_info": "videoInfo_30.json",
        "video": "video",
        "class_label": 1,
    }
    path = root / "dataset.json"
    path.write_text(json.dumps({"dataset_type": "audio_video_dir", "datasets": [entry]}))
    return path


@pytest.mark.slow
def test_a_data_set_is_generated_from_its_features_without_any_soundtrack(generate, dataset, tmp_path):
    assert generate("--dataset_config_path", dataset) == (0, [])
    assert written(tmp_path / "output") == files_of("a", "c", "d") - {"c.mp4", "d.mp4"}
    assert wav(tmp_path / "output" / "d.wav").shape[1] == 9 * toys.RATE
    record = json.loads((tmp_path / "output" / "c.json").read_text())
    assert record["request"]["class_label"] == 1 and record["source"] == "set/c"


def test_a_clip_is_made_again_when_its_cuts_or_the_code_for_features_have_changed(generate, dataset, monkeypatch):
    def requests() -> dict[str, dict]:
        clips, _ = inputs.collect([], load_dataset_config(dataset), dataset.parent)
        request = Request(SamplingSettings(), Weights("w", "0", "ema"))
        return {clip.name: request.of(Output(clip)) for clip in clips}

    info = dataset.parent / "videoInfo_30.json"
    before, content = requests(), json.loads(info.read_text())
    content["c.mp4"]["scene_cut"][1] ^= 1
    info.write_text(json.dumps(content))
    after = requests()
    assert {name for name in after if after[name] != before[name]} == {"c"}
    monkeypatch.setattr(manifest, "FEATURE_VERSION", FEATURE_VERSION + 1)
    assert all(request != after[name] for name, request in requests().items())


def test_bad_features_are_named_and_the_rest_is_done(generate, dataset, tmp_path):
    root = dataset.parent
    broken = np.load(root / "clip" / "c.npy")
    broken[1, 3] = np.nan
    np.save(root / "clip" / "c.npy", broken)
    np.save(root / "color" / "d.npy", np.zeros((9, 100), np.float32))
    (root / "video" / "e.mp4").write_bytes(b"")
    status, errors = generate("--dataset_config_path", dataset)
    assert status == 1 and len(errors) == 3
    assert ["NaN" in errors[0], "100" in errors[1], "e" in errors[2]] == [True] * 3
    assert all("clip " in line and "\n" not in line for line in errors)
    assert written(tmp_path / "output") == files_of("a")

    (root / "features.json").write_text(json.dumps({"feature_version": FEATURE_VERSION, "encoder": "clip-vit-x"}))
    status, errors = generate("--dataset_config_path", dataset, output="stale")
    assert status == 1 and "clip-vit-x" in errors[0] and not written(tmp_path / "stale")


@pytest.mark.slow
def test_a_data_set_with_a_folder_that_may_not_be_looked_into_is_a_line_and_the_rest_is_done(
    generate, dataset, videos, tmp_path
):
    content = json.loads(dataset.read_text())
    content["datasets"][0]["video"] = "a" * 300  # to root, who may run the tests, no folder is forbidden
    dataset.write_text(json.dumps(content))
    status, errors = generate("--dataset_config_path", dataset, videos / "b.mp4", "--steps", 2)
    assert status == 1 and len(errors) == 1 and "set: " in errors[0] and "aaa" in errors[0]
    assert written(tmp_path / "output") == files_of("b")


# ------------------------------------------------------------------------------------------------- bad input


def test_bad_inputs_get_a_line_each_and_the_good_one_is_generated(generate, videos, tmp_path):
    folder = tmp_path / "in"
    (folder / "empty").mkdir(parents=True)
    shutil.copy(videos / "b.mp4", folder / "good.mp4")
    (folder / "text.mp4").write_text("not a video")
    (folder / "zero.mp4").write_bytes(b"")
    whole = (videos / "a.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "sub").mkdir()
    (folder / "sub" / "round.mp4").symlink_to("round.mp4")
    status, errors = generate(
        folder / "empty",
        folder / "gone.mp4",
        folder / "loop.mp4",
        folder / "text.mp4",
        folder / "sub",
        f"{'a' * 300}.mp4",
        "--batch_size",
        8,
        folder / "zero.mp4",
        folder / "cut.mp4",
        folder / "good.mp4",
    )
    assert status == 1
    assert len(errors) == 8 and all("\n" not in line for line in errors)
    for name in ("empty", "gone.mp4", "loop.mp4", "text.mp4", "zero.mp4", "cut.mp4", "round.mp4", "aaa.mp4"):
        assert sum(name in line for line in errors) == 1, name
    assert written(tmp_path / "output") == files_of("good")


def test_an_error_shows_the_path_as_it_was_given(generate, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.mp4").write_text("not a video")
    monkeypatch.chdir(tmp_path)
    for given in ("in/text.mp4", "in", "in/gone.mp4"):
        status, errors = generate(given)
        assert status == 1 and len(errors) == 1 and errors[0].startswith("error: in/"), errors


@pytest.mark.slow
def test_a_run_killed_while_moving_its_files_is_made_good_by_the_next(generate, videos, tmp_path, monkeypatch):
    """Killed at every move of two runs; the second run generates again what the first generated."""
    moves, real = [], os.replace

    def replace(made, target):
        if Path(target).parent == tmp_path / "output":
            moves.append(target)
            if len(moves) == stop:
                raise KeyboardInterrupt  # so that nothing is put right by us
        real(made, target)

    monkeypatch.setattr(runner.os, "replace", replace)
    for stop in (2, 1, 4, 0):
        moves.clear()
        status, errors = generate(videos / "b.mp4", "--seed", stop)
        assert (status, errors) == ((130, []) if stop else (0, []))
    assert written(tmp_path / "output") == files_of("b")
    assert json.loads((tmp_path / "output" / "b.json").read_text())["request"]["seed"] == 0


@pytest.mark.slow
def test_a_stop_that_a_library_turned_into_an_error_of_a_clip_stops_all(generate, videos, monkeypatch):
    begun = []
    monkeypatch.setattr(runner.DiffV2M, "compose", lambda *_, **__: swallow_a_stop(begun.append(1)))
    for batch_size in (1, 2):
        assert generate(videos / "a.mp4", videos / "b.mp4", "--batch-size", batch_size) == (130, [])
    assert len(begun) == 2


@pytest.mark.slow
def test_unusable_checkpoints(videos, tmp_path, caplog):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/owned",)

    other = toys.save_toy_model(tmp_path / "other.safetensors")
    config = toys.toy_raw_config(depth=3)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    (tmp_path / "noise.ckpt").write_bytes(b"\x00noise" * 100)
    cases = {
        "gone.ckpt": ([tmp_path / "gone.ckpt"], "no such weights file"),
        "a long name": ([tmp_path / f"{'a' * 300}.ckpt"], "no such weights file"),
        "evil.ckpt": ([tmp_path / "evil.ckpt"], "evil.ckpt"),
        "noise.ckpt": ([tmp_path / "noise.ckpt"], "noise.ckpt"),
        "other.safetensors": ([other, "--model_config_path", tmp_path / "config.json"], "does not fit"),
    }
    for name, (arguments, said) in cases.items():
        caplog.clear()
        status = infer.main(
            [str(videos / "b.mp4"), "--output_dir", str(tmp_path / "output"), "--ckpt_path", *map(str, arguments)]
        )
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert status == 1 and len(errors) == 1 and said in errors[0] and "\n" not in errors[0], name
    assert not (tmp_path / "owned").exists() and not written(tmp_path / "output")


def test_output_that_cannot_be_written(generate, videos, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    status, errors = generate(videos / "b.mp4", output="taken")
    assert status == 1 and len(errors) == 1 and "taken" in errors[0]


def test_a_full_disk_leaves_no_partial_file(generate, videos, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))  # the wav of `b` fits, its picture does not
    try:
        status, errors = generate(videos)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 1 and len(errors) == 2 and all("\n" not in line for line in errors)
    assert not written(tmp_path / "output")


def test_no_input_and_no_bundled_model(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(infer, "EXAMPLES", tmp_path)
    assert infer.main([]) == 1
    monkeypatch.setattr(infer, "BUNDLED", tmp_path / "absent")
    with pytest.raises(InputError, match="--ckpt_path"):
        infer._bundled()


# ----------------------------------------------------------------------------------------- the process itself


def test_help_imports_nothing_heavy():
    code = (
        "import sys, infer; sys.argv[0] = 'infer.py'\n"
        "try: infer.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'librosa', 'scipy', 'cv2', 'matplotlib', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=infer.ROOT)
    shown = " ".join(done.stdout.split())
    assert shown.startswith("usage: infer.py ") and "--ckpt-path" in shown and "(default: 0 1)" in shown
    assert shown.endswith("[]")


@pytest.mark.slow
def test_a_stopped_run_cleans_up_and_a_killed_one_is_swept(videos, ckpt, tmp_path):
    output = tmp_path / "output"
    command = [
        sys.executable,
        infer.__file__,
        videos / "b.mp4",
        "--ckpt_path",
        ckpt,
        "--output_dir",
        output,
        "--steps",
        "1000000",
        "--sampler",
        "ddim",
        "--device",
        "cpu",
        "--feature_cache",
        "none",
    ]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 240
        while not (folders := [path for path in output.glob(".diff-v2m-*") if path.is_dir()]):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        shutil.copytree(folders[0], output / ".diff-v2m-killed")  # as left by a kill -9, with a lock that nobody holds
        (output / ".diff-v2m-killed.lock").touch()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=240)[1]
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in said and "stopped" in said
    assert infer.main([str(videos / "b.mp4"), "--ckpt_path", str(ckpt), "--output_dir", str(output)]) == 0
    assert written(output) == files_of("b")
