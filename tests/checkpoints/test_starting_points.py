"""Starting weights: released weights for a corrected config, Stable Audio's transformer, and the log of each."""

import copy
import logging
from pathlib import Path

import pytest
import torch
from helpers.toy_weights import filled, lightning, toy_json, wrapper_state

from diff_v2m.checkpoints.starting import grouped, start_from, start_from_stable_audio
from diff_v2m.common.errors import InputError
from diff_v2m.config import parse_model_config
from diff_v2m.model.autoencoder import stub_imports
from diff_v2m.model.dit import LatentDiffusion


def build(raw: dict) -> LatentDiffusion:
    torch.manual_seed(1)
    return LatentDiffusion(parse_model_config(raw))


def corrected(**dit: object) -> dict:
    raw = toy_json(mask_padding=True, restandardize_rhythm=True, unused_projections=False)
    switches = {"pre_norm": True, "color_attention": True, "time_aligned_attention": True, "aligned_input": True}
    raw["model"]["diffusion"]["config"] |= switches | dit
    return raw


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """A training checkpoint of the released architecture, with moving average and config."""
    path = tmp_path_factory.mktemp("released") / "model.ckpt"
    return lightning(path, wrapper_state(filled(build(toy_json()))), model_config=toy_json())


def start(raw: dict, path: Path, caplog) -> tuple[LatentDiffusion, str]:
    model = build(raw)
    with caplog.at_level(logging.INFO):
        start_from(model, parse_model_config(raw), path)
    return model, caplog.text


def test_released_weights_under_the_corrected_switches(released, caplog):
    raw = corrected()
    model, said = start(raw, released, caplog)
    state = torch.load(released, weights_only=True)["state_dict"]
    for name, tensor in model.state_dict().items():
        averaged = "diffusion_ema.ema_model." + name.removeprefix("model.")
        key = averaged if name.startswith("model.") else "diffusion." + name
        if name == "model.model.aligned_input.weight":
            assert key not in state and not tensor.any()  # so that at first it changes nothing
        else:
            assert torch.equal(tensor, state[key]), name
    assert "1 tensors new, with initial values (aligned_input): diffusion_ema.ema_model.model.aligned_input" in said
    assert "trained with model.diffusion.config.pre_norm absent; now True" in said
    assert "trained with model.conditioning.mask_padding absent; now True" in said


def test_another_fusion_leaves_some_and_adds_some(released, caplog):
    _, said = start(corrected(attention_weight_type="gate"), released, caplog)
    assert "new, with initial values (attention_weight_type): diffusion_ema.ema_model.model.transformer." in said
    assert "gate.0.weight × 2" in said
    assert "tensors not used (attention_weight_type): " in said and "FiLM_gamma_sem.0.weight × 2" in said
    assert "attention_weight_type FiLM_choose; now gate" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["model"]["diffusion"]["config"].update(depth=3), "keys missing: .*layers.2.pre_norm.gamma"),
        (lambda raw: raw["model"]["diffusion"]["config"].update(depth=1), "keys not of this model: .*layers.1."),
        (lambda raw: raw["model"]["diffusion"]["config"].update(embed_dim=128, num_heads=4), "of another shape"),
    ],
)
def test_an_unexpected_difference_is_an_error(released, change, message, caplog):
    raw = corrected()
    change(raw)
    model = build(raw)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=message):
        start_from(model, parse_model_config(raw), released)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# --------------------------------------------------------------------------------- Stable Audio's transformer


@pytest.fixture(scope="module")
def stable_audio(tmp_path_factory) -> Path:
    """A small, deeper transformer of stable-audio-tools, in a file with Stable Audio's tensor names."""
    from safetensors.torch import save_file

    with stub_imports():
        from stable_audio_tools.models.dit import DiffusionTransformer
    torch.manual_seed(5)
    dit = DiffusionTransformer(
        io_channels=4,
        embed_dim=64,
        depth=3,
        num_heads=2,
        cond_token_dim=32,
        global_cond_dim=64,
        project_cond_tokens=False,
        transformer_type="continuous_transformer",
    )
    path = tmp_path_factory.mktemp("stable_audio") / "model.safetensors"
    state = {"model.model." + name: tensor.contiguous() for name, tensor in filled(dit).state_dict().items()}
    save_file(state | {"conditioner.conditioners.prompt.proj.weight": torch.zeros(1)}, path)
    return path


