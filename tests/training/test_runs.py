"""Real runs of train.py on a toy data set: fit, interrupt, resume, load. Each mistake gives one line."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.data_folder import dataset_config
from helpers.toys import ROOT
from helpers.training_toys import TheSet, checkpoint, logged, make_place, raw_config, run

import train
from diff_v2m.checkpoints.__main__ import export
from diff_v2m.checkpoints.loading import load_model
from diff_v2m.common.errors import InputError
from diff_v2m.config import load_model_config, parse_model_config
from diff_v2m.data.loader import build_dataloader
from diff_v2m.generation.needs import warn_of_other_encoder
from diff_v2m.training.diffusion_module import DiffusionModule

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def uninterrupted(place, tmp_path_factory) -> Path:
    """Seven steps: two epochs of three batches, and one more."""
    return run(place, tmp_path_factory.mktemp("runs") / "whole", "--max-steps", 7, "--checkpoint-every", 100)


def test_a_run_learns_and_leaves_a_checkpoint_that_loads(uninterrupted):
    content = checkpoint(uninterrupted)
    assert content["global_step"] == 7 and content["model_config"] == raw_config()
    config = parse_model_config(raw_config())
    fresh = DiffusionModule(config)
    assert content["state_dict"].keys() == fresh.state_dict().keys()
    assert content["timesteps_drawn"] == 14

    averaged, read_config = load_model(uninterrupted / "checkpoints/last.ckpt", weights="ema")
    online, _ = load_model(uninterrupted / "checkpoints/last.ckpt", weights="online")
    assert read_config == config
    state, name = content["state_dict"], "model.transformer.project_out.weight"
    assert torch.equal(online.model.state_dict()[name], state["diffusion.model." + name])
    assert torch.equal(averaged.model.state_dict()[name], state["diffusion_ema.ema_model." + name])
    assert not torch.equal(online.model.state_dict()[name], averaged.model.state_dict()[name])

    exported, _ = load_model(uninterrupted / "model.safetensors")
    for key, tensor in averaged.model.state_dict().items():
        assert torch.allclose(exported.model.state_dict()[key], tensor, rtol=1e-3, atol=1e-4), key


def test_the_average_lags_one_step_and_is_of_the_network_alone(place, tmp_path):
    """As released: updated before the optimiser's step, so that two updates copy what the first step left."""
    first = checkpoint(run(place, tmp_path / "a", "--max-steps", 1))["state_dict"]
    second = checkpoint(run(place, tmp_path / "b", "--max-steps", 2))["state_dict"]
    name = "model.transformer.project_out.weight"
    assert int(second["diffusion_ema.step"]) == 2
    assert torch.equal(second["diffusion_ema.ema_model." + name], first["diffusion.model." + name])
    assert not torch.equal(second["diffusion.model." + name], first["diffusion.model." + name])
    frozen = [key for key in first if key.startswith("diffusion.pretransform.")]
    assert frozen and all(torch.equal(first[key], second[key]) for key in frozen)


def test_an_interrupted_run_equals_an_uninterrupted_one(place, uninterrupted, tmp_path):
    """Stopped in the middle of the second epoch; data order, crops, timesteps, noise and dropout continue."""
    folder = run(place, tmp_path / "pieces", "--max-steps", 4)
    assert checkpoint(folder)["global_step"] == 4
    run(place, folder, "--max-steps", 7, "--recover")
    assert checkpoint(folder)["global_step"] == 7
    for column in ("train/loss", "train/mse_loss", "train/rhythm_loss", "train/p_true_rhythm"):
        whole, pieces = logged(uninterrupted, column), logged(folder, column)
        assert list(whole) == list(pieces) == list(range(7))
        assert pieces == pytest.approx(whole, rel=1e-5), column
    whole, pieces = checkpoint(uninterrupted)["state_dict"], checkpoint(folder)["state_dict"]
    assert all(torch.allclose(pieces[key].float(), whole[key].float(), atol=1e-5) for key in whole)


def test_a_run_stopped_at_the_end_of_an_epoch_starts_the_next(place, uninterrupted, tmp_path):
    folder = run(place, tmp_path / "pieces", "--max-steps", 3)
    run(place, folder, "--max-steps", 5, "--ckpt_path", folder / "checkpoints/last.ckpt")
    whole = logged(uninterrupted)
    assert logged(folder) == pytest.approx({step: whole[step] for step in range(5)}, rel=1e-5)


def test_means_between_log_entries_survive_an_interruption(place, tmp_path):
    raw = raw_config()
    raw["training"]["log_loss_info"] = True
    (place / "informed.json").write_text(json.dumps(raw))
    flags = ("--model-config", place / "informed.json", "--log-every", 4)
    whole = run(place, tmp_path / "whole", *flags, "--max-steps", 4)
    pieces = run(place, tmp_path / "pieces", *flags, "--max-steps", 2)
    run(place, pieces, *flags, "--max-steps", 4, "--recover")
    found = [[logged(folder, f"train/mse_t{t}") for t in (0.1, 0.3, 0.5, 0.7, 0.9)] for folder in (whole, pieces)]
    assert any(found[0]) and found[0] == found[1]


