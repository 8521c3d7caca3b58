"""Scores of finished variants: real music of the domain, its classifiers, and a toy model of random weights."""

import json

import pytest
from helpers.toys import save_toy_model, toy_features

from diff_v2m.common.errors import InputError
from diff_v2m.common.versions import FEATURE_VERSION
from diff_v2m.generation.settings import SamplingSettings
from experiments.ablations import __main__ as command
from experiments.ablations import scores
from experiments.synthetic import check, render
from experiments.synthetic.scene import HELD_OUT

SETTINGS = SamplingSettings(steps=2, sampler="dpmpp-3m")
FIRST = HELD_OUT + 100_000


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """The music of two clips of the set that scripts/ablations.sh renders; with arbitrary features."""
    folder, info = tmp_path_factory.mktemp("held_out"), {}
    for seed in (FIRST, FIRST + 1):
        render.render_wav(folder / f"wav/{seed}.wav", seed)
        info[f"{seed}.mp4"] = toy_features(30, seed).save(folder, str(seed))
    (folder / "videoInfo_30.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps({"feature_version": FEATURE_VERSION, "encoder": "hog"}))
    (folder / "dataset.json").write_text(json.dumps(render._dataset(folder)))
    return folder / "dataset.json"


@pytest.fixture(scope="module")
def classifiers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "FITTED_ON", range(24))
        return check.Classifiers()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished variants and one unfinished."""
    root = tmp_path_factory.mktemp("runs")
    for name in ("full/seed_1", "untimed/seed_2"):
        (root / name).mkdir(parents=True)
        save_toy_model(root / name / "model.safetensors")
    (root / "untimed/seed_3").mkdir()
    return root


@pytest.mark.slow
def test_finished_variants_are_scored_once(runs, held_out, classifiers, monkeypatch):
    monkeypatch.setattr(check, "Classifiers", lambda: classifiers)
    assert scores.score_all(runs, held_out, 2, SETTINGS) == 2
    found = {path.parent.name: json.loads(path.read_text()) for path in runs.rglob("scores.json")}
    assert set(found) == {"seed_1", "seed_2"} and found["seed_1"] == found["seed_2"]  # the same weights
    assert found["seed_1"]["settings"] == {
        "clips": 2,
        "steps": 2,
        "sampler": "dpmpp-3m",
        "guidance_scale": 3.0,
        "seed": 42,
    }
    values = found["seed_1"]["scores"]
    assert set(values) == {"onset_r", "onset_r_wrong", "mode", "instrument"}
    assert all(-1 <= value <= 1 for value in values.values())

    monkeypatch.setattr(check, "Classifiers", None)  # nothing is scored again
    command.main(["score", str(runs), "--dataset-config", str(held_out), "--clips", "2", "--steps", "2"])


@pytest.mark.slow
def test_real_music_has_the_highest_scores(held_out, classifiers, monkeypatch):
    """Scores of a generator that returns the clip's own music, and of one that returns the next clip's."""
    clips = scores.read_held_out(held_out, 2)

    class Player:
        def __init__(self, order):
            self.order = order

        def compose(self, features, names, settings):
            assert names == [clip.name for clip in clips] and settings is SETTINGS
            return [type("Piece", (), {"audio": clips[i].audio[None]}) for i in self.order]

    right, wrong = (scores.score(Player(order), clips, classifiers, SETTINGS) for order in ((0, 1), (1, 0)))
    assert right["onset_r"] > 0.98 and right["mode"] == 1 and right["instrument"] == 1
    assert wrong["onset_r_wrong"] == pytest.approx(right["onset_r"])
    assert wrong["onset_r"] == pytest.approx(right["onset_r_wrong"]) and wrong["onset_r"] < 0.5


def test_what_is_not_held_out_is_refused(tmp_path, held_out, monkeypatch):
    with pytest.raises(InputError, match="2 clips, --clips 3 were asked for"):
        scores.read_held_out(held_out, 3)
    with pytest.raises(InputError, match="--clips 1: expected at least 2"):
        command.run(command.parse(["score", str(tmp_path), "--dataset-config", str(held_out), "--clips", "1"]))
    monkeypatch.setattr(scores, "HELD_OUT", FIRST + 1)
    with pytest.raises(InputError, match=f"clip {FIRST} is not held out"):
        scores.read_held_out(held_out, 2)
    assert scores.score_all(tmp_path, held_out, 2, SETTINGS) == 0