@pytest.mark.slow
def test_the_transformer_from_stable_audio(stable_audio, caplog):
    from safetensors.torch import load_file

    model, theirs = build(corrected()), load_file(stable_audio)
    before = copy.deepcopy(model.state_dict())
    with caplog.at_level(logging.INFO):
        start_from_stable_audio(model.model.model, stable_audio, ["seconds_start", "seconds_total", "class"])
    state = model.state_dict()
    for layer in range(2):
        place, source = f"model.model.transformer.layers.{layer}.", f"model.model.transformer.layers.{layer}."
        for stream in range(3):
            for part in ("to_q", "to_kv", "to_out"):
                ours = state[f"{place}cross_attn{stream}.{part}.weight"]
                assert torch.equal(ours, theirs[f"{source}cross_attn.{part}.weight"])
        for part in ("self_attn.to_qkv.weight", "ff.ff.0.proj.bias", "ff.ff.2.weight", "ff_norm.gamma"):
            assert torch.equal(state[place + part], theirs[source + part])
        assert torch.equal(state[place + "color_norm.gamma"], theirs[source + "cross_attend_norm.gamma"])
        film = place + "FiLM_gamma_sem.0.weight"
        assert torch.equal(state[film], before[film])
    assert torch.equal(state["model.model.preprocess_conv.weight"], theirs["model.model.preprocess_conv.weight"])
    said = caplog.text
    name = "to_global_embed.0.weight"  # two of our three global conditions are theirs
    assert torch.equal(state[f"model.model.{name}"][:, :64], theirs[f"model.model.{name}"])
    assert torch.equal(state[f"model.model.{name}"][:, 64:], before[f"model.model.{name}"][:, 64:])
    assert f"of {name} the first 64 of 96 columns taken (seconds_start, seconds_total)" in said
    assert "other shape in the file" not in said
    assert "not in the file: aligned_input.weight, " in said and "FiLM_beta_rhy.0.bias × 2" in said
    assert "of the file are not used: " in said and "transformer.layers.*.cross_attn.to_q.weight" in said
    for name in before:
        if not name.startswith("model.model."):
            assert torch.equal(before[name], state[name])


@pytest.mark.slow
@pytest.mark.parametrize("ids", [(), ("class", "seconds_start", "seconds_total"), ("seconds_start", "class", "x")])
def test_columns_of_other_conditions_are_not_taken(stable_audio, caplog, ids):
    model = build(corrected())
    before = model.model.model.to_global_embed[0].weight.clone()
    with caplog.at_level(logging.INFO):
        start_from_stable_audio(model.model.model, stable_audio, ids)
    assert torch.equal(model.model.model.to_global_embed[0].weight, before)
    assert "other shape in the file: to_global_embed.0.weight" in caplog.text


@pytest.mark.slow
def test_a_file_that_has_no_such_transformer(stable_audio, released):
    model = build(toy_json() | {})
    with pytest.raises(InputError, match="model.ckpt: no layer of a transformer there fits; expected Stable Audio"):
        start_from_stable_audio(model.model.model, released)
    wide = toy_json()
    wide["model"]["diffusion"]["config"] |= {"embed_dim": 128, "num_heads": 4}
    with pytest.raises(InputError, match="no layer of a transformer there fits"):
        start_from_stable_audio(build(wide).model.model, stable_audio)


def test_layer_numbers_are_grouped():
    keys = ["a.layers.0.b", "a.layers.11.b", "c"]
    assert grouped(keys) == "a.layers.*.b × 2, c"
