"""Music metrics during training: they distinguish clicks at cuts from other clicks, and music from silence."""

import numpy as np
import pytest
from helpers.data_folder import Folder, dataset_config
from helpers.eval_toys import clicks, music, video_with_cuts
from helpers.toys import RATE, WINDOW, toy_raw_config

from diff_v2m.config import parse_model_config
from diff_v2m.generation.pipeline import Composition
from diff_v2m.model.music import Music
from diff_v2m.training import demos, music_metrics
from diff_v2m.training.music_metrics import means, measure

SECONDS = 12.0
CUTS = np.array([1.0, 3.5, 6.0, 8.5, 11.0])


def piece(audio: np.ndarray) -> Composition:
    return Composition(
        Music(audio[None].astype(np.float32)), np.zeros(int(SECONDS), np.float32), (), np.zeros((64, 1), np.float16)
    )


def accents() -> np.ndarray:
    """Onsets that are strong in some seconds only."""
    return clicks(np.concatenate([second + np.arange(0, 1, 0.25) for second in (2, 5, 6, 9)]), SECONDS)


@pytest.mark.slow
def test_rhythm_is_correlated_with_each_wanted_curve():
    rhythm = np.zeros(int(SECONDS))
    rhythm[[2, 5, 6, 9]] = 1
    wanted = {"true": rhythm, "wrong": np.roll(rhythm, 5), "flat": np.ones(12), "predicted": None}
    found = measure(piece(accents()), RATE, wanted, None)
    assert found["rhythm_r_true"] > 0.8 > 0.3 > found["rhythm_r_wrong"]
    assert found["rhythm_r_flat"] is None and found["rhythm_r_predicted"] is None
    assert "cuts_hit" not in found and found["silence"] > 0.3 and found["lufs"] < 0


@pytest.mark.slow
def test_beats_are_compared_with_cuts_and_with_chance():
    beats = clicks(np.arange(1.0, SECONDS, 0.5), SECONDS) + 0.05 * music(0, SECONDS)
    at, between = (measure(piece(beats), RATE, {}, CUTS + offset, seed=1) for offset in (0.0, 0.25))
    assert at["cuts_hit"] >= 0.8 > at["cuts_hit_by_chance"] > 0
    assert between["cuts_hit"] <= 0.2 and at["pulse"] > 0.5
    beyond = measure(piece(beats), RATE, {}, np.array([SECONDS + 1]))
    assert beyond["cuts_hit"] is None and beyond["cuts_hit_by_chance"] is None


def test_silence_gains_nothing():
    found = measure(piece(np.zeros(round(SECONDS * RATE))), RATE, {"true": np.arange(12.0)}, CUTS)
    assert found["silence"] == 1 and found["rhythm_r_true"] == 0 and found["cuts_hit"] == 0
    assert found["lufs"] is None and found["bandwidth"] is None


def test_means_are_over_the_clips_that_have_a_value():
    assert means([{"a": 1.0, "b": None, "c": 0.0}, {"a": 3.0, "b": None}]) == {"a": 2.0, "c": 0.0}


def test_own_onsets_and_cuts_are_read_once_within_the_window(tmp_path, monkeypatch):
    """Its own music's onsets and its video's cuts at their own times; a clip without a video has none."""
    folder = Folder(tmp_path)
    for name in ("a", "b"):
        folder.add(name, seconds=WINDOW + 2, clicks=(1.5, WINDOW + 1.5), rate=RATE)
    video_with_cuts(tmp_path / "videos/a.mp4", [1.2, WINDOW + 1.0], WINDOW + 2)
    config = parse_model_config(toy_raw_config())
    data = dataset_config(folder, video="../videos")
    a, b = demos._first_clips(data, config, 2)
    assert np.argmax(music_metrics._true_rhythm(a, RATE)) == 1 and len(music_metrics._true_rhythm(a, RATE)) == WINDOW
    assert music_metrics._cuts(a) == pytest.approx([1.2, WINDOW + 1.0], abs=0.05) and music_metrics._cuts(b) is None
