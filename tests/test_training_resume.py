"""Runs that are killed or told to stop, at any moment: what follows is what would have followed."""

import os
import random
import signal
from pathlib import Path

import pytest
from kill_nine import COLUMNS, STEP, VALIDATION, WAIT, WRITE, Training, differences, wait_until
from training_toys import checkpoint, logged, make_place

STEPS = 14


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def uninterrupted(place, tmp_path_factory) -> Path:
    training = Training(place, tmp_path_factory.mktemp("runs") / "whole", STEPS)
    assert training.finish() == 0
    return training.folder


def test_killed_in_a_step_a_write_and_a_validation_a_run_has_the_same_curve(place, uninterrupted, tmp_path):
    """kill -9; ten times and more in kill_nine.py. The moving average is compared too."""
    training, chance = Training(place, tmp_path / "run", STEPS), random.Random(0)
    moments = [training.kill_in(wanted, chance) for wanted in (WRITE, STEP, VALIDATION)]
    assert all(moment is not None for moment in moments)
    assert training.finish() == 0
    assert differences(uninterrupted, training.folder) == []
    assert len(list((training.folder / "checkpoints").iterdir())) == 3


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM])
def test_told_to_stop_a_run_saves_the_step_it_is_in(place, uninterrupted, tmp_path, signum):
    training = Training(place, tmp_path / "run", STEPS)
    folder, process = training.folder, training.start()
    wait_until(lambda: len(logged(folder)) >= 2, process)
    os.kill(process.pid, signum)
    process.join(WAIT)
    assert process.exitcode == 128 + signum
    stopped = checkpoint(folder)["global_step"]
    assert 2 <= stopped < STEPS and not (folder / "model.safetensors").exists()
    assert len(logged(folder)) >= stopped - 1
    assert training.finish() == 0
    for column in COLUMNS:
        assert logged(folder, column) == logged(uninterrupted, column), column
