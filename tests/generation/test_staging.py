"""The folder for unfinished files: who may remove it, and results that are moved into place together."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from diff_v2m.common.errors import InputError
from diff_v2m.common.locks import is_held, lock_file, try_lock
from diff_v2m.generation.staging import publish, staging
from diff_v2m.generation.step_log import StepLog

HOLD = """if True:
    import sys, time
    from pathlib import Path
    from diff_v2m.generation.staging import staging
    with staging(Path(sys.argv[1])) as folder:
        (folder / "half.wav").write_bytes(b"half")
        print(folder, flush=True)
        time.sleep(600)
"""


def holder(output_dir: Path, *before: str) -> tuple[subprocess.Popen, Path]:
    """A process in `staging`, and its folder."""
    command = [*before, sys.executable, "-c", HOLD, str(output_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen, signum: int = signal.SIGKILL) -> None:
    process.send_signal(signum)
    process.wait()
    process.stdout.close()


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(tmp_path):
    alive, its_folder = holder(tmp_path)
    killed, abandoned = holder(tmp_path)
    end(killed)
    assert (abandoned / "half.wav").exists()
    with staging(tmp_path) as folder:
        assert folder.is_dir() and (its_folder / "half.wav").exists() and not abandoned.exists()
        assert sorted(tmp_path.iterdir()) == sorted(
            path for own in (folder, its_folder) for path in (own, own.with_name(f"{own.name}.lock"))
        )
    end(alive)
    with staging(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a process number space")
def test_a_process_of_another_container_is_alive(tmp_path):
    """Its process number is another one here, or somebody else's."""
    spaces = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*spaces, "true"], capture_output=True).returncode:
        pytest.skip("no process number space here")
    first, folder = holder(tmp_path, *spaces)
    second, other = holder(tmp_path, *spaces)
    assert (folder / "half.wav").exists() and (other / "half.wav").exists()
    end(first)
    end(second)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--output_dir .*cannot be written"), staging(tmp_path / "file"):
        pass


def test_a_lock_is_exclusive_and_ends_with_its_file(tmp_path):
    first = lock_file(tmp_path / "lock")
    with open(tmp_path / "lock", "ab") as second:
        assert is_held(second) and not try_lock(second)
        first.close()
        assert not is_held(second)


def test_a_second_process_does_not_write_the_steps_of_the_first(tmp_path):
    import torch

    path, key, steps = tmp_path / ".clip.steps", "key", [torch.full((2,), float(n)) for n in range(3)]
    first, second = StepLog(path, key), StepLog(path, key)
    first.append(0, steps[0])
    first.append(1, steps[1])
    second.append(0, steps[2])
    second.remove()
    first.append(2, steps[2])
    assert [first.read(n, steps[n].shape).tolist() for n in range(3)] == [step.tolist() for step in steps]
    first.remove()
    assert not path.exists()


def _publish_often(folder: Path, who: str) -> None:
    for n in range(100):
        moves = [(folder / f"{who} {name}", folder / name) for name in ("a.json", "a.mp4", "a.wav")]
        for made, _ in moves:
            made.write_text(f"{who} {n}")
        publish(moves, [])


def test_two_processes_publish_one_after_the_other(tmp_path):
    processes = [get_context("fork").Process(target=_publish_often, args=(tmp_path, who)) for who in "xy"]
    for process in processes:
        process.start()
    deadline = time.monotonic() + 60
    for process in processes:
        process.join(deadline - time.monotonic())
    assert [process.exitcode for process in processes] == [0, 0]
    assert len({path.read_text() for path in tmp_path.iterdir()}) == 1 and len(list(tmp_path.iterdir())) == 3