def test_order_and_crops_do_not_depend_on_workers(place):
    config = load_model_config(place / "model.json")

    def epochs(workers: int) -> list:
        loader = build_dataloader(
            dataset_config(TheSet(place), random_crop=True), config, batch_size=2, num_workers=workers, seed=3
        )
        return [(batch.names, batch.seconds_start.tolist()) for _ in range(3) for batch in loader]

    alone = epochs(0)
    assert epochs(1) == alone and len({start for _, starts in alone for start in starts}) > 2
    assert alone[:3] != alone[3:6]


def test_another_seed_is_another_run(place, uninterrupted, tmp_path):
    other = logged(run(place, tmp_path / "other", "--max-steps", 1, "--seed", 43))
    assert other[0] != pytest.approx(logged(uninterrupted)[0], rel=1e-4)


def test_accumulation_validation_and_the_best_checkpoint(place, tmp_path):
    """Six clips, batches of 1, two a step: three steps an epoch and as many updates of the average."""
    folder = run(
        place,
        tmp_path / "run",
        "--max-epochs",
        2,
        "--batch_size=1",
        "--accum-batches",
        2,
        "--precision",
        "16",
        "--val-dataset-config",
        place / "data.json",
        "--checkpoint-every",
        2,
        "--gradient-clip-val",
        1,
    )
    content = checkpoint(folder)
    assert content["global_step"] == 6 and int(content["state_dict"]["diffusion_ema.step"]) == 6
    losses = logged(folder, "val/loss")
    assert len(losses) == 2 and logged(folder, "val/rhythm_loss").keys() == losses.keys()
    times = [logged(folder, f"val/mse_t{t}") for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
    step = max(losses)
    assert losses[step] == pytest.approx(sum(values[step] for values in times) / 5, rel=1e-4)
    best = min(losses, key=losses.get)
    assert [path.name for path in (folder / "checkpoints").glob("best*")] == [f"best-step={best + 1}.ckpt"]


def test_validation_repeats_itself(place):
    module = DiffusionModule(load_model_config(place / "model.json")).eval()
    loader = build_dataloader(dataset_config(TheSet(place)), module.config, batch_size=2, training=False)
    seen = []
    module.log = lambda name, value, **_: seen.append((name, float(value)))
    for _ in range(2):
        with torch.no_grad():
            module.validation_step(next(iter(loader)), 0)
        torch.rand(1)
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :] and len(seen) > 2


def test_new_runs_start_from_given_weights(place, uninterrupted, tmp_path):
    """--pretrained-ckpt-path fills the network and its average; --pretransform-ckpt-path only the autoencoder."""
    start = uninterrupted / "model.safetensors"
    settings = train.parse_arguments(
        ["--model-config", "m", "--dataset-config", "d", "--pretrained-ckpt-path", str(start)], ROOT / "defaults.ini"
    )
    config = load_model_config(place / "model.json")
    module = DiffusionModule.from_settings(config, settings)
    expected = load_model(start)[0]
    for ours in (module.diffusion.model, module.diffusion_ema.ema_model):
        assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in expected.model.state_dict().items())
    settings.pretrained_ckpt_path, settings.pretransform_ckpt_path = None, str(start)
    module = DiffusionModule.from_settings(config, settings)
    vae = expected.pretransform.state_dict()
    assert all(torch.equal(tensor, vae[name]) for name, tensor in module.diffusion.pretransform.state_dict().items())
    name = "model.transformer.project_out.weight"
    assert not torch.equal(module.diffusion.model.state_dict()[name], expected.model.state_dict()[name])


# ------------------------------------------------------------------------------------------------- bad input


def other_model(place: Path, **changes: object) -> str:
    raw = copy.deepcopy(raw_config())
    raw |= changes
    path = place / "other.json"
    path.write_text(json.dumps(raw))
    return str(path)


def other_data(place: Path, **changes: object) -> str:
    raw = json.loads((place / "data.json").read_text())
    raw["datasets"][0] |= changes
    path = place / "other_data.json"
    path.write_text(json.dumps(raw))
    return str(path)


def without_optimizer(place: Path) -> str:
    return other_model(place, training=raw_config()["training"] | {"optimizer_configs": {}})


def garbage(place: Path) -> str:
    (place / "garbage.ckpt").write_bytes(b"PK\x03\x04 not a checkpoint")
    return str(place / "garbage.ckpt")


