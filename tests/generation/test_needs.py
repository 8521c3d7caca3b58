"""What a run needs is checked once, before the checkpoint is hashed and the model is loaded."""

import numpy as np
import pytest
import torch
from helpers import toys
from helpers.hub_server import use_hub

import infer
from diff_v2m.checkpoints.files import save_model
from diff_v2m.common.errors import InputError
from diff_v2m.config import parse_model_config
from diff_v2m.features import semantic
from diff_v2m.generation.feature_cache import FeatureCache
from diff_v2m.generation.manifest import Weights
from diff_v2m.generation.needs import check_needs
from diff_v2m.model.dit import LatentDiffusion


@pytest.fixture(scope="module")
def with_clip(tmp_path_factory):
    """A toy model that was trained with CLIP, which is not on this machine."""
    raw = toys.toy_raw_config()
    for entry in raw["model"]["conditioning"]["configs"]:
        if entry["id"] == "semantic":
            entry["config"]["encoder"] = "clip-vit-base-patch32"
    config = parse_model_config(raw, "toy")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_model(LatentDiffusion(config), config, path, dtype=None)
    return path


@pytest.fixture
def offline(monkeypatch, tmp_path):
    use_hub(monkeypatch, None, tmp_path / "hub")
    monkeypatch.setattr(semantic, "CLIP_FOLDER", tmp_path / "clip-vit-base-patch32")


def run(caplog, *arguments):
    """(exit status, error lines)."""
    caplog.clear()
    status = infer.main([*map(str, arguments), "--device", "cpu", "--steps", "2"])
    return status, [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def test_a_missing_encoder_is_one_line_before_anything_slow(with_clip, offline, tmp_path, caplog, monkeypatch):
    for name in ("a", "b", "c"):
        toys.write_video(tmp_path / f"in/{name}.mp4", 1.5)
    monkeypatch.setattr(Weights, "of", lambda *_: pytest.fail("hashed"))
    arguments = (tmp_path / "in", "--ckpt_path", with_clip, "--output_dir", tmp_path / "out")
    status, errors = run(caplog, *arguments)
    assert status == 1 and len(errors) == 1 and "clip: not on this machine, and the hub cannot be reached" in errors[0]
    assert all(name in errors[0] for name in semantic.CLIP_FILES)
    semantic.CLIP_FOLDER.mkdir()
    (semantic.CLIP_FOLDER / "config.json").write_text("{}")
    status, errors = run(caplog, *arguments)
    assert status == 1 and len(errors) == 1 and "missing: preprocessor_config.json, model.safetensors" in errors[0]


def test_damaged_clip_weights_are_one_line_before_anything_slow(with_clip, offline, tmp_path, caplog, monkeypatch):
    from safetensors.numpy import save_file

    for name in ("a", "b"):
        toys.write_video(tmp_path / f"in/{name}.mp4", 1.5)
    monkeypatch.setattr(Weights, "of", lambda *_: pytest.fail("hashed"))
    semantic.CLIP_FOLDER.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (semantic.CLIP_FOLDER / name).write_text("{}")
    file = semantic.CLIP_FOLDER / "model.safetensors"

    def first_error():
        arguments = ("--ckpt_path", with_clip, "--output_dir", tmp_path / "out")
        status, errors = run(caplog, tmp_path / "in", *arguments)
        assert status == 1 and len(errors) == 1
        return errors[0]

    save_file({"visual_projection.weight": np.zeros((512, 768), np.float32)}, file)
    whole = file.read_bytes()
    for damaged in (b"version https://git-lfs.github.com/spec/v1", whole[:1000], b""):
        file.write_bytes(damaged)
        assert "model.safetensors is damaged or another model's" in first_error()
    save_file({"text_projection.weight": np.zeros((512, 512), np.float32)}, file)
    assert "model.safetensors is damaged or another model's" in first_error()
    save_file({"visual_projection.weight": np.zeros((768, 1024), np.float32)}, file)
    assert "its image embedding has 768 numbers, expected 512" in first_error()


def test_a_missing_compiler_and_stems_that_no_model_writes_are_found_first(tmp_path, caplog, monkeypatch):
    video, plain = toys.write_video(tmp_path / "a.mp4", 1.5), toys.save_toy_model(tmp_path / "plain.safetensors")
    monkeypatch.setattr(Weights, "of", lambda *_: pytest.fail("hashed"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.delenv("CC", raising=False)
    flags = (video, "--ckpt_path", plain, "--output_dir", tmp_path / "out")
    for flag, reason in (("--compile", "no C++ compiler found"), ("--stems", "this model writes no separate voices")):
        status, errors = run(caplog, *flags, flag)
        assert status == 1 and len(errors) == 1 and reason in errors[0]


def test_a_missing_model_json_is_found_before_the_checkpoint_is_hashed(tmp_path, caplog, monkeypatch):
    toys.write_video(tmp_path / "a.mp4", 1.5)
    torch.save({"state_dict": {"diffusion.x": torch.zeros(1)}}, tmp_path / "model.ckpt")
    monkeypatch.setattr(Weights, "of", lambda *_: pytest.fail("hashed"))
    arguments = (tmp_path / "a.mp4", "--ckpt_path", tmp_path / "model.ckpt", "--output_dir", tmp_path / "out")
    status, errors = run(caplog, *arguments)
    assert status == 1 and len(errors) == 1 and "model.ckpt: has no model config; give --model_config_path" in errors[0]


def test_cached_features_need_no_encoder(with_clip, offline, tmp_path):
    video, cache = toys.write_video(tmp_path / "a.mp4", 1.5), FeatureCache(tmp_path / "cache")
    needs = {"device": "cpu", "dtype": "float32", "cache": cache}
    with pytest.raises(InputError, match="clip: not on this machine"):
        check_needs(with_clip, None, videos=[video], **needs)
    cache.get(video, "clip-vit-base-patch32", lambda video: toys.toy_features(1.5))
    check_needs(with_clip, None, videos=[video, tmp_path / "gone.mp4"], **needs)
    check_needs(with_clip, None, videos=[], **needs)


def test_a_skipped_clip_needs_neither_encoder_nor_torch(with_clip, offline, tmp_path, caplog, monkeypatch):
    video = toys.write_video(tmp_path / "a.mp4", 1.5)
    plain = toys.save_toy_model(tmp_path / "plain.safetensors")
    flags = ("--output_dir", tmp_path / "out", "--feature_cache", "none")
    assert run(caplog, video, "--ckpt_path", plain, *flags) == (0, [])
    status, errors = run(caplog, video, "--ckpt_path", with_clip, *flags)  # another model: to be generated again
    assert status == 1 and len(errors) == 1 and "clip: not on this machine" in errors[0]
    monkeypatch.setattr("diff_v2m.generation.needs.check_needs", lambda *_, **__: pytest.fail("checked"))
    assert run(caplog, video, "--ckpt_path", plain, *flags) == (0, [])
