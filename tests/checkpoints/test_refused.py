"""Weights files that must be refused: another architecture, not weights, or code in disguise."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from helpers import toys
from helpers.toy_weights import autoencoder_json, equal, lightning, toy_json, toy_model, wrapper_state
from safetensors.torch import save_file

import infer
import train
from diff_v2m.checkpoints.files import read_weights, save_model
from diff_v2m.checkpoints.loading import load_into, load_model
from diff_v2m.common.errors import InputError
from diff_v2m.config import ModelConfig, parse_model_config
from diff_v2m.model.autoencoder import OobleckVAE
from diff_v2m.model.dit import LatentDiffusion
from diff_v2m.preprocess import __main__ as preprocess


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return parse_model_config(toy_json())


@pytest.fixture(scope="module")
def model(config) -> LatentDiffusion:
    return toy_model(config)


@pytest.fixture(scope="module")
def released(tmp_path_factory, config, model) -> Path:
    path = tmp_path_factory.mktemp("released") / "model.ckpt"
    return lightning(path, wrapper_state(model), model_config=config.raw)


# -- refused: does not fit --------------------------------------------------------------------------------------------


def refuse(path: Path, *parts: str, **arguments: object) -> None:
    with pytest.raises(InputError) as caught:
        load_model(path, **arguments)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("weights", ["ema", "online"])
@pytest.mark.parametrize(("depth", "part"), [(1, "keys not of this model"), (3, "keys missing")])
def test_another_architecture(released, weights, depth, part):
    layer = f"model.model.transformer.layers.{min(depth, 2)}."
    refuse(released, part, layer, "… (", "in all)", config=parse_model_config(toy_json(depth)), weights=weights)


def test_misshaped_missing_and_extra_are_all_listed(tmp_path, config, model):
    state = wrapper_state(model)
    state["diffusion.conditioner.conditioners.class.int_embedder.weight"] = torch.zeros(4, 32)
    state["diffusion.surprise"] = state.pop("diffusion.conditioner.conditioners.rhythm.proj_out1.bias")
    refuse(
        lightning(tmp_path / "m.ckpt", state),
        "1 keys missing: diffusion.conditioner.conditioners.rhythm.proj_out1.bias",
        "1 keys not of this model: diffusion.surprise",
        "1 keys of another shape: diffusion.conditioner.conditioners.class.int_embedder.weight",
        "(4, 32) instead of (3, 32)",
        config=config,
    )


@pytest.mark.parametrize("key", ["diffusion_ema.ema_model.surprise", "diffusion.model.surprise", "other.weight"])
@pytest.mark.parametrize("weights", ["ema", "online"])
def test_an_extra_key_is_refused_in_whichever_copy(tmp_path, config, model, key, weights):
    path = lightning(tmp_path / "m.ckpt", wrapper_state(model) | {key: torch.zeros(1)})
    refuse(path, f"1 keys not of this model: {key}", config=config, weights=weights)


def test_a_failing_load_changes_nothing(tmp_path, config, model):
    path = lightning(tmp_path / "m.ckpt", wrapper_state(model) | {"diffusion.surprise": torch.zeros(1)})
    target = LatentDiffusion(config)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(InputError):
        load_into(target, read_weights(path), "ema")
    assert equal(target, before)


def test_safetensors_of_something_else(tmp_path, config):
    save_file({"bert.weight": torch.zeros(2, 2)}, tmp_path / "m.safetensors")
    refuse(tmp_path / "m.safetensors", "has no model config")
    refuse(tmp_path / "m.safetensors", "keys missing", "1 keys not of this model: bert.weight", config=config)


def test_an_autoencoder_is_not_a_model(tmp_path, config):
    raw = autoencoder_json(config)
    vae = parse_model_config(raw)
    save_model(OobleckVAE(vae.pretransform.config), vae, tmp_path / "vae.safetensors")
    refuse(tmp_path / "vae.safetensors", "model_type is autoencoder; expected diffusion_cond")


@pytest.mark.parametrize("command", ["infer", "distill", "latents", "shards"])
def test_commands_that_need_a_whole_model_say_so(tmp_path, config, caplog, capsys, command):
    raw = autoencoder_json(config)
    vae, weights, model, data = (
        parse_model_config(raw),
        *(tmp_path / name for name in ("v.safetensors", "v.json", "d.json")),
    )
    save_model(OobleckVAE(vae.pretransform.config), vae, weights)
    model.write_text(json.dumps(raw))
    entry = {
        "id": "a",
        "path": str(tmp_path),
        "latents": str(tmp_path / "l"),
        "video_feat": str(tmp_path),
        "video_info": "v",
    }
    data.write_text(json.dumps({"dataset_type": "audio_video_dir", "datasets": [entry]}))
    video = toys.write_video(tmp_path / "a.mp4", 1.0, seed=1)
    run, arguments = {
        "infer": (infer.main, [video, "--ckpt_path", weights, "--output_dir", tmp_path / "out"]),
        "distill": (train.main, ["--distill", weights, "--dataset-config", data, "--save-dir", tmp_path]),
        "latents": (
            preprocess.main,
            ["latents", "--dataset-config", data, "--model-config", model, "--pretransform-ckpt-path", weights],
        ),
        "shards": (
            preprocess.main,
            ["shards", "--dataset-config", data, "--model-config", model, "--output", tmp_path],
        ),
    }[command]
    assert run([str(argument) for argument in arguments]) == 1
    said = caplog.text + "".join(capsys.readouterr())
    assert "its model_type is autoencoder; expected diffusion_cond, a whole model" in said and "Traceback" not in said


def test_a_broken_config_inside_is_named(tmp_path, model):
    path = lightning(tmp_path / "m.ckpt", wrapper_state(model), model_config=toy_json() | {"sample_rte": 1})
    refuse(path, "(model_config in it): sample_rte: unknown key (did you mean sample_rate?)")


# -- refused: not weights at all --------------------------------------------------------------------------------------


class Payload:
    """Writes a file when unpickled by a careless reader."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("kind", ["zip", "inside a checkpoint", "legacy", "bare pickle"])
