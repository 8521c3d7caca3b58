"""Weights on disk: both formats, both sets of weights, every kind of autoencoder file."""

import json
import logging
import resource
import weakref
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
import torch
from helpers.toy_weights import RELEASED, autoencoder_json, equal, filled, lightning, toy_json, toy_model, wrapper_state
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from diff_v2m.checkpoints.files import save_model, save_state
from diff_v2m.checkpoints.loading import load_model, load_vae_weights, uninitialized
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash
from diff_v2m.config import ModelConfig, load_model_config, parse_model_config
from diff_v2m.model.autoencoder import OobleckVAE
from diff_v2m.model.blocks import FeedForward, SelfAttention
from diff_v2m.model.dit import LatentDiffusion


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


# -- released format --------------------------------------------------------------------------------------------------


def test_online_weights(released, model):
    loaded, config = load_model(released, weights="online")
    assert equal(loaded, model.state_dict())
    assert not loaded.training and config.sample_size == 2048


def test_moving_average_is_the_default_and_covers_the_network_alone(released, model):
    loaded, _ = load_model(released)
    expected = {name: t + 1 if name.startswith("model.") else t for name, t in model.state_dict().items()}
    assert equal(loaded, expected)


def test_float32_is_memory_mapped_and_the_file_stays_as_it_is(released):
    before = content_hash(released)
    loaded, _ = load_model(released)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(1)
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(released))]
    ranges = [[int(edge, 16) for edge in line[0].split("-")] for line in maps]
    assert all(any(low <= tensor.data_ptr() < high for low, high in ranges) for tensor in loaded.parameters())
    content_hash.__globals__["_hash"].cache_clear()
    assert content_hash(released) == before


def test_building_a_model_for_loading_writes_no_memory():
    """Its initial values, also zeros, would take as much as the file's values that replace them."""
    process = psutil.Process()
    before = process.memory_info().rss
    with uninitialized():
        layers = nn.ModuleList([FeedForward(2048), SelfAttention(2048, 64), FeedForward(2048)])
    size = sum(parameter.nbytes for parameter in layers.parameters())
    assert size > 300e6 and process.memory_info().rss - before < size / 20


def test_zero_dimensional_bookkeeping_of_newer_moving_averages(tmp_path, config, model):
    state = wrapper_state(model) | {"diffusion_ema.initted": torch.tensor(True), "diffusion_ema.step": torch.tensor(7)}
    loaded, _ = load_model(lightning(tmp_path / "m.ckpt", state), config=config)
    assert len(loaded.state_dict()) > 100


def test_without_moving_average_the_online_weights_are_taken(tmp_path, config, model, caplog):
    state = {name: t for name, t in wrapper_state(model).items() if not name.startswith("diffusion_ema")}
    with caplog.at_level(logging.DEBUG, logger="diff_v2m"):
        loaded, _ = load_model(lightning(tmp_path / "m.ckpt", state), config=config)
    assert equal(loaded, model.state_dict())
    assert "no moving average" in caplog.text


def test_moving_average_that_never_moved_is_reported(tmp_path, config, model, caplog):
    state = wrapper_state(model) | {"diffusion_ema.initted": torch.zeros(1)}
    load_model(lightning(tmp_path / "m.ckpt", state), config=config)
    assert "never updated" in caplog.text


def test_config_beside_the_checkpoint(tmp_path, config, model):
    path = lightning(tmp_path / "model.ckpt", wrapper_state(model))
    with pytest.raises(InputError, match="has no model config.*--model_config_path"):
        load_model(path)
    (tmp_path / "model_config.json").write_text(json.dumps(config.raw))
    assert load_model(path)[1] == config


def test_given_config_wins_over_the_one_inside(released):
    raw = toy_json(mask_padding=True)
    assert load_model(released, config=parse_model_config(raw))[1].model.conditioning.mask_padding


def test_projections_that_nothing_calls_are_dropped_by_name(released, model):
    loaded, _ = load_model(released, config=parse_model_config(toy_json(unused_projections=False)))
    gone = model.state_dict().keys() - loaded.state_dict().keys()
    assert gone == {
        f"conditioner.conditioners.{id}.proj_out.{part}"
        for id in ("semantic", "rhythm", "color")
        for part in ("weight", "bias")
    }


def test_device_and_precision(released):
    loaded, _ = load_model(released, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    frequencies = [t for name, t in loaded.state_dict().items() if name.endswith("inv_freq")]
    assert frequencies and all(tensor.dtype == torch.float32 for tensor in frequencies)


def test_every_key_of_the_released_model():
    """Names and shapes at released size, on the meta device, against known counts."""
    with torch.device("meta"):
        state = LatentDiffusion(load_model_config(RELEASED)).state_dict()
    counts = [sum(name.startswith(part) for name in state) for part in ("model.", "conditioner.", "pretransform.")]
    assert counts == [998, 152, 365]
    assert sum(counts) + 998 + 4 == 2517  # + moving average, its two counters, two loss weights


# -- our format -------------------------------------------------------------------------------------------------------


def test_round_trip_in_half_precision(tmp_path, config, model):
    path = tmp_path / "deep" / "model.safetensors"
    save_model(model, config, path)
    loaded, found = load_model(path)
    assert found == config and found.raw == config.raw
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == model.state_dict()[name].dtype == torch.float32
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-3, atol=1e-4)
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]  # no temporary left
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode  # readable by whom the user wants