MISTAKES = {
    "model config missing": (["--model-config", "nowhere.json"], "nowhere.json: cannot be read"),
    "dataset config missing": (["--dataset-config", "nowhere.json"], "nowhere.json: cannot be read"),
    "validation config missing": (["--val-dataset-config", "nowhere.json"], "nowhere.json: cannot be read"),
    "unknown key in the dataset": (["--dataset-config", lambda p: other_data(p, pth="x")], "pth: unknown key .*path"),
    "wav folder missing": (["--dataset-config", lambda p: other_data(p, path="nowhere")], "nowhere"),
    "no optimiser": (["--model-config", without_optimizer], "optimizer_configs.diffusion: missing"),
    "no training": (["--model-config", lambda p: other_model(p, training=None)], "training"),
    "checkpoint missing": (["--ckpt-path", "nowhere.ckpt"], "--ckpt-path: nowhere.ckpt: no such checkpoint"),
    "checkpoint damaged": (["--ckpt-path", garbage], "truncated or damaged"),
    "start weights missing": (
        ["--pretrained-ckpt-path", "nowhere.ckpt"],
        "--pretrained-ckpt-path: nowhere.ckpt: no such",
    ),
    "transformer missing": (["--init-dit-ckpt-path", "nowhere.ckpt"], "--init-dit-ckpt-path: nowhere.ckpt: no such"),
    "autoencoder missing": (["--pretransform-ckpt-path", "nowhere.ckpt"], "--pretransform-ckpt-path: nowhere.ckpt: no"),
    "batch size": (["--batch-size", "-1"], "--batch-size -1: expected at least 1"),
    "no GPU": (["--accelerator", "cuda"], "--accelerator"),
    "strategy": (["--strategy", "dpp"], "dpp.*--strategy"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake, place, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    flags, message = MISTAKES[mistake]
    with pytest.raises(InputError, match=message) as caught:
        run(place, tmp_path / "run", *(flag(place) if callable(flag) else flag for flag in flags))
    assert "\n" not in str(caught.value)
    assert mistake in ("no GPU", "strategy") or not (tmp_path / "run").exists()


def test_missing_files_and_a_taken_name_are_reported_before_torch_is_imported(place, uninterrupted):
    program = "import sys, train; status = train.main(sys.argv[1:]); sys.exit(10 * status + ('torch' in sys.modules))"
    flags = ["--model-config", place / "model.json", "--dataset-config", place / "data.json"]
    flags += ["--save-dir", uninterrupted.parent, "--name", uninterrupted.name]
    for more, message in (([], "holds a run already"), (["--recover", "--init-dit-ckpt-path", "x"], "no such weights")):
        command = [sys.executable, "-c", program, *map(str, flags + more)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 10 and message in done.stderr, done.stderr


def test_a_run_starts_from_a_folder_with_weights(place, uninterrupted, tmp_path):
    folder = run(place, tmp_path / "run", "--max-steps", 1, "--pretrained-ckpt-path", uninterrupted)
    assert json.loads((folder / "run.json").read_text())["starts"][0]["settings"]["pretrained_ckpt_path"] == str(
        uninterrupted / "model.safetensors"
    )


def test_an_average_that_was_never_updated_is_warned_of_at_the_end_and_by_export(place, tmp_path, caplog):
    folder = run(place, tmp_path / "run", "--max-steps", 2)
    assert caplog.text.count("model.safetensors: the moving average was never updated") == 1
    caplog.clear()
    export(folder / "checkpoints/last.ckpt", tmp_path / "out.safetensors")
    assert caplog.text.count("last.ckpt: the moving average was never updated") == 1


def test_a_run_shows_no_tips_of_lightning(place, tmp_path, capfd, caplog, recwarn):
    run(place, tmp_path / "run", "--max-steps", 1, "--val-dataset-config", place / "data.json")
    shown = capfd.readouterr()
    text = "".join([shown.out, shown.err, caplog.text, *(str(warning.message) for warning in recwarn.list)])
    for noise in ("Tip", "TPU", "srun", "estimate", "eval mode", "weights_only", "many workers", "v_num", "Training: "):
        assert noise not in text, noise


def test_a_model_knows_which_weights_made_its_training_features(tmp_path, caplog):
    place, name = make_place(tmp_path / "place"), "hog@0123456789abcdef"
    (about,) = place.rglob("features.json")
    about.write_text(json.dumps(json.loads(about.read_text()) | {"encoder": name}))
    folder = run(place, tmp_path / "run", "--max-steps", 1)
    semantic = load_model(folder / "model.safetensors")[1].model.conditioning["semantic"].config
    assert (semantic.encoder, semantic.encoder_identity) == ("hog", name)
    caplog.clear()
    for made_by in (name, None, "hog"):  # the same, and those that do not say
        warn_of_other_encoder(semantic, made_by)
    assert not caplog.records
    warn_of_other_encoder(semantic, "hog@fedcba9876543210")
    assert len(caplog.records) == 1 and "made by hog@fedc" in caplog.text and "those of hog@0123" in caplog.text


def test_resuming_needs_a_checkpoint_of_this_model(place, uninterrupted, tmp_path):
    with pytest.raises(InputError, match="holds weights alone.*--pretrained-ckpt-path"):
        run(place, tmp_path / "a", "--ckpt-path", uninterrupted / "model.safetensors")
    wider = raw_config()
    wider["model"]["diffusion"]["config"]["depth"] = 2
    (tmp_path / "wider.json").write_text(json.dumps(wider))
    with pytest.raises(InputError, match="does not fit the model config.*keys missing"):
        run(
            place,
            tmp_path / "a",
            "--ckpt-path",
            uninterrupted / "checkpoints/last.ckpt",
            "--model-config",
            tmp_path / "wider.json",
        )


def test_an_unwritable_place_for_the_run(place, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made: .*--save-dir"):
        run(place, tmp_path / "file" / "run")
