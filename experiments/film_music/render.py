"""Scenes → a data set on disk, in the common layout of data sets.

    DIR/music/<seed>.mid           the score
    DIR/music/<seed>.wav           its sound: 44.1 kHz stereo, 16 bit
    DIR/video/<seed>.mp4           160×90 at 25 frames a second, H.264, with the music
    DIR/clip, DIR/color            features; semantics are imitated, see imitation.py
    DIR/scenes/<seed>.json         what the scene was, and the clip's entry of videoInfo_30.json; written last
    DIR/videoInfo_30.json, DIR/features.json, DIR/dataset.json

Features come from the frames before they are encoded, and cuts from the scene, so they do not need the mp4. The same
seed gives the same files.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import soundfile
from tqdm import tqdm

from diff_v2m.common.files import atomic, write_json
from diff_v2m.common.versions import FEATURE_VERSION
from diff_v2m.features.color import rgb_uv_histogram
from diff_v2m.features.imagenet import IMAGENET_NAME
from diff_v2m.features.motion import MotionMeter, motion_between
from diff_v2m.features.video_features import VideoFeatures, motion_features, motion_rows, row_of, seconds_of
from diff_v2m.score import midi, synth
from diff_v2m.score.score import Score
from experiments.film_music.composer import compose
from experiments.film_music.imitation import imitate
from experiments.film_music.scene import WORLD_VERSION, ScenePlan, draw_scene
from experiments.film_music.video import FPS, HEIGHT, WIDTH, Picture
from experiments.synthetic.render import claim_folder, write_mp4

WORLD = {"world": "film_music", "world_version": WORLD_VERSION}


def render_set(folder: Path, seeds: range, *, video: bool = True, sound: bool = True, duration: float = 30.0) -> None:
    """Write one clip per seed; existing files are skipped. Several processes may share a folder.

    video, sound: whether to write mp4 and wav; the mp4 has the wav as its sound. Raises InputError as
    `claim_folder` does.
    """
    claim_folder(folder, WORLD)
    for seed in tqdm(seeds, desc=f"rendering {folder.name}", unit="clip"):
        _render_clip(folder, draw_scene(seed, duration), video=video, sound=sound)
    write_index(folder)


def render_scores(folder: Path, seeds: range, *, duration: float = 30.0) -> None:
    """Write the scores alone, which is what a score autoencoder is trained on."""
    claim_folder(folder, WORLD)
    for seed in tqdm(seeds, desc=f"composing {folder.name}", unit="score"):
        _score_of(folder, draw_scene(seed, duration))


def write_index(folder: Path) -> None:
    """Write what describes all clips of a folder, whichever process rendered them."""
    paths = sorted((folder / "scenes").glob("*.json"))
    info = {f"{path.stem}.mp4": json.loads(path.read_text(encoding="utf-8"))["info"] for path in paths}
    write_json(folder / "videoInfo_30.json", info)
    write_json(folder / "features.json", {"feature_version": FEATURE_VERSION, "encoder": IMAGENET_NAME})
    write_json(folder / "dataset.json", _dataset(folder))


def _render_clip(folder: Path, scene: ScenePlan, *, video: bool, sound: bool) -> None:
    name, picture = f"{scene.seed:07d}", Picture(scene)
    wav, mp4, entry = (
        folder / "music" / f"{name}.wav",
        folder / "video" / f"{name}.mp4",
        folder / "scenes" / f"{name}.json",
    )
    score = _score_of(folder, scene)
    if (sound or video) and not wav.exists():
        _write_wav(wav, score)
    if video and not mp4.exists():
        write_mp4(mp4, wav, picture.frames(), (WIDTH, HEIGHT), FPS, "128k")
    if not entry.exists():
        about = {"family": scene.family, "mood": scene.mood, "cuts": list(scene.cuts), "duration": scene.duration}
        about |= {"key": str(score.key), "tempo": score.grid.tempo, "beats_per_bar": score.grid.beats_per_bar}
        write_json(entry, about | {"info": features_of(picture).save(folder, name)})


def _score_of(folder: Path, scene: ScenePlan) -> Score:
    """The score of a scene, written to the folder unless it is there."""
    score, path = compose(scene), folder / "music" / f"{scene.seed:07d}.mid"
    if not path.exists():
        midi.write_midi(path, score)
    return score


def features_of(picture: Picture) -> VideoFeatures:
    """Features of a scene: cuts as planned, motion and colour of the frames, semantics imitated."""
    scene, seconds = picture.scene, seconds_of(picture.scene.duration)
    step = MotionMeter(FPS).step
    numbers = [number for number in range(step, picture.frame_count) if number % FPS % step == 0]  # as it compares
    frames = {number: picture.frame(number / FPS) for number in {*numbers, *(number - step for number in numbers)}}
    motion = np.array([motion_between(frames[number - step], frames[number], step / FPS) for number in numbers])
    scene_cut = np.zeros(seconds, np.int64)
    scene_cut[row_of(picture.cuts, 1, seconds)] = 1
    return VideoFeatures(
        semantic=imitate(scene.family, np.random.default_rng([scene.seed, 4]), seconds, scene.cuts),
        color=rgb_uv_histogram(np.stack([_as_coded(picture.frame(float(second))) for second in range(seconds)])),
        scene_cut=scene_cut,
        duration=scene.duration,
        cut_times=picture.cuts,
        **motion_features(motion_rows(np.array(numbers) / FPS, motion, seconds)),
    )


def _as_coded(frame: np.ndarray) -> np.ndarray:
    """The frame with the colours of 4:2:0 video, which a histogram of log ratios resolves."""
    yuv = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2YUV_I420)
    return cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB_I420)


def _write_wav(path: Path, score: Score) -> None:
    with atomic(path) as part:
        soundfile.write(part, synth.render(score).mix.T, synth.SAMPLE_RATE, subtype="PCM_16", format="WAV")


def _dataset(folder: Path) -> dict:
    """The dataset JSON, with paths relative to its own folder."""
    entry = {
        "id": f"film-music-{folder.name}",
        "path": "music",
        "video": "video",
        "video_feat": "clip",
        "video_color": "color",
        "video_info": "videoInfo_30.json",
        "scores": "music",
        "class_label": 2,
    }
    if not (folder / "video").is_dir():
        del entry["video"]
    return {
        "dataset_type": "audio_video_dir",
        "rhythm_type": "odf",
        "drop_last": True,
        "random_crop": True,
        "phase_flip": False,
        "datasets": [entry],
    }
