"""train.py on scores: the score autoencoder, its latents, and the generator on them."""

import json
import math

import mido
import numpy as np
import pytest
import torch
from helpers.data_folder import Folder
from helpers.toy_scores import RATE, save_toy_score_model, score_autoencoder_json, toy_score, toy_score_config
from safetensors.torch import load_file

import train
from diff_v2m.checkpoints.loading import load_vae_weights
from diff_v2m.common.errors import InputError
from diff_v2m.config import load_dataset_config, parse_dataset_config, parse_model_config
from diff_v2m.data.dataset import AudioVideoDataset
from diff_v2m.data.latent_store import Encodings
from diff_v2m.model.score_autoencoder import ScoreVAE
from diff_v2m.preprocess.__main__ import main as preprocess
from diff_v2m.score.midi import write_midi
from diff_v2m.training.score_module import ScoreAutoencoderModule, ScoreCrops

FAST = {"optimizer": {"type": "AdamW", "config": {"lr": 0.003}}}


def raw_config() -> dict:
    top = {"model_type": "autoencoder", "sample_rate": RATE, "sample_size": 3 * RATE, "audio_channels": 2}
    return top | {"model": score_autoencoder_json(), "training": {"optimizer_configs": {"autoencoder": FAST}}}


@pytest.fixture(scope="module")
def midis(tmp_path_factory):
    folder = tmp_path_factory.mktemp("midis")
    for seed in range(6):
        write_midi(folder / f"{seed}.mid", toy_score(6.0, seed))
    write_midi(folder / "short.mid", toy_score(2.0))
    return folder


def data(folder) -> dict:
    entry = {"id": "scores", "path": str(folder), "video_feat": "none", "video_info": "none.json"}
    return {"dataset_type": "audio_video_dir", "random_crop": True, "datasets": [entry]}


def run(folder, raw, dataset, *flags):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps(raw))
    (folder / "data.json").write_text(json.dumps(dataset))
    named = ("--model-config", folder / "model.json", "--dataset-config", folder / "data.json")
    place = ("--save-dir", folder.parent, "--name", folder.name, "--logger", "none", "--accelerator", "cpu")
    sizes = ("--batch-size", 3, "--num-workers", 0, "--precision", 32, "--max-epochs", -1, "--log-every", 1)
    train.run(train.parse([str(part) for part in (*named, *place, *sizes, *flags)]))
    return folder


@pytest.fixture(scope="module")
def trained(midis, tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "score", raw_config(), data(midis), "--max-steps", 4)


def test_a_run_measures_and_exports_its_latents(trained, midis):
    config = parse_model_config(raw_config())
    vae = ScoreVAE(config.pretransform.config)
    load_vae_weights(vae, trained / "model.safetensors")
    crops = ScoreCrops(parse_dataset_config(data(midis)), config)
    latents = vae.encode(torch.stack([crops[index] for index in range(6)] * 4)).detach()
    assert latents.mean((0, 2)).abs().max() < 0.5 and (latents.std((0, 2)) - 1).abs().max() < 0.5


def test_a_finished_run_that_is_started_again_measures_its_latents(trained, midis, tmp_path):
    last = trained / "checkpoints" / "last.ckpt"
    folder = run(tmp_path / "again", raw_config(), data(midis), "--ckpt-path", last, "--max-steps", 4)
    before, after = load_file(trained / "model.safetensors"), load_file(folder / "model.safetensors")
    for name in ("autoencoder.latent_mean", "autoencoder.latent_std"):
        assert torch.allclose(after[name], before[name], atol=0.1), name
    with pytest.raises(InputError, match="last.ckpt: latent_mean is 0"):
        load_vae_weights(ScoreVAE(parse_model_config(raw_config()).pretransform.config), last)


