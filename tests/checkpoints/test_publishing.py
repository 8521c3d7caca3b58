"""A model as a folder in the hub's layout, uploaded to a server that speaks its protocol, and loaded by name."""

import json

import pytest
import torch
from helpers import toys
from helpers.hub_server import serve, use_hub

from diff_v2m.checkpoints.files import read_weights
from diff_v2m.common.errors import InputError
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.weights.finding import find_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a finished model."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    toys.save_toy_model(folder / "model.safetensors")
    start = {
        "time": "2026-01-01T00:00:00+00:00",
        "settings": {
            "seed": 7,
            "max_steps": 100,
            "pretrained_ckpt_path": "/home/me/base.ckpt",
            "dataset_config": "/home",
        },
        "code": {"git": "abc123"},
        "fingerprints": {"dataset": "f00d"},
    }
    (folder / "run.json").write_text(json.dumps({"id": "1", "starts": [start, start]}))
    (folder / "results.md").write_text(
        "# Held-out clips\n\n| | system | threshold |\n|---|---|---|\n| r | .9 | ≥ .5 met |\n"
    )
    return folder


@pytest.fixture(scope="module")
def model(run):
    return DiffV2M.from_pretrained(run, device="cpu")


def test_a_saved_folder_loads_again_and_has_a_card(model, run, tmp_path):
    from huggingface_hub import ModelCard

    folder = model.save_pretrained(tmp_path / "out", dtype=None, license="mit", results=run / "results.md")
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model_config.json", "README.md"}
    ours, theirs = read_weights(folder).state, read_weights(run).state
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert DiffV2M.from_pretrained(folder, device="cpu").config.raw == model.config.raw
    card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
    assert card.data.license == "mit" and card.data.library_name == "diff-v2m" and "video-to-music" in card.data.tags
    assert "| r | .9 | ≥ .5 met |" in card.text and "## Held-out clips" in card.text
    assert "first, started 2 times" in card.text and "| seed | 7 |" in card.text and "f00d" in card.text
    assert "base.ckpt" in card.text and "/home" not in card.text, "no paths of the machine"


def test_a_model_that_is_pushed_loads_by_name(model, run, tmp_path, monkeypatch):
    with serve() as hub:
        use_hub(monkeypatch, hub.endpoint, tmp_path / "cache")
        monkeypatch.setenv("HF_TOKEN", "hf_toy")
        page = model.push_to_hub("me/toy", dtype=None)
        assert page.startswith(hub.endpoint) and set(hub.repos["me/toy"].files) >= {"model.safetensors", "README.md"}
        assert b"hf:me/toy" in hub.repos["me/toy"].files["README.md"]
        assert b"Not stated by the publisher" in hub.repos["me/toy"].files["README.md"]
        loaded = read_weights("hf:me/toy").state
        assert all(torch.equal(loaded[key], value) for key, value in read_weights(run).state.items())
        assert DiffV2M.from_pretrained("hf:me/toy", device="cpu").source.path == find_weights("hf:me/toy")


def test_what_cannot_be_saved_or_pushed(model, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="results.md: cannot be read"):
        model.save_pretrained(tmp_path / "a", results=tmp_path / "results.md")
    assert not (tmp_path / "a").exists()
    with pytest.raises(InputError, match="expected owner/repo"):
        model.push_to_hub("me/toy/file")
    with pytest.raises(InputError, match="not loaded from a file"):
        DiffV2M(model.model, model.config).save_pretrained(tmp_path / "b")
    use_hub(monkeypatch, None, tmp_path / "cache")
    with pytest.raises(InputError, match="me/toy: .*HF_HUB_OFFLINE is set"):
        model.push_to_hub("me/toy")