def test_a_pickle_that_would_run_code(tmp_path, model, kind):
    target, path = tmp_path / "executed", tmp_path / "model.ckpt"
    if kind == "zip":
        torch.save(Payload(target), path)
    elif kind == "inside a checkpoint":
        lightning(path, wrapper_state(model), callbacks=Payload(target), model_config=toy_json())
    elif kind == "legacy":
        torch.save(Payload(target), path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(Payload(target)))
    refuse(path, "refused", "run code")
    assert not target.exists()
    if kind == "zip":  # the payload is live: this is what was refused
        torch.load(path, weights_only=False)
        assert target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x93NUMPY not weights at all", "neither a PyTorch checkpoint nor safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>", "web page"),
        (b"PK\x03\x04" + bytes(200), "truncated or damaged"),
        (b"\xff\xff\x00\x00\x00\x00\x00\x00{garbage", "damaged safetensors"),
    ],
)
def test_not_weights(tmp_path, content, message):
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    refuse(path, message)


@pytest.mark.parametrize("part", [0.3, 0.99])
def test_truncated(tmp_path, released, config, model, part):
    ckpt = tmp_path / "model.ckpt"
    ckpt.write_bytes(released.read_bytes()[: int(released.stat().st_size * part)])
    refuse(ckpt, "truncated or damaged")
    save_model(model, config, tmp_path / "m.safetensors")
    ours = tmp_path / "m.safetensors"
    ours.write_bytes(ours.read_bytes()[: int(ours.stat().st_size * part)])
    refuse(ours, "truncated or damaged")


@pytest.mark.parametrize(
    "content",
    [[1, 2], {"weights": torch.zeros(1)}, {"state_dict": {"a": "text"}}, {"state_dict": {1: torch.zeros(1)}}],
    ids=str,
)
def test_checkpoint_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / "model.ckpt")
    refuse(tmp_path / "model.ckpt", "holds no state_dict of tensors")


def test_missing_file_and_folder(tmp_path):
    refuse(tmp_path / "absent.ckpt", "no such weights file")
    refuse(tmp_path, "holds neither model.safetensors nor model.ckpt")
