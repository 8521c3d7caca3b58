"""Runs that are killed or stopped at any moment continue as an uninterrupted run would."""

import argparse
import os
import random
import signal
from pathlib import Path

import pytest
from helpers.kill_nine import COLUMNS, STEP, VALIDATION, WAIT, WRITE, Training, differences, flags, wait_until
from helpers.training_toys import checkpoint, logged, make_place, run

import train
from diff_v2m.common.errors import InputError
from diff_v2m.training.diffusion_module import DiffusionModule

pytestmark = pytest.mark.slow

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


def test_validations_are_counted_in_steps_wherever_an_epoch_ends(place, tmp_path):
    """Three batches an epoch, two a step; stopped in the middle of an epoch, at its end and after a validation."""
    few = [*flags(place, 7), "--accum-batches", 2]
    whole = run(place, tmp_path / "whole", *few)
    assert list(logged(whole, "val/loss")) == [1, 3, 5]
    for steps in (1, 2, 5, 7):
        run(place, tmp_path / "pieces", *few, "--max-steps", steps, "--recover")
    assert differences(whole, tmp_path / "pieces") == []


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM])
def test_a_stop_signal_loses_nothing(place, uninterrupted, tmp_path, signum):
    training = Training(place, tmp_path / "run", STEPS)
    process = training.start()
    wait_until(lambda: len(logged(training.folder)) >= 2, process)
    os.kill(process.pid, signum)
    process.join(WAIT)
    assert process.exitcode == 128 + signum
    stopped = checkpoint(training.folder)["global_step"]
    assert 1 <= stopped < STEPS and not (training.folder / "model.safetensors").exists()
    assert len(logged(training.folder)) >= stopped - 1
    assert training.finish() == 0
    for column in COLUMNS:
        assert logged(training.folder, column) == logged(uninterrupted, column), column


def test_a_stop_signal_ends_a_validation_early(place, uninterrupted, tmp_path, monkeypatch):
    """The state one step before is saved, whatever --checkpoint-every says. Without it, the best checkpoint serves."""
    inner, seen, few = DiffusionModule.validation_step, [], [*flags(place, STEPS), "--checkpoint-every", 100]

    def stopped(module: DiffusionModule, *arguments) -> None:
        inner(module, *arguments)
        seen.append(module.global_step)
        if module.global_step == 4:
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(DiffusionModule, "validation_step", stopped)
    with pytest.raises(SystemExit) as ended:
        run(place, tmp_path / "run", *few)
    monkeypatch.undo()
    assert ended.value.code == 128 + signal.SIGUSR1 and seen.count(2) == 3 and seen.count(4) == 1
    last = tmp_path / "run/checkpoints/last.ckpt"
    assert checkpoint(tmp_path / "run")["global_step"] == 3
    last.unlink()
    with pytest.raises(InputError, match="run: holds a run already"):
        run(place, tmp_path / "run", *few)
    run(place, tmp_path / "run", *few, "--recover")
    assert differences(uninterrupted, tmp_path / "run") == []


def test_a_run_stopped_before_its_first_step_saves_its_state(place, tmp_path, monkeypatch):
    """While the data set is loaded, and in Lightning's sanity check of validation."""
    prepare, validate = train.make_run_folder, DiffusionModule.validation_step

    def early(settings: argparse.Namespace) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        prepare(settings)

    def later(module: DiffusionModule, *arguments) -> None:
        if module.trainer.sanity_checking:
            os.kill(os.getpid(), signal.SIGTERM)
        validate(module, *arguments)

    monkeypatch.setattr(train, "make_run_folder", early)
    monkeypatch.setattr(DiffusionModule, "validation_step", later)
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(SystemExit) as ended:
        run(place, tmp_path / "run", *flags(place, STEPS))
    assert ended.value.code == 128 + signal.SIGTERM and checkpoint(tmp_path / "run")["global_step"] == 1
    assert signal.getsignal(signal.SIGUSR1) == before
