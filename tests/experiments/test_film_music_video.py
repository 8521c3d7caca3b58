"""Videos of the world: they move, cut and glow as the scene says, and a rendered set is one that train.py reads."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.data_folder import model_config

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.config import load_dataset_config
from diff_v2m.data.dataset import AudioVideoDataset
from diff_v2m.features.extract import extract_features
from diff_v2m.features.imagenet import FAMILIES, IMAGENET_NAME, family_of
from diff_v2m.features.motion import MotionMeter
from diff_v2m.features.semantic import HogEncoder
from diff_v2m.features.video_features import MOTION_ROWS
from diff_v2m.score.midi import read_midi
from experiments.film_music.__main__ import main
from experiments.film_music.render import features_of, render_set
from experiments.film_music.scene import HELD_OUT, MOTION_RATE, ScenePlan, draw_scene
from experiments.film_music.video import BUSIEST, FPS, HEIGHT, HUES, WIDTH, Picture


def plan(mood="major", motion=(0.5,) * 16, cuts=(), seed=0) -> ScenePlan:
    return ScenePlan(seed, len(motion) / MOTION_RATE, cuts, np.array(motion, float), mood, "water")


def digests(folder) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_picture_moves_as_the_scene_says():
    motion = np.repeat([0.05, 0.3, 0.6, 0.9], 8)
    picture = Picture(plan(motion=motion))
    meter = MotionMeter(FPS)
    meter.watch(np.arange(picture.frame_count) / FPS, np.stack(list(picture.frames())))
    second = np.floor(meter.times).astype(int)
    levels = [np.array(meter.motion)[second == s].mean() for s in (0, 2, 4, 6)]
    assert np.all(np.diff(levels) > 5)
    assert np.corrcoef(meter.motion, picture.scene.motion_at(np.array(meter.times)))[0, 1] > 0.9


@pytest.mark.parametrize("motion", [0.1, 0.5])
@pytest.mark.parametrize("mood", HUES)
def test_equal_motion_looks_alike_in_all_shots_and_families(mood, motion):
    found = []
    for seed, family in enumerate(FAMILIES):
        scene = replace(plan(mood, (motion,) * 12, cuts=(1.0, 2.0), seed=seed), family=family)
        shown = features_of(Picture(scene)).motion.reshape(3, MOTION_ROWS)[:, 3:-2].mean(axis=1)  # away from cuts
        found += (shown / BUSIEST).tolist()
    np.testing.assert_allclose(found, motion, rtol=0.12)


def test_frames_do_not_depend_on_order_and_cuts_show():
    picture = Picture(plan(cuts=(1.51, 2.8)))
    frames = np.stack(list(picture.frames()))
    assert frames.shape == (100, HEIGHT, WIDTH, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(frames[60], Picture(picture.scene).frame(60 / FPS))
    change = np.abs(np.diff(frames.astype(float), axis=0)).mean(axis=(1, 2, 3))
    assert sorted(change.argsort()[-2:] + 1) == [38, 70] == (picture.cuts * FPS).round().astype(int).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_major_is_warm_minor_is_cool_and_modal_is_neither(seed):
    def warmth(mood: str) -> float:
        red, _, blue = Picture(plan(mood, seed=seed)).frame(1.0).mean(axis=(0, 1))
        return float(np.log(red / blue))

    assert warmth("minor") < -0.3 < abs(warmth("modal")) < 0.3 < warmth("major")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 8])
def test_features_are_those_of_the_written_video(tmp_path, seed):
    render_set(tmp_path / "set", range(seed, seed + 1), duration=12.0)
    scene, mp4 = draw_scene(seed, 12.0), tmp_path / f"set/video/{seed:07d}.mp4"
    made, read = features_of(Picture(scene)), extract_features(mp4, HogEncoder())
    assert media.probe(mp4).has_audio and read.duration == pytest.approx(12, abs=0.1)
    assert read.cut_times == pytest.approx(made.cut_times, abs=0.001)
    np.testing.assert_array_equal(read.scene_cut, made.scene_cut)
    assert np.abs(read.color - made.color).sum(axis=1).mean() < 0.5
    assert read.motion_peaks[:, 0] == pytest.approx(made.motion_peaks[:, 0], abs=0.001)
    assert read.motion_peaks[:, 1] == pytest.approx(made.motion_peaks[:, 1], abs=0.1)
    assert family_of(made.semantic) == scene.family


@pytest.mark.slow
def test_a_seed_gives_the_same_files_and_training_reads_them(tmp_path):
    arguments = ["render", "--count", "2", "--first-seed", "3", "--duration", "4", "--no-video"]
    assert main([*arguments, "--output", str(tmp_path / "a")]) == 0
    for seed in ("4", "3"):  # as two processes would
        assert main([*arguments[:2], "1", "--first-seed", seed, *arguments[5:], "--output", str(tmp_path / "b")]) == 0
    first = digests(tmp_path / "a")
    other = digests(tmp_path / "b")
    assert {name for name in first if first[name] != other.get(name)} == {"dataset.json"}  # its id is the folder's
    assert first.keys() == other.keys()
    assert main([*arguments, "--output", str(tmp_path / "a")]) == 0 and digests(tmp_path / "a") == first

    config = load_dataset_config(tmp_path / "a/dataset.json")
    dataset = AudioVideoDataset(config, model_config(channels=2, seconds=4, encoder=IMAGENET_NAME))
    item = dataset[0]
    scene = json.loads((tmp_path / "a/scenes/0000003.json").read_text())
    assert [len(dataset), item.name, family_of(item.features.semantic)] == [2, "0000003", scene["family"]]
    assert item.audio.abs().max() > 0.01 and item.rhythm.max() > 0
    assert str(read_midi(tmp_path / "a/music/0000003.mid").key) == scene["key"]


def test_scores_alone_and_held_out_seeds(tmp_path):
    arguments = ["render", "--count", "1", "--duration", "3", "--no-sound", "--held-out", "--output", str(tmp_path)]
    assert main(arguments) == 0
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    clip = {f"music/{HELD_OUT}.mid", f"clip/{HELD_OUT}.npy", f"color/{HELD_OUT}.npy", f"scenes/{HELD_OUT}.json"}
    assert names == clip | {"world.json", "dataset.json", "features.json", "videoInfo_30.json"}


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match='no world.json of {"world": "film_music", "world_version": 3}'):
        render_set(tmp_path, range(1))
    with pytest.raises(SystemExit):
        main(["render", "--output", str(tmp_path), "--count", "0"])
