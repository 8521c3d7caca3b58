"""Low-rank adapters: training, small checkpoints, resuming, and export to an ordinary model."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from helpers.toys import toy_features
from helpers.training_toys import checkpoint, logged, make_place, raw_config, run

from diff_v2m.checkpoints import __main__ as export
from diff_v2m.checkpoints.files import save_model
from diff_v2m.checkpoints.loading import load_model
from diff_v2m.common.errors import InputError
from diff_v2m.config import parse_model_config
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.model.dit import LatentDiffusion

pytestmark = pytest.mark.slow

NETWORK = "model.model.transformer.layers.0."


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """With base.safetensors, a model of which no weight is zero."""
    root = make_place(tmp_path_factory.mktemp("lora"))
    torch.manual_seed(0)
    model = LatentDiffusion(parse_model_config(raw_config()))
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_model(model, parse_model_config(raw_config()), root / "base.safetensors", dtype=None)
    return root


def tune(place: Path, folder: Path, *flags: object) -> Path:
    return run(place, folder, "--lora-rank", 2, "--pretrained-ckpt-path", place / "base.safetensors", *flags)


@pytest.fixture(scope="module")
def tuned(place, tmp_path_factory) -> Path:
    return tune(place, tmp_path_factory.mktemp("runs") / "tuned", "--max-steps", 6)


def test_adapters_alone_are_trained_and_saved(place, tuned):
    content, base = checkpoint(tuned), load_model(place / "base.safetensors")[0].state_dict()
    names = content["state_dict"].keys() - {"diffusion_ema.step", "diffusion_ema.initted"}
    assert names and all(".lora_A." in name or ".lora_B." in name for name in names)
    assert any(tensor.any() for name, tensor in content["state_dict"].items() if ".lora_B." in name)
    ours, theirs = ((p / f).stat().st_size for p, f in ((tuned, "checkpoints/last.ckpt"), (place, "base.safetensors")))
    assert ours < theirs / 5

    made = load_model(tuned / "model.safetensors")[0].state_dict()
    assert made.keys() == base.keys()
    rounded = {name: tensor.half().float() if tensor.numel() >= 4096 else tensor for name, tensor in base.items()}
    changed = {name for name in base if not torch.equal(made[name], rounded[name])}
    assert changed and all(name.startswith("model.model.transformer.layers.") for name in changed)
    assert math.isfinite(sum(logged(tuned).values()))


def test_export_merges_what_inference_then_loads(place, tuned, tmp_path):
    """The merged weights are W + B A; the file plays like any other."""
    out = tmp_path / "merged.safetensors"
    export.main(["export", str(tuned / "checkpoints/last.ckpt"), str(out), "--weights", "online", "--dtype", "float32"])
    state = checkpoint(tuned)["state_dict"]
    base, made = (load_model(path)[0].state_dict() for path in (place / "base.safetensors", out))
    for part in ("self_attn.to_qkv", "cross_attn0.to_kv", "cross_attn2.to_q", "ff.ff.0.proj", "ff.ff.2"):
        up, down = (state[f"diffusion.{NETWORK}{part}.lora_{side}.default.weight"] for side in "BA")
        name = f"{NETWORK}{part}.weight"
        assert torch.allclose(made[name], base[name] + up @ down, atol=1e-6), part

    averaged = tmp_path / "averaged.safetensors"
    export.main(["export", str(tuned / "checkpoints/last.ckpt"), str(averaged), "--dtype", "float32"])
    at_the_end = load_model(tuned / "model.safetensors")[0].state_dict()
    for name, tensor in load_model(averaged)[0].state_dict().items():
        assert torch.allclose(tensor, at_the_end[name], atol=2e-3), name
    model, config = load_model(out)
    music = DiffV2M(model, config).compose([toy_features(4.0)], ["video"], steps=2)[0]
    assert music.audio.shape[1] == 64000


def test_a_run_resumes_where_it_stopped(place, tuned, tmp_path):
    folder = tune(place, tmp_path / "pieces", "--max-steps", 4)
    tune(place, folder, "--max-steps", 6, "--recover")
    assert logged(folder) == logged(tuned)
    whole, pieces = checkpoint(tuned)["state_dict"], checkpoint(folder)["state_dict"]
    assert whole.keys() == pieces.keys() and all(torch.equal(pieces[name], whole[name]) for name in whole)


def test_what_was_trained_survives_an_export_that_fails(place, tmp_path):
    folder, out = tmp_path / "run", tmp_path / "out.safetensors"
    (folder / "model.safetensors").mkdir(parents=True)  # in its place no file can be written
    with pytest.raises(InputError, match="cannot be written.*what was trained is in .*last.ckpt.* --recover"):
        tune(place, folder, "--max-steps", 3)
    export.main(["export", str(folder / "checkpoints/last.ckpt"), str(out), "--dtype", "float32"])
    (folder / "model.safetensors").rmdir()
    tune(place, folder, "--max-steps", 3, "--recover")
    again, whole = (load_model(path)[0].state_dict() for path in (folder / "model.safetensors", out))
    assert all(torch.allclose(again[name], whole[name], atol=1e-3) for name in whole)


def test_adapters_belong_to_one_model(place, tuned, tmp_path):
    last, out = tuned / "checkpoints/last.ckpt", tmp_path / "out.safetensors"
    other = tmp_path / "other.safetensors"
    torch.manual_seed(2)
    save_model(LatentDiffusion(parse_model_config(raw_config())), parse_model_config(raw_config()), other)
    with pytest.raises(InputError, match="trained on .*base.safetensors, and .*other.safetensors is another model"):
        export.run(export.parse(["export", str(last), str(out), "--base", str(other)]))
    with pytest.raises(InputError, match="base.safetensors, another model; give that as --pretrained-ckpt-path"):
        run(place, tmp_path / "run", "--lora-rank", 2, "--pretrained-ckpt-path", other, "--ckpt-path", last)
    with pytest.raises(InputError, match="holds low-rank adapters alone; .*export"):
        load_model(last)
    with pytest.raises(InputError, match="base.safetensors: holds whole weights; --base is for"):
        export.run(export.parse(["export", str(place / "base.safetensors"), str(out), "--base", str(other)]))
    moved = tmp_path / "moved.safetensors"
    shutil.copy(place / "base.safetensors", moved)
    export.main(["export", str(last), str(out), "--base", str(moved)])
    assert out.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lora-rank", 2], "--lora-rank: expected --pretrained-ckpt-path FILE too"),
        (["--lora-rank", 2, "--pretrained-ckpt-path", "a", "--init-dit-ckpt-path", "b"], "--init-dit-ckpt-path and"),
        (["--lora-rank", 2, "--pretrained-ckpt-path", "a", "--pretransform-ckpt-path", "b"], "--pretransform-ckpt"),
        (["--lora-rank", 2, "--pretrained-ckpt-path", "a", "--strategy", "fsdp2"], "--lora-rank with --strategy fsdp2"),
        (["--init-dit-ckpt-path", "b", "--pretrained-ckpt-path", "a"], "init-dit-ckpt-path and --pretrained-ckpt-path"),
    ],
)
def test_flags_that_do_not_go_together(place, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        run(place, tmp_path / "run", *flags)
