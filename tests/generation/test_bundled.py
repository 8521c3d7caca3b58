"""The bundled model: its size, its teacher, and that it makes music with notes from a video."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import toys

from diff_v2m import DiffV2M
from diff_v2m.checkpoints.files import read_weights
from diff_v2m.checkpoints.loading import find_config
from diff_v2m.common.files import BUNDLED, ROOT, TEACHER
from diff_v2m.score.keys import find_key, pitch_class_weights


def test_model_and_instruments_stay_small():
    files = [BUNDLED / "model.safetensors", ROOT / "saved_model" / "instruments.sf3"]
    assert sum(file.stat().st_size for file in files) <= 40e6


def test_it_is_a_student_of_the_teacher_beside_it():
    student, teacher = (read_weights(path / "model.safetensors") for path in (BUNDLED, TEACHER))
    raw = find_config(student).raw
    assert raw["model"]["diffusion"].pop("student")["steps"] == 8
    assert raw["model"] == find_config(teacher).raw["model"]
    frozen = [name for name in teacher.state if ".conditioner." in name or ".pretransform." in name]
    assert len(frozen) > 100 and all(torch.equal(student.state[name], teacher.state[name]) for name in frozen)


@pytest.fixture(scope="module")
def model():
    return DiffV2M.from_pretrained(BUNDLED, device="cpu")


@pytest.mark.slow
def test_a_drawn_rhythm_is_followed_by_a_span_with_another_seed(model, tmp_path):
    features = model.extract(toys.write_video(tmp_path / "a.mp4", 4.0, seed=1))
    old = model.compose([features], ["a"])[0]
    rows = [replace(cue, value=cue.value - 4 * (cue.time == 2)) for cue in old.sheet["rhythm"]]
    plain, soft = (
        model.redo(old, features, "a", [(1, 4)], seed=5, sheet=sheet)
        for sheet in (old.sheet, old.sheet.replacing(["rhythm"], rows))
    )
    struck = [np.concatenate([voice.notes for voice in music.score.voices]) for music in (plain, soft)]
    loudness = [notes["velocity"][(notes["start"] >= 2) & (notes["start"] < 3)].mean() for notes in struck]
    assert loudness[1] < 0.5 * loudness[0]
    assert soft.sheet["rhythm"] == tuple(rows)


@pytest.mark.slow
def test_it_plays_in_the_planned_key_on_the_planned_beats(model, tmp_path):
    video = toys.write_video(tmp_path / "a.mp4", 12.0, seed=1)
    music = model.generate(video)
    assert music.audio.shape == (2, 12 * 44100) and np.abs(music.audio).max() > 0.05
    score, plan = music.score, music.plan
    assert score.key == plan.key and score.note_count > 30
    assert find_key(pitch_class_weights(score)).tonic in {plan.key.scale[0], plan.key.scale[2], plan.key.scale[5]}
    quarters = plan.grid.position(score.onsets()) * 4
    length = 60 / plan.grid.tempo / 4  # seconds of a quarter of a beat
    assert np.mean(np.abs(quarters - np.round(quarters)) * length < 0.03) > 0.7  # by chance: about .4
