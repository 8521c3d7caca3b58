"""The benchmark of the released size, with toy weights: its files load as released ones, its stages are measured."""

import os

import pytest
import torch
from helpers.toy_weights import toy_json

from benchmarks import released
from benchmarks.released_weights import depth_of, make_checkpoint, make_stable_audio, released_config
from diff_v2m.checkpoints.loading import load_model, load_vae_weights
from diff_v2m.checkpoints.starting import start_from_stable_audio
from diff_v2m.common.errors import InputError
from diff_v2m.config import parse_model_config
from diff_v2m.model.dit import LatentDiffusion

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("released")
    make_checkpoint(root, toy_json())
    make_stable_audio(root / "model.ckpt", root / "stable_audio.safetensors")
    return root


def test_the_weights_load_and_differ(folder, caplog):
    online, averaged = (load_model(folder / "model.ckpt", weights=kind)[0].state_dict() for kind in ("online", "ema"))
    name = "model.model.transformer.layers.0.self_attn.to_qkv.weight"
    assert all(torch.isfinite(tensor).all() for tensor in averaged.values())
    assert averaged[name].std() > 0 and not torch.equal(averaged[name], online[name]) and depth_of(folder) == 2
    model = LatentDiffusion(parse_model_config(toy_json()))
    load_vae_weights(model.pretransform, folder / "stable_audio.safetensors")
    ids = ["seconds_start", "seconds_total", "class"]
    with caplog.at_level("INFO"):
        start_from_stable_audio(model.model.model, folder / "stable_audio.safetensors", ids)
    assert "the first 64 of 96 columns taken" in caplog.text


def test_the_released_config_has_the_released_names():
    config = released_config(24)["model"]["diffusion"]["config"]
    assert (config["depth"], config["embed_dim"], released_config(2)["model"]["diffusion"]["config"]["depth"]) == (
        24,
        1536,
        2,
    )


def test_stages_are_measured_in_both_trees(folder, tmp_path, capsys):
    output = tmp_path / "released.md"
    flags = ["--stages", "hashing", "--rounds", "2", "--against", str(released.ROOT), "--output", str(output)]
    (folder / "clip-vit-base-patch32").mkdir(exist_ok=True)
    assert released.main([str(folder), *flags]) == 0
    text = output.read_text()
    assert "| stage | before, s | before, GB | after, s | after, GB |" in text and "## 2 layers" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| Identify the checkpoint for the first time |"))
    assert all(float(cell) > 0 for cell in row.split("|")[2:-1])


def test_a_failing_stage_and_a_wrong_tree_are_one_line(folder, tmp_path):
    assert released.anonymous_gigabytes(os.getpid()) > 0
    with pytest.raises(InputError, match="hashing: failed in "):
        released.measure("hashing", released.ROOT, tmp_path, tmp_path)
    with pytest.raises(InputError, match="expected a checkout of this repository"):
        released.run(released.parse([str(folder), "--against", str(tmp_path)]))
