"""The measures behind the film-music thresholds: real music passes, what is wrong does not."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.scores import small_score

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import ROOT
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.score import synth
from diff_v2m.score.score import BeatGrid
from experiments.film_music import check
from experiments.film_music.check import Piece, Row, load_model, seen
from experiments.film_music.clips import common_notes
from experiments.film_music.comparison import DISTANCE, EVALUATIONS, compare, distance, distances, draw
from experiments.film_music.composer import compose
from experiments.film_music.hearing import Classifiers, hear, noise_with_onsets, steady, variety
from experiments.film_music.measures import beat_f1
from experiments.film_music.render import features_of
from experiments.film_music.scene import draw_scene
from experiments.film_music.video import FPS, Picture
from experiments.synthetic.measures import share_hit


@pytest.fixture(scope="module")
def pieces():
    """Scene, score and measures of six clips."""
    scenes = [draw_scene(seed, 16.0) for seed in range(6)]
    scores = [compose(scene) for scene in scenes]
    return [
        (scene, score, hear(synth.render(score).mix, synth.SAMPLE_RATE))
        for scene, score in zip(scenes, scores, strict=True)
    ]


@pytest.mark.slow
def test_real_music_meets_cuts_and_beats_and_noise_does_not(pieces):
    hits, beats, other_beats = [], [], []
    for scene, score, heard in pieces:
        hits.append(share_hit(scene.cuts, heard.onsets, 0.05))
        beats.append(beat_f1(heard.beats, score.grid, scene.duration))
        shifted = BeatGrid(score.grid.beats * 1.17 + 0.11, score.grid.beats_per_bar)
        other_beats.append(beat_f1(heard.beats, shifted, scene.duration))
    assert np.nanmean(hits) > 0.9 and np.mean(beats) > 0.7 > 0.55 > np.mean(other_beats)
    scene, _, heard = pieces[0]
    noise = hear(noise_with_onsets(scene, heard), 16000)
    assert len(heard.by_second) == 16 and len(heard.by_row) == 128
    assert np.corrcoef(noise.by_second, heard.by_second)[0, 1] > 0.3 and noise.pulse < heard.pulse


@pytest.mark.slow
def test_a_piece_that_changes_its_tempo_is_not_steady():
    fast, slow = small_score(), small_score()
    for voice in slow.voices:
        voice.notes["start"] *= 1.45
        voice.notes["duration"] *= 1.45
    audio = [synth.render(replace(score, duration=8.0)).mix for score in (fast, slow)]
    assert steady(hear(np.concatenate([audio[0][:, :240000]] * 2, axis=1), synth.SAMPLE_RATE))
    assert not steady(hear(np.concatenate([part[:, :240000] for part in audio], axis=1), synth.SAMPLE_RATE))


@pytest.mark.slow
def test_the_table_says_what_is_met_and_what_is_missed(pieces, monkeypatch):
    monkeypatch.setattr("experiments.film_music.hearing.draw_scene", lambda seed: pieces[seed][0])
    classifiers = Classifiers(range(6))
    assert [classifiers.family(heard.timbre) for *_, heard in pieces] == [scene.family for scene, *_ in pieces]
    real = [Piece(scene, heard, score.grid, score.key, heard) for scene, score, heard in pieces]
    wrong = [replace(piece, heard=other.heard) for piece, other in zip(real, real[1:] + real[:1], strict=True)]
    monkeypatch.setattr(check, "variety", lambda made, true: (0.6, 0.4))
    groups = {"real": real, "again": wrong, "system": real, "shuffled": wrong, "noise": wrong}
    rows = check.measured(classifiers, groups, {"system": [4.0, 6.0, 5.5]})
    lines = check.table(rows, judged="system").splitlines()
    row = {line.split(" | ")[0].strip("| "): line for line in lines}
    assert "| 1.00 | 0." in row["onset strength, r with the real, 1 a second"]
    assert row["family of instruments by scene (chance .08)"].endswith("≥ 0.85 met |")
    assert row["recall of the real set"].endswith("≥ 0.50 met |")
    assert row["coverage of the real set"].endswith("≥ 0.60 MISSED |")
    assert row["seconds for a 30 s clip, features to wav (median)"].endswith("≤ 5 MISSED |")


def test_variety_is_lost_where_all_music_is_alike(pieces):
    heard = [piece[2] for piece in pieces]
    spread = [replace(one, timbre=np.random.default_rng(k).normal(size=80)) for k, one in enumerate(heard * 4)]
    alike = [replace(one, timbre=np.full(80, 9.0)) for one in heard * 4]
    assert variety(spread, spread)[1] > 0.9 and variety(alike, spread) == (0.0, 0.0)


def test_common_notes_compares_voices_pitches_and_onsets():
    score = small_score()
    assert common_notes(score, score) == 1.0
    assert common_notes(score, score.transpose(1)) < 0.3  # the drums stay
    assert common_notes(score, score.shift(0.1)) < 0.3


def test_models_are_compared_by_evaluations_and_distance(pieces, tmp_path):
    rng = np.random.default_rng(0)
    scene, score, heard = pieces[0]
    leading = [Piece(scene, heard, score.grid, score.key, heard, None, rng.normal(size=(64, 90))) for _ in range(3)]
    near = [replace(piece, latents=piece.latents * 1.1) for piece in leading]
    assert distance(leading, leading) == 0 and distance(near, leading) == pytest.approx(0.1)
    names = [EVALUATIONS, DISTANCE, *(row[0] for row in check.ROWS), "recall of the real set"]
    rows = [Row(name, {"teacher": 60 - 59.5 * bool(n), "student": 8 - 7.6 * bool(n)}) for n, name in enumerate(names)]
    draw(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_scene_is_seen_with_the_motion_and_cuts_of_its_video():
    scene = draw_scene(7, 16.0)
    other = seen(scene, features_of(Picture(scene)))
    assert other.seed != scene.seed and (other.mood, other.family, other.ends) == (scene.mood, scene.family, scene.ends)
    np.testing.assert_allclose(other.cuts, scene.cuts, atol=0.5 / FPS)
    assert other.motion.shape == scene.motion.shape
    assert np.corrcoef(other.motion, scene.motion)[0, 1] > 0.9 and np.abs(other.motion - scene.motion).mean() < 0.1
    one_take = replace(scene, cuts=())
    assert seen(one_take, features_of(Picture(one_take))).cuts == ()


def test_a_model_without_a_beat_grid_is_refused():
    with pytest.raises(InputError, match="tiny: receives no beat grid"):
        load_model(ROOT / "saved_model" / "tiny")


def test_latents_are_compared_within_one_space(pieces):
    names = "film_music", "film_music_teacher", "tiny"
    models = {name: DiffV2M.from_pretrained(ROOT / "saved_model" / name, device="cpu") for name in names}
    scene, score, heard = pieces[0]
    music = [Piece(scene, heard, score.grid, score.key, heard, None, np.ones((64, 90)))]
    found = distances(models, dict.fromkeys(names, music))
    assert found["film_music"] == found["film_music_teacher"] == 0 and np.isnan(found["tiny"])


def test_models_of_one_name_are_not_compared(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="a, a: the folders' names head the columns"):
        compare([tmp_path / "a", tmp_path / "a" / "model.safetensors"], tmp_path)
