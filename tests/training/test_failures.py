"""Failures of a long run: a NaN loss, no clips, a full disk, a name that is taken."""

import contextlib
import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training_toys import breaks, checkpoint, logged, make_place, raw_config, run

from diff_v2m.common.errors import InputError


@pytest.fixture
def place(tmp_path) -> Path:
    return make_place(tmp_path / "place")


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_bad_clip_is_named_and_no_broken_weights_are_saved(place, tmp_path, log_every):
    """Semantics that are finite, but overflow when they are standardised. Asked about when logged, or when saved."""
    features = place / "set/clip/c3.npy"
    np.save(features, np.full_like(np.load(features), 3e38))
    with pytest.raises(InputError, match=r"the loss is NaN or infinite in step \d \(clips: c3\); ") as caught:
        run(
            place,
            tmp_path / "run",
            "--batch-size",
            1,
            "--max-epochs",
            2,
            "--log-every",
            log_every,
            "--checkpoint-every",
            1 if log_every > 1 else 2,
        )
    last = tmp_path / "run/checkpoints/last.ckpt"
    step = int(str(caught.value).split(" in step ")[1].split()[0])
    if f"the last good checkpoint is {last}" in str(caught.value):
        content = checkpoint(tmp_path / "run")
        assert content["global_step"] < step
        assert all(torch.isfinite(tensor.float()).all() for tensor in content["state_dict"].values())
    else:
        assert "no checkpoint was saved before" in str(caught.value) and not last.exists()
    assert not (tmp_path / "run/model.safetensors").exists()


def test_a_diverging_step_is_reported(place, tmp_path):
    raw = raw_config()
    raw["training"]["optimizer_configs"]["diffusion"] = {"optimizer": {"type": "AdamW", "config": {"lr": 1e30}}}
    (place / "wild.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match=r"NaN or infinite in step [23] \(clips: c\d, c\d\); .*lower learning rate"):
        run(place, tmp_path / "run", "--model-config", place / "wild.json", "--max-epochs", 3)


@pytest.mark.slow
def test_a_batch_without_a_readable_clip_is_passed_over(place, tmp_path, monkeypatch, caplog):
    """The step runs with a gradient of zero; validation uses the other clips."""
    flags = ["--batch-size", 1, "--max-epochs", 1, "--val-dataset-config", place / "data.json"]
    breaks(monkeypatch, "c3")
    folder = run(place, tmp_path / "run", *flags)
    norms = logged(folder, "train/grad_norm")
    assert len(norms) == 6 and sorted(norms.values())[0] == 0 < sorted(norms.values())[1]
    assert np.isfinite(list(logged(folder, "val/loss").values())).all()
    assert "clip c3 is skipped: c3.wav: is gone" in caplog.text
    assert checkpoint(folder)["timesteps_drawn"] == 6
    breaks(monkeypatch, *(f"c{number}" for number in range(6)))
    with pytest.raises(InputError, match="no clip's audio could be read for a whole epoch"):
        run(place, tmp_path / "none", *flags)


def test_no_clips(place, tmp_path):
    for wav in (place / "set/wav").iterdir():
        wav.unlink()
    with pytest.raises(InputError, match="set") as caught:
        run(place, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_nothing_but_silence(place, tmp_path):
    import soundfile

    for wav in (place / "set/wav").iterdir():
        soundfile.write(wav, np.zeros(64000), 16000)
    with pytest.raises(InputError, match="nothing to train on in set: .* is silent"):
        run(place, tmp_path / "run")


@pytest.fixture(params=["file size", "file system"])
def full_disk(request, tmp_path) -> Iterator[tuple[Path, Callable]]:
    """A folder, and a context in which no file of more than half the size of one of its files can be written there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if request.param == "file size":
        yield disk, small_files
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system to fill: {mounted.stderr.decode().strip()}")
    yield disk, little_room
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@contextlib.contextmanager
def small_files(file: Path) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size // 2, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def little_room(file: Path) -> Iterator[None]:
    filler = file.with_name("filler")
    filler.write_bytes(bytes(shutil.disk_usage(file.parent).free - file.stat().st_size // 2))
    yield
    filler.unlink()


@pytest.mark.slow
def test_a_full_disk_keeps_the_checkpoint_before(place, full_disk):
    disk, full = full_disk
    folder = run(place, disk / "run", "--max-steps", 2)
    refused = pytest.raises(InputError, match=r"last.ckpt: cannot be written \(.*the last good checkpoint is")
    with full(folder / "checkpoints/last.ckpt"), refused as caught:
        run(place, folder, "--max-steps", 4, "--recover")
    assert "\n" not in str(caught.value)
    assert checkpoint(folder)["global_step"] == 2
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]
    run(place, folder, "--max-steps", 4, "--recover")
    assert checkpoint(folder)["global_step"] == 4


@pytest.mark.slow
def test_a_run_is_not_overwritten_and_leaves_a_record(place, tmp_path):
    folder = run(place, tmp_path / "run", "--max-steps", 1)
    with pytest.raises(InputError, match="run: holds a run already; resume it with --recover, or choose another"):
        run(place, folder, "--max-steps", 1)
    assert json.loads((folder / "model_config.json").read_text()) == raw_config()
    assert json.loads((folder / "dataset_config.json").read_text())["datasets"][0]["id"] == "set"
    first = json.loads((folder / "run.json").read_text())
    (place / "set/wav/c0.wav").unlink()
    run(place, folder, "--max-steps", 2, "--recover")
    second = json.loads((folder / "run.json").read_text())
    assert second["id"] == first["id"] and second["starts"][0] == first["starts"][0] and len(second["starts"]) == 2
    assert second["starts"][0]["fingerprints"] != second["starts"][1]["fingerprints"]
    assert second["starts"][1]["settings"]["recover"] and second["starts"][1]["code"]["diff_v2m"]
    assert sorted(logged(folder)) == [0, 1]
