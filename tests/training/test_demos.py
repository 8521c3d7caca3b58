"""Demos and loggers, and that they do not change training."""

import json
import os
import signal
from pathlib import Path

import pytest
import soundfile
import torch
from helpers.toys import WINDOW, write_video
from helpers.training_toys import checkpoint, logged, make_place, raw_config, run

import diff_v2m.training.demos
import diff_v2m.training.music_metrics
from diff_v2m.config import parse_model_config
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.training.diffusion_module import DiffusionModule

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A data set with a video for c0; shown.json generates for two clips every second step, hidden.json does not."""
    root = make_place(tmp_path_factory.mktemp("demos"))
    data = json.loads((root / "data.json").read_text())
    data["datasets"][0]["video"] = str(write_video(root / "videos/c0.mp4", WINDOW).parent)
    (root / "data.json").write_text(json.dumps(data))
    for name, every in (("shown", 2), ("hidden", 0)):
        raw = raw_config()
        raw["training"]["log_loss_info"] = True
        raw["training"]["demo"] = {"demo_every": every, "demo_steps": 2, "num_demos": 2, "demo_cfg_scales": [1, 3]}
        raw["training"]["metrics"] = {"every": every, "clips": 2, "steps": 2} if every else None
        (root / f"{name}.json").write_text(json.dumps(raw))
    return root


@pytest.fixture(scope="module")
def hidden(place, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "hidden"
    return run(place, folder, "--model-config", place / "hidden.json", "--max-steps", 5)


@pytest.fixture(scope="module")
def shown(place, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "shown"
    return run(place, folder, "--model-config", place / "shown.json", "--max-steps", 5)


def test_demos_are_files_of_the_same_clips_and_training_does_not_notice(hidden, shown):
    steps = sorted((shown / "generated_demo").iterdir())
    assert [step.name for step in steps] == ["step_0000002", "step_0000004"]
    for step in steps:
        names = {path.name for path in step.iterdir()}
        assert names == {
            f"{clip}_cfg{scale}.{kind}"
            for clip in ("c0", "c1")
            for scale in (1, 3)
            for kind in ("wav", "png", "mp4")
            if (clip, kind) != ("c1", "mp4")
        }
        assert soundfile.info(step / "c0_cfg3.wav").duration == pytest.approx(WINDOW, abs=0.01)
    assert (steps[0] / "c0_cfg3.wav").read_bytes() != (steps[1] / "c0_cfg3.wav").read_bytes()
    for column in ("train/loss", "train/grad_norm"):
        assert logged(shown, column) == logged(hidden, column)


def test_music_metrics_are_logged_at_their_steps(shown):
    """For both clips. Only c0 has a video and cuts. The toy model's output is noise without defects."""
    music = {
        name: logged(shown, f"music/{name}")
        for name in (
            "rhythm_r_predicted",
            "rhythm_r_true",
            "rhythm_r_wrong",
            "cuts_hit",
            "cuts_hit_by_chance",
            "pulse",
            "silence",
            "clipping",
            "lufs",
            "bandwidth",
            "noisiness",
        )
    }
    for name, values in music.items():
        assert list(values) == [1, 3], name  # the second and the fourth step
    for name in ("rhythm_r_predicted", "rhythm_r_true", "rhythm_r_wrong"):
        assert all(-1 <= value <= 1 for value in music[name].values())
    assert all(0 <= value <= 1 for name in ("cuts_hit", "cuts_hit_by_chance") for value in music[name].values())
    assert music["lufs"][1] != music["lufs"][3] and all(value < 0 for value in music["lufs"].values())


def test_a_failure_is_logged_and_training_continues(place, hidden, tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr(diff_v2m.training.demos, "draw", full)
    monkeypatch.setattr(diff_v2m.training.music_metrics, "measure", full)
    folder = run(place, tmp_path / "run", "--model-config", place / "shown.json", "--max-steps", 5)
    assert "step 2: no demos" in caplog.text and "no space" in caplog.text
    assert "step 4: no music metrics" in caplog.text
    assert logged(folder) == logged(hidden) and (folder / "model.safetensors").exists()


def test_no_demo_starts_after_a_stop_signal(place, tmp_path, monkeypatch):
    def show(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(diff_v2m.training.demos, "_show", show)
    with pytest.raises(SystemExit):
        run(place, tmp_path / "run", "--model-config", place / "shown.json", "--max-steps", 5)
    wavs = {path.name for path in (tmp_path / "run/generated_demo/step_0000002").glob("*.wav")}
    assert wavs == {"c0_cfg1.wav", "c1_cfg1.wav"} and not logged(tmp_path / "run", "music/lufs")
    assert checkpoint(tmp_path / "run")["global_step"] == 2


def test_what_is_logged(hidden):
    for column in ("train/rhythm_correlation", "train/clips_per_second", "train/grad_norm"):
        assert len(logged(hidden, column)) == 5, column
    assert all(-1 <= value <= 1 for value in logged(hidden, "train/rhythm_correlation").values())
    buckets = [logged(hidden, f"train/mse_t{t}") for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
    for step, loss in logged(hidden, "train/mse_loss").items():  # two clips: in one bucket or two
        values = [bucket[step] for bucket in buckets if step in bucket]
        assert len(values) in (1, 2) and sum(values) / len(values) == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["tensorboard", "wandb", "none"])
def test_loggers(place, tmp_path, monkeypatch, logger):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = run(place, tmp_path / "run", "--model-config", place / "shown.json", "--max-steps", 2, "--logger", logger)
    assert (folder / "generated_demo/step_0000002/c0_cfg3.png").exists()
    patterns = {"tensorboard": "logs/*/events*", "wandb": "wandb/offline-run-*/*.wandb"}
    found = {name: list(folder.glob(pattern)) for name, pattern in patterns.items()}
    assert {name for name, files in found.items() if files} == {logger} - {"none"}
    if logger == "tensorboard":
        content = found["tensorboard"][0].read_bytes()
        assert b"train/loss" in content and b"demo/c0_cfg3" in content


def test_a_demo_in_half_precision_leaves_the_average_alone(place):
    """On a GPU the network is cast for demos; here by hand."""
    module = DiffusionModule(parse_model_config(raw_config()))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with diff_v2m.training.demos._averaged(module, own_network=True) as model:
        DiffV2M(model, module.config, dtype="bf16")
        assert model.model.model.dtype == torch.bfloat16
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(tensor.dtype == before[name].dtype for name, tensor in module.state_dict().items())