def test_small_tensors_keep_their_precision(tmp_path, config, model):
    save_model(model, config, tmp_path / "m.safetensors")
    stored = load_file(tmp_path / "m.safetensors")
    assert all((t.dtype == torch.float16) == (t.numel() >= 4096) for t in stored.values() if t.is_floating_point())
    assert {t.dtype for t in stored.values()} == {torch.float16, torch.float32}
    loaded, _ = load_model(tmp_path / "m.safetensors")
    name = "model.model.transformer.rotary_pos_emb.inv_freq"
    assert torch.equal(loaded.state_dict()[name], model.state_dict()[name])


def test_full_precision_round_trip_is_exact(tmp_path, config, model):
    save_model(model, config, tmp_path / "m.safetensors", dtype=None)
    assert equal(load_model(tmp_path / "m.safetensors")[0], model.state_dict())
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["model_config"]) == config.raw
        assert all(key.startswith("diffusion.") for key in file.keys())  # noqa: SIM118


def test_saving_a_training_state_keeps_its_moving_average(tmp_path, config, released):
    state = torch.load(released, weights_only=True)["state_dict"]
    save_state(state, config, tmp_path / "m.safetensors", dtype=None)
    assert equal(load_model(tmp_path / "m.safetensors")[0], load_model(released)[0].state_dict())


class MadeOnDemand(Mapping):
    """A state dict whose tensors are made when they are read; `most` counts those that are alive at once."""

    def __init__(self, state):
        self.state, self.alive, self.most = state, weakref.WeakSet(), 0

    def __getitem__(self, key):
        made = self.state[key].clone()
        self.alive.add(made.untyped_storage())
        self.most = max(self.most, len(self.alive))
        return made

    def __iter__(self):
        return iter(self.state)

    def __len__(self):
        return len(self.state)


def test_saving_takes_one_tensor_at_a_time(tmp_path, config, model):
    state = MadeOnDemand(model.state_dict(prefix="diffusion."))
    save_state(state, config, tmp_path / "m.safetensors", dtype=None)
    assert equal(load_model(tmp_path / "m.safetensors")[0], model.state_dict())
    assert 1 <= state.most <= 2 < len(state)


def test_every_dtype_is_written_as_safetensors_reads_it(tmp_path, config):
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8)
    state = {f"diffusion.{kind}": (torch.randn(3, 5) * 50).abs().to(kind) for kind in kinds}
    state |= {"diffusion.bool": torch.tensor([True, False, True]), "diffusion.scalar": torch.tensor(7.0)}
    state |= {"diffusion.empty": torch.zeros(0, 4), "diffusion.turned": torch.randn(4, 6).T}
    save_state(state, config, tmp_path / "m.safetensors", dtype=None)
    stored = load_file(tmp_path / "m.safetensors")
    assert stored.keys() == state.keys() and all(torch.equal(stored[key], state[key]) for key in state)
    assert all(stored[key].dtype == state[key].dtype for key in state)


def test_hash(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    first = content_hash(tmp_path / "file")
    assert first == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "file").write_bytes(b"abcd")
    assert content_hash(tmp_path / "file") != first


@pytest.mark.parametrize("existing", [b"old weights", None])
def test_failing_save_leaves_the_old_file_and_no_partial_one(tmp_path, config, model, existing):
    path = tmp_path / "m.safetensors"
    if existing:
        path.write_bytes(existing)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # what a full disk does, without filling one
    try:
        with pytest.raises(InputError, match=r"m.safetensors: cannot be written: .*; free space"):
            save_model(model, config, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([existing] if existing else [])


def test_save_where_no_folder_can_be(tmp_path, config, model):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        save_model(model, config, tmp_path / "file" / "m.safetensors")


# -- autoencoders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stable audio", "lightning", "safetensors", "whole model", "whole checkpoint"])
def test_autoencoder_weights(tmp_path, config, model, released, kind):
    vae_config = parse_model_config(autoencoder_json(config, normalize_latents=kind in ("lightning", "safetensors")))
    path = tmp_path / "weights"
    source = filled(OobleckVAE(vae_config.pretransform.config))
    if kind == "stable audio":
        state = {"pretransform." + name: tensor for name, tensor in source.state_dict().items()}
        save_file(state | {"model.model.rotary": torch.zeros(1), "conditioner.x": torch.zeros(1)}, path)
    elif kind == "lightning":
        state = {"autoencoder." + name: tensor for name, tensor in source.state_dict().items()}
        lightning(path, state | {"spectral_loss.window": torch.zeros(8)})
    elif kind == "safetensors":
        save_model(source, vae_config, path, dtype=None)
    else:
        source = model.pretransform
        path = released if kind == "whole checkpoint" else path
        if kind == "whole model":
            save_model(model, config, path, dtype=None)
    target = OobleckVAE(vae_config.pretransform.config)
    load_vae_weights(target, path)
    assert equal(target, source.state_dict())


def test_autoencoder_weights_are_strict_inside(tmp_path, config):
    plain = parse_model_config(autoencoder_json(config))
    normal = parse_model_config(autoencoder_json(config, normalize_latents=True))
    save_model(OobleckVAE(plain.pretransform.config), plain, tmp_path / "plain.safetensors")
    save_model(OobleckVAE(normal.pretransform.config), normal, tmp_path / "normal.safetensors")
    with pytest.raises(InputError, match="2 keys missing: autoencoder.latent_mean, autoencoder.latent_std"):
        load_vae_weights(OobleckVAE(normal.pretransform.config), tmp_path / "plain.safetensors")
    with pytest.raises(InputError, match="2 keys not of this model: autoencoder.latent_mean"):
        load_vae_weights(OobleckVAE(plain.pretransform.config), tmp_path / "normal.safetensors")


def test_no_autoencoder_in_the_file(tmp_path, config):
    save_file({"bert.weight": torch.zeros(2)}, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="holds no autoencoder.*got bert.weight"):
        load_vae_weights(OobleckVAE(config.pretransform.config), tmp_path / "m.safetensors")