def test_a_run_resumes_and_validates(trained, midis, tmp_path):
    (tmp_path / "val.json").write_text(json.dumps(data(midis)))
    last = trained / "checkpoints" / "last.ckpt"
    flags = ("--ckpt-path", last, "--max-steps", 6, "--val-dataset-config", tmp_path / "val.json")
    folder = run(tmp_path / "again", raw_config(), data(midis), *flags)
    before, after = load_file(trained / "model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in before)


def test_crops_are_windows_of_the_scores(midis):
    config = parse_model_config(raw_config())
    crops = ScoreCrops(parse_dataset_config(data(midis)), config)
    assert len(crops) == 6 and crops[0].shape == crops[0].shape and crops[0].shape[1] == 45
    torch.manual_seed(0)
    assert not torch.equal(crops[0], crops[0])


def test_a_loss_that_is_finite_has_gradients_everywhere(midis):
    config = parse_model_config(raw_config())
    module = ScoreAutoencoderModule(config)
    crops = ScoreCrops(parse_dataset_config(data(midis)), config)
    total = module.total(module.losses(torch.stack([crops[0], crops[1]])))
    total.backward()
    assert math.isfinite(total.item())
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


@pytest.mark.parametrize("fault", ["empty", "missing", "short", "broken"])
def test_refused_folders(fault, midis, tmp_path):
    folder, message = tmp_path / "set", "no .mid .midi files in"
    if fault != "missing":
        folder.mkdir()
    else:
        message = "cannot list the folder"
    if fault == "short":
        write_midi(folder / "short.mid", toy_score(2.0))
        message = "no .mid of at least 3 s"
    if fault == "broken":
        (folder / "bad.mid").write_bytes(b"MThd")
        message = "bad.mid: cannot be read as MIDI"
    with pytest.raises(InputError, match=message):
        ScoreCrops(parse_dataset_config(data(folder)), parse_model_config(raw_config()))


def test_hidden_files_are_no_scores(tmp_path):
    write_midi(tmp_path / "a.mid", toy_score(6.0))
    (tmp_path / "._a.mid").write_bytes(b"Mac OS X")
    assert len(ScoreCrops(parse_dataset_config(data(tmp_path)), parse_model_config(raw_config()))) == 1


# ------------------------------------------------------------------------------------------- latents, generator


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Four clips with features and MIDI files, of which two have a wav; their latents, encoded."""
    root = tmp_path_factory.mktemp("place")
    folder = Folder(root)
    for number in range(4):
        folder.add(f"c{number}", number, seconds=6.0, channels=2, rate=RATE, clicks=(0.5, 2.5))
        write_midi(folder.root / "wav" / f"c{number}.mid", toy_score(6.0, number))
        if number > 1:
            (folder.root / "wav" / f"c{number}.wav").unlink()
    raw = toy_score_config()
    raw["training"]["demo"] = None
    raw["training"]["optimizer_configs"]["diffusion"] = FAST
    (root / "model.json").write_text(json.dumps(raw))
    for name, latents in (("data", "latents"), ("live", None)):
        kind = {"dataset_type": "audio_video_dir", "rhythm_type": "odf", "random_crop": True, "phase_flip": True}
        (root / f"{name}.json").write_text(json.dumps(kind | {"datasets": [folder.entry(latents=latents)]}))
    model = save_toy_score_model(root / "model.safetensors")
    flags = ("--dataset-config", root / "data.json", "--model-config", root / "model.json", "--encodings", 3)
    weights = ("--pretransform-ckpt-path", model, "--device", "cpu")
    assert preprocess([str(part) for part in ("latents", *flags, *weights)]) == 0
    return root


def test_latents_of_scores_with_the_rhythm_of_their_sound(place):
    made = [Encodings.open(path) for path in sorted((place / "set/latents").iterdir())]
    assert len(made) == 4
    for encodings in made:
        assert [crop.inverted for crop in encodings.crops] == [False] * 3  # polarity means nothing for a score
        assert encodings.latents(0).shape == (64, 60) and torch.isfinite(encodings.rhythm("odf", 0)).all()
    clicks = np.flatnonzero(made[0].rhythm("odf", 0)[:, 0] > 0.5)
    assert clicks.tolist() == [0, 2]  # of the wav beside it
    assert (made[3].rhythm("odf", 0) > 0).sum() > 2  # of the rendered score


def test_a_midi_file_without_notes_is_named(place, tmp_path, caplog):
    folder = Folder(tmp_path).add("c0", seconds=4.0, channels=2, rate=RATE)
    mido.MidiFile(tracks=[mido.MidiTrack()]).save(tmp_path / "set/wav/c0.mid")
    entry = folder.entry(latents="latents")
    (tmp_path / "data.json").write_text(json.dumps({"dataset_type": "audio_video_dir", "datasets": [entry]}))
    flags = ("--dataset-config", tmp_path / "data.json", "--model-config", place / "model.json")
    weights = ("--pretransform-ckpt-path", place / "model.safetensors", "--device", "cpu")
    assert preprocess([str(part) for part in ("latents", *flags, *weights)]) == 1
    assert "c0.mid: holds no notes" in caplog.text


def test_items_on_the_fly_hold_frames(place):
    config = parse_model_config(json.loads((place / "model.json").read_text()))
    dataset = AudioVideoDataset(load_dataset_config(place / "live.json"), config)
    item = dataset[2]
    assert item.audio.shape == dataset.source.empty(config).shape and item.audio.any() and item.rhythm.any()


@pytest.mark.parametrize("name", ["data", "live"])
def test_the_generator_trains_on_scores(place, name, tmp_path):
    raw, dataset = (json.loads((place / f"{file}.json").read_text()) for file in ("model", name))
    flags = ("--pretransform-ckpt-path", place / "model.safetensors", "--max-steps", 2)
    folder = run(tmp_path / name, raw, dataset, *flags)
    state = load_file(folder / "model.safetensors")
    assert any(key.startswith("diffusion.pretransform.model.encoder") for key in state)
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
