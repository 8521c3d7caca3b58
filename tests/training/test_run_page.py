"""The page of a real run that was interrupted and resumed, with demos: its text, and what a browser shows."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import browser
from helpers.training_toys import checkpoint, logged, make_place, raw_config, run

from diff_v2m.common.errors import InputError
from diff_v2m.training import run_page as summary
from diff_v2m.training.run_logs import read_logs

pytestmark = pytest.mark.slow

ODD = "<img src=x onerror=alert(1)> & co"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Four steps, then three more with another gradient clipping; validated, with a demo every third step."""
    place = make_place(tmp_path_factory.mktemp("summary"))
    raw = raw_config()
    raw["training"]["demo"] = {"demo_every": 3, "demo_steps": 2, "num_demos": 1, "demo_cfg_scales": [3]}
    (place / "model.json").write_text(json.dumps(raw))
    common = ("--val-dataset-config", place / "data.json", "--val-every", 2)
    made = run(place, place / "runs" / ODD, "--max-steps", 4, *common)
    (made / "model.safetensors").unlink()
    return run(place, made, "--max-steps", 7, "--recover", "--gradient-clip-val", 1, *common)


def test_the_page_is_there_when_a_run_has_ended_and_says_what_it_was(folder):
    page = (folder / "summary.html").read_text()
    logs = read_logs(folder)
    assert logs.restarts == (4,) and logs.curves["train/loss"] == logged(folder)
    facts = dict(summary.facts(summary.read_run(folder), logs))
    assert facts["steps logged"] == "7" and facts["starts"] == "2"
    assert facts["validation loss, last"] == f"{list(logged(folder, 'val/loss').values())[-1]:.4g}"
    for text in [*facts.values(), ">Ended<", "gradient_clip_val 1.0", "checkpoints/last.ckpt", "model.safetensors"]:
        assert text in page, text
    assert ODD not in page and "&lt;img src=x" in page  # names are data, never markup
    assert not re.search(r'(src|href)="(?!data:)[^"]*//', page)  # nothing from a network
    assert checkpoint(folder)["global_step"] == 7


def test_every_logged_value_has_a_curve_and_the_best_checkpoint_its_loss(folder):
    page, logs = (folder / "summary.html").read_text(), read_logs(folder)
    drawn = [name for panel in summary.panels(logs) for name in panel.curves]
    assert sorted(drawn) == sorted(set(logs.curves) - {"epoch"}) and len(drawn) > 15
    assert all(name in page for name in drawn)
    assert page.count("<svg") == len(summary.panels(logs))
    (best,) = [kept for kept in summary.checkpoints(folder, logs) if "best" in kept["path"]]
    assert best["loss"] == min(logged(folder, "val/loss").values())


@pytest.mark.skipif(browser.MISSING is not None, reason=str(browser.MISSING))
def test_a_browser_shows_it(folder, tmp_path):
    with browser.browser(tmp_path / "profile") as page:
        page.open(folder / "summary.html")
        assert page.run("return document.querySelector('h1').textContent") == ODD
        heights = page.run("return [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().height)")
        assert len(heights) > 5 and min(heights) > 80
        sounds = page.run("return [...document.querySelectorAll('audio')].map(a => a.getAttribute('aria-label'))")
        assert sounds == ["c0_cfg3, step 3", "c0_cfg3, step 6"]
        page.run("document.querySelector('audio').play()")
        page.until("document.querySelector('audio').currentTime > 0.2")
        page.until("document.querySelector('img').naturalWidth > 0")
        for width in (1280, 400):
            page.resize(width, 900)
            assert page.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert page.complaints() == []


# ---------------------------------------------------------------------------------------------------- the pieces


def write_log(folder: Path, number: int, text: str) -> None:
    place = folder / f"logs/version_{number}"
    place.mkdir(parents=True)
    (place / "metrics.csv").write_text(text)


def test_logs_of_all_starts_are_one(tmp_path):
    """In the order of their numbers; a start that went back replaces what it does again."""
    write_log(tmp_path, 2, "step,a,b\n0,1,\n1,2,5\n2,3,\n")
    write_log(tmp_path, 10, "step,a\n2,9\n3,8\n")
    logs = read_logs(tmp_path)
    assert logs.curves == {"a": {0: 1, 1: 2, 2: 9, 3: 8}, "b": {1: 5}} and logs.restarts == (2,)
    assert read_logs(tmp_path / "none").curves == {}
    write_log(tmp_path, 11, "step,a\n4,x\n")
    with pytest.raises(InputError, match="version_11/metrics.csv: cannot be read as a log"):
        read_logs(tmp_path)


def test_the_running_mean_has_fewer_neighbours_at_the_ends():
    assert summary.running_mean(np.full(80, 2.0)) == pytest.approx(np.full(80, 2.0))
    mean = summary.running_mean(np.repeat([0.0, 1.0], 50))
    assert mean[47] == 0 and mean[49] == pytest.approx(0.4) and mean[50] == pytest.approx(0.6) and mean[-1] == 1


def test_a_flat_curve_and_a_single_step_can_be_drawn():
    for curve in ({6: 0.0}, {1: 10.0, 2: 0.1}, dict.fromkeys(range(100), 3.0)):
        drawing = summary.svg(summary.Panel("Gradient norm", {"train/grad_norm": curve}), (2,))
        assert drawing.startswith("<svg") and drawing.rstrip().endswith("</svg>")


def test_demos_are_of_steps_from_first_to_last(tmp_path):
    for step in range(1, 11):
        place = tmp_path / f"generated_demo/step_{step:07d}"
        place.mkdir(parents=True)
        (place / "clip one_cfg3.wav").touch()
    found = summary.demos(tmp_path, {})
    assert list(found) == ["clip one_cfg3"] and list(found["clip one_cfg3"]) == [1, 4, 7, 10]
    assert found["clip one_cfg3"][10] == {"sound": "generated_demo/step_0000010/clip one_cfg3.wav"}


def test_a_run_without_csv_has_a_page_without_curves(tmp_path):
    settings = {"logger": "wandb", "batch_size": 8}
    start = {
        "time": "now",
        "settings": settings,
        "code": {"diff_v2m": "1", "git": None},
        "versions": {},
        "fingerprints": {"dataset": "0123456789abcdef"},
    }
    (tmp_path / "run.json").write_text(json.dumps({"starts": [start]}))
    assert summary.main([str(tmp_path)]) == 0
    page = (tmp_path / "summary.html").read_text()
    assert "--logger wandb" in page and "Not ended" in page


@pytest.mark.parametrize(
    ("content", "message"), [(None, "holds no run.json"), ("{", "cannot be read"), ("{}", "names no start")]
)
def test_what_is_no_run_is_refused_in_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=message):
        summary.write_page(tmp_path)


def test_a_page_that_fails_does_not_fail_the_run(tmp_path, caplog):
    summary.write_after_training(tmp_path)
    assert "no summary; the run itself is complete" in caplog.text


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(InputError, match=r"holds no run\.json"):
        summary.write_page(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()
