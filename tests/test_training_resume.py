"""Runs that are killed or told to stop, at any moment: what follows is what would have followed."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from training_toys import checkpoint, logged, make_place, run

COLUMNS = ("train/loss", "train/mse_loss", "train/rhythm_loss", "train/grad_norm", "val/loss", "val/rhythm_loss")
STEPS = 14
WAIT = 300  # seconds after which a child is taken to hang


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp("training"))


def flags(place: Path) -> list:
    """Saved after every step, validated after every second and at the end of an epoch of three."""
    data = place / "data.json"
    return ["--max-steps", STEPS, "--checkpoint-every", 1, "--val-every", 2, "--val-dataset-config", data,
            "--accum-batches", 1, "--save-top-k", 2]  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(place, tmp_path_factory) -> Path:
    return run(place, tmp_path_factory.mktemp("runs") / "whole", *flags(place))


def start(place: Path, folder: Path) -> multiprocessing.Process:
    """The same run in a process of its own, going on from where it is."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(place, folder, *flags(place), "--recover"))
    process.start()
    return process


def wait_until(reached: Callable[[], bool], process: multiprocessing.Process) -> None:
    end = time.monotonic() + WAIT
    while process.is_alive() and not reached():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_killed_ten_times_a_run_has_the_same_curve(place, uninterrupted, tmp_path):
    """kill -9 while a checkpoint is being written, while a validation runs, and anywhere else."""
    folder, chance, kills, torn = tmp_path / "run", random.Random(0), 0, 0
    last = folder / "checkpoints/last.ckpt"

    def saved() -> int:
        return last.stat().st_mtime_ns if last.exists() else 0

    for attempt in range(10):
        before = saved()
        process = start(place, folder)
        if attempt % 3 == 0:  # in the write of the second checkpoint
            wait_until(lambda before=before: saved() != before, process)
            wait_until(lambda: any(last.parent.glob(".*.part.ckpt")), process)
        else:  # one step is kept, so that the run gets on
            wait_until(lambda before=before: saved() != before, process)
            time.sleep(chance.uniform(0, 0.4))
        kills += process.is_alive()
        process.kill()
        process.join()
        torn += any(last.parent.glob(".*.part.ckpt"))
        torch.load(last, weights_only=True)
    process = start(place, folder)
    process.join(WAIT)
    assert process.exitcode == 0 and kills >= 5 and torn >= 1
    for column in COLUMNS:
        assert logged(folder, column) == logged(uninterrupted, column), column
    whole, pieces = checkpoint(uninterrupted)["state_dict"], checkpoint(folder)["state_dict"]
    assert all(torch.equal(pieces[key], whole[key]) for key in whole)  # the moving average is in there too
    names = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in (uninterrupted, folder)]
    assert names[0] == names[1] and len(names[0]) == 3


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM])
def test_told_to_stop_a_run_saves_the_step_it_is_in(place, uninterrupted, tmp_path, signum):
    folder = tmp_path / "run"
    process = start(place, folder)
    wait_until(lambda: len(logged(folder)) >= 2, process)
    os.kill(process.pid, signum)
    process.join(WAIT)
    assert process.exitcode == 128 + signum
    stopped = checkpoint(folder)["global_step"]
    assert 2 <= stopped < STEPS and not (folder / "model.safetensors").exists()
    assert len(logged(folder)) >= stopped - 1
    process = start(place, folder)
    process.join(WAIT)
    assert process.exitcode == 0
    for column in COLUMNS:
        assert logged(folder, column) == logged(uninterrupted, column), column
