"""kill -9 at random moments of a training run, in turn in a step, in the write of a checkpoint and in a validation.

The resumed run must equal an uninterrupted one, bit for bit.

    PYTHONPATH=.:tests python -m helpers.kill_nine --kills 10 --seed 1

The test suite kills three times (tests/training/test_resume.py).
"""

import argparse
import ctypes
import logging
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from helpers.processes import WAIT
from helpers.training_toys import checkpoint, logged, make_place, run

# children of a process that has run no backward pass, after which torch refuses to fork
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch", "pytorch_lightning"])
STEP, WRITE, VALIDATION = 1, 2, 3
MOMENTS = {0: "between", STEP: "in a step", WRITE: "in a write", VALIDATION: "in a validation"}
COLUMNS = ("train/loss", "train/mse_loss", "train/rhythm_loss", "train/grad_norm", "val/loss", "val/rhythm_loss")


def flags(place: Path, steps: int) -> list:
    """Saved after every step, validated after every second and at the end of an epoch of three."""
    return [
        "--max-steps",
        steps,
        "--checkpoint-every",
        1,
        "--val-every",
        2,
        "--val-dataset-config",
        place / "data.json",
        "--save-top-k",
        2,
    ]


@dataclass(frozen=True)
class Training:
    """A run in a process of its own, which resumes what is in its folder."""

    place: Path
    folder: Path
    steps: int

    def start(self, moment=None) -> multiprocessing.Process:
        arguments = (self.place, self.folder, self.steps, moment)
        process = SERVER.Process(target=_train, args=arguments)
        process.start()
        return process

    def finish(self) -> int:
        process = self.start()
        process.join(WAIT)
        return process.exitcode

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints/last.ckpt"

    def saved(self) -> int:
        return self.last.stat().st_mtime_ns if self.last.exists() else 0

    def kill_in(self, wanted: int, chance: random.Random) -> int | None:
        """Start it, let it save once, and kill it in a moment of that kind; → the moment it was in, or None if it
        was done before.
        """
        moment = SERVER.Value(ctypes.c_int, 0, lock=False)  # a lock could be held by the killed process
        before, process = self.saved(), self.start(moment)
        wait_until(lambda: self.saved() != before, process)
        for _ in range(chance.randrange(3)):  # not the first of its kind
            wait_until(lambda: moment.value == wanted, process)
            wait_until(lambda: moment.value != wanted, process)
        wait_until(lambda: moment.value == wanted, process)
        time.sleep(chance.expovariate(200))
        alive = process.is_alive()
        process.kill()
        process.join()
        torch.load(self.last, weights_only=True)  # whole
        return moment.value if alive else None


def wait_until(reached: Callable[[], bool], process: multiprocessing.Process) -> None:
    end = time.monotonic() + WAIT
    while process.is_alive() and not reached():
        assert time.monotonic() < end
        time.sleep(0.0002)


def _train(place: Path, folder: Path, steps: int, moment) -> None:
    if moment is not None:
        _tell(moment)
    run(place, folder, *flags(place, steps), "--recover")


def _tell(moment) -> None:
    """Have this process write its current activity to shared memory."""
    from diff_v2m.training.callbacks import LastCheckpoint, SeededBatches
    from diff_v2m.training.diffusion_module import DiffusionModule
    from diff_v2m.training.run_folder import WholeCheckpoints

    def during(owner: type, name: str, value: int, after: int | None = None) -> None:
        inner = getattr(owner, name)

        def reporting(*arguments, **kwargs):
            before, moment.value = moment.value, value
            result = inner(*arguments, **kwargs)
            moment.value = before if after is None else after
            return result

        setattr(owner, name, reporting)

    during(SeededBatches, "on_train_batch_start", STEP, after=STEP)
    during(LastCheckpoint, "on_train_batch_end", STEP, after=0)
    during(WholeCheckpoints, "save_checkpoint", WRITE)
    during(DiffusionModule, "validation_step", VALIDATION)


def differences(whole: Path, pieces: Path) -> list[str]:
    """Differences of two runs: columns of the log, weights and averages, names of checkpoints."""
    found = [column for column in COLUMNS if logged(whole, column) != logged(pieces, column)]
    ours, theirs = (checkpoint(folder)["state_dict"] for folder in (pieces, whole))
    found += [name for name in theirs if not torch.equal(ours[name], theirs[name])]
    names = [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in (whole, pieces)]
    return found + ([f"checkpoints {names}"] if names[0] != names[1] else [])


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--steps", type=int, default=60)
    settings = parser.parse_args(arguments)
    log = logging.getLogger("kill_nine")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        place, chance, seen = make_place(Path(name) / "place"), random.Random(settings.seed), Counter()
        whole, pieces = (Training(place, Path(name) / run, settings.steps) for run in ("whole", "pieces"))
        if whole.finish():
            sys.exit("the run that nobody killed failed")
        for number in range(settings.kills):
            moment = pieces.kill_in(1 + number % 3, chance)
            if moment is None:
                sys.exit(f"done before kill {number + 1}: more --steps")
            seen[MOMENTS[moment]] += 1
            step = checkpoint(pieces.folder)["global_step"]
            log.warning("kill %d: %s, %d steps saved", number + 1, MOMENTS[moment], step)
        if pieces.finish():
            sys.exit("the run that was killed does not end")
        wrong = differences(whole.folder, pieces.folder)
    log.warning("%s", ", ".join(f"{count} {moment}" for moment, count in seen.items()))
    sys.exit(f"not the same: {', '.join(wrong[:10])}" if wrong else None)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    main(sys.argv[1:])
