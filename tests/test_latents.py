"""Encoding a data set's soundtracks once: what training then reads is what the autoencoder says of them."""

import json

import numpy as np
import pytest
import torch
from data_folder import Folder
from toys import RATE, WINDOW, save_toy_model, toy_raw_config

from diff_v2m import latents, media
from diff_v2m.checkpoints import load_model
from diff_v2m.config import load_dataset_config, parse_model_config
from diff_v2m.dataset import AudioVideoDataset
from diff_v2m.errors import InputError


def write(tmp_path, **changes) -> list[str]:
    """The command's arguments, for a set with a whole clip, a short one and one longer than the window."""
    folder = Folder(tmp_path)
    for number, seconds in enumerate((WINDOW, 1.5, WINDOW + 1.5)):
        folder.add(f"c{number}", number, seconds=seconds, clicks=(0.5,), rate=RATE)
    entry = folder.entry(latents="latents") | changes
    given = {key: value for key, value in entry.items() if value is not None}
    (tmp_path / "data.json").write_text(json.dumps({"dataset_type": "audio_video_dir", "datasets": [given]}))
    (tmp_path / "model.json").write_text(json.dumps(toy_raw_config()))
    model = save_toy_model(tmp_path / "toy.safetensors")
    return [
        "--dataset-config", str(tmp_path / "data.json"), "--model-config", str(tmp_path / "model.json"),
        "--pretransform-ckpt-path", str(model),
    ]  # fmt: skip


def test_every_soundtrack_is_encoded_and_training_reads_it(tmp_path):
    arguments = write(tmp_path)
    latents.main(arguments)
    files = sorted((tmp_path / "set/latents").glob("*"))
    assert [path.name for path in files] == ["c0.npy", "c1.npy", "c2.npy"]
    first = [np.load(path) for path in files]
    assert [array.shape for array in first] == [(64, 63), (64, 63), (64, 86)]
    assert all(array.dtype == np.float16 for array in first)

    model, _ = load_model(tmp_path / "toy.safetensors")
    audio = media.read_audio(tmp_path / "set/wav/c0.wav", RATE, 1)
    with torch.no_grad():
        mean, std = model.pretransform.posterior(torch.from_numpy(audio)[None])
    distance = (torch.from_numpy(first[0]).float() - mean[0]) / std[0]
    assert distance.abs().max() < 5.5 and distance.std() == pytest.approx(1, abs=0.1)

    latents.main(arguments)
    assert all(np.array_equal(array, np.load(path)) for array, path in zip(first, files, strict=True))

    data = AudioVideoDataset(load_dataset_config(tmp_path / "data.json"), parse_model_config(toy_raw_config()))
    assert np.array_equal(data[0].latents.numpy(), first[0].astype(np.float32)) and data[0].audio is None


@pytest.mark.parametrize("key", ["latents", "path"])
def test_both_folders_must_be_named(tmp_path, key):
    with pytest.raises(InputError, match="set: expected `path` .* and `latents`"):
        latents.main(write(tmp_path, **{key: None}))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        latents.main(write(tmp_path, path="nowhere"))
