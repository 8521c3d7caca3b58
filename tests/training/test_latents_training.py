"""train.py on precomputed latents from folders and from shards equals a run that encodes the audio."""

import json
from pathlib import Path

import pytest
import torch
from helpers.data_folder import Folder
from helpers.toys import RATE, WINDOW, save_toy_model
from helpers.training_toys import logged, raw_config, run

from diff_v2m.checkpoints.files import save_model
from diff_v2m.checkpoints.loading import load_model
from diff_v2m.common.errors import InputError
from diff_v2m.preprocess.__main__ import main as preprocess

COLUMNS = ("train/loss", "train/mse_loss", "train/rhythm_loss", "train/grad_norm")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """live.json, latents.json and shards/dataset.json, of the same six clips; an autoencoder that adds next to no noise
    of its own, so that runs can be compared which draw it differently.
    """
    root = tmp_path_factory.mktemp("training")
    folder = Folder(root)
    for number in range(6):
        folder.add(f"c{number}", number, seconds=WINDOW + number % 2, clicks=(0.5, 1.5 + number % 3), rate=RATE)
    (root / "model.json").write_text(json.dumps(raw_config()))
    for name, latents in (("live", None), ("latents", "latents")):
        kind = {"dataset_type": "audio_video_dir", "random_crop": False, "phase_flip": False}
        (root / f"{name}.json").write_text(json.dumps({**kind, "datasets": [folder.entry(latents=latents)]}))

    model, config = load_model(save_toy_model(root / "toy.safetensors", depth=1))
    last = model.pretransform.model["encoder"].layers[-1]
    last.weight_g.data[64:], last.bias.data[64:] = 0, -50  # of the posterior's deviation
    save_model(model, config, root / "quiet.safetensors", dtype=None)
    model.pretransform.model["encoder"].layers[0].bias.data[0] += 0.1
    save_model(model, config, root / "other.safetensors", dtype=None)
    assert (
        preprocess(
            [
                "latents",
                "--dataset-config",
                str(root / "latents.json"),
                "--model-config",
                str(root / "model.json"),
                "--pretransform-ckpt-path",
                str(root / "quiet.safetensors"),
            ]
        )
        == 0
    )
    assert (
        preprocess(
            [
                "shards",
                "--output",
                str(root / "shards"),
                "--dataset-config",
                str(root / "latents.json"),
                "--model-config",
                str(root / "model.json"),
                "--clips-per-shard",
                "4",
            ]
        )
        == 0
    )
    return root


def train(place: Path, folder: Path, data: str, weights: str = "quiet.safetensors") -> dict[str, dict[int, float]]:
    done = run(
        place,
        folder,
        "--dataset-config",
        place / data,
        "--val-dataset-config",
        place / data,
        "--max-steps",
        4,
        "--pretransform-ckpt-path",
        place / weights,
    )
    return {column: logged(done, column) for column in (*COLUMNS, "val/loss")}


@pytest.mark.slow
def test_the_same_run_from_sound_from_latents_and_from_shards(place, tmp_path):
    torch.manual_seed(0)
    live = train(place, tmp_path / "live", "live.json")
    cached = train(place, tmp_path / "cached", "latents.json")
    for column, values in live.items():
        assert len(values) >= 1 and cached[column] == pytest.approx(values, rel=2e-3), column
    assert train(place, tmp_path / "packed", "shards/dataset.json") == cached


def test_a_run_with_another_autoencoder_ends_in_one_line(place, tmp_path):
    with pytest.raises(InputError, match="made by autoencoder .* encode them again") as caught:
        train(place, tmp_path / "run", "latents.json", "other.safetensors")
    assert "\n" not in str(caught.value)
