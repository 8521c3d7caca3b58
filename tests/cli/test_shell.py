"""The shell scripts in a real bash: set-up, its repair and its refusals, and finding the repository.

Real downloads would take minutes, so the environments made here hold one tiny package from a local folder; what pip,
venv and the locks do is real.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("setup.sh", "infer.sh", "train.sh", "test.sh")
LISTS = ("requirements.txt", "requirements-sat.txt", "constraints.txt")
TEST_LISTS = (*LISTS[:2], "requirements-studio.txt", "requirements-test.txt", "constraints.txt")


def requirements(name: str) -> list[str]:
    lines = [re.split("[#;]", line)[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [line for line in lines if line]


def environment(**changes: str) -> dict[str, str]:
    """The environment of this process without variables of pip, Slurm and the scripts, plus `changes`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "SLURM_", "DIFF_V2M_", "PYTHON"))}
    # index and links nowhere: nothing here may reach a network
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    return {**kept, **pip, "PIP_NO_CACHE_DIR": "1", "PYTHON": sys.executable, **changes}


def bash(*command: object, cwd: Path = Path("/"), **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", *map(str, command)], cwd=cwd, env=environment(**changes), text=True, capture_output=True, timeout=900
    )


def wheel(folder: Path, version: str) -> None:
    """A package `tinything` that knows its version, as a wheel in `folder`."""
    info = f"tinything-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tinything-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr("tinything.py", f"version = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tinything\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"tinything.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files of the repository that these tests need, in a path with a space."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    for name in (*SCRIPTS, *TEST_LISTS, "infer.py", "train.py", "defaults.ini"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "diff_v2m", folder / "diff_v2m", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def tiny_clone(clone: Path) -> Path:
    """A clone whose requirements are one tiny package, there in versions 1.0 and 2.0 in the folder `wheels`."""
    (clone / "wheels").mkdir()
    for version in ("1.0", "2.0"):
        wheel(clone / "wheels", version)
    for name in TEST_LISTS:
        (clone / name).write_text("tinything==1.0\n")
    return clone


def pretend_ready(clone: Path) -> Path:
    """Give `clone` an environment that counts as finished: the running python's."""
    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    lists = b"".join((clone / name).read_bytes() for name in LISTS)
    checksum = subprocess.run(["cksum"], input=lists, capture_output=True, check=True).stdout.decode()
    (clone / ".venv" / "diff_v2m_stamp").write_text(checksum)
    return python


def echo_arguments(clone: Path) -> None:
    """Replace the Python programs of `clone` by ones that print their arguments."""
    for name in ("infer.py", "train.py"):
        (clone / name).write_text("import os, sys\nprint(sys.argv, os.getcwd())\n")


# ------------------------------------------------------------------------------------------------ the commands


@pytest.mark.parametrize("script", ["infer.sh", "train.sh"])
def test_help_installs_nothing(clone: Path, script: str) -> None:
    done = bash(clone / script, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("script", ["infer", "train"])
def test_arguments_and_folder_arrive_unchanged(clone: Path, tmp_path: Path, script: str) -> None:
    pretend_ready(clone)
    echo_arguments(clone)
    done = bash(clone / f"{script}.sh", "my video.mp4", "--seed", "1", cwd=tmp_path)
    assert done.stdout.strip() == f"{[str(clone / f'{script}.py'), 'my video.mp4', '--seed', '1']} {tmp_path}"


@pytest.mark.parametrize("script", ["infer", "train"])
def test_header_comes_before_any_command(script: str) -> None:
    """sbatch stops reading #SBATCH lines at the first command."""
    lines = (ROOT / f"{script}.sh").read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    header = [line for line in lines if line.startswith("#SBATCH")]
    assert any("--gres=gpu:1" in line for line in header)
    assert header == [line for line in lines[:first_command] if line.startswith("#SBATCH")]


# --------------------------------------------------------------------------------------------------- under Slurm


def spooled(clone: Path, script: str, folder: Path, record: str) -> tuple[Path, str]:
    """A job as slurmd runs it: a copy of the script elsewhere, and a scontrol that prints the job's record."""
    spool = folder / "spool" / "job00007"
    spool.mkdir(parents=True)
    shutil.copy(clone / script, spool / "slurm_script")
    scontrol = folder / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\nprintf '%s\\n' 'JobId=7 JobName=x' '   Command={record}' '   WorkDir=/'\n")
    scontrol.chmod(0o755)
    return spool / "slurm_script", f"{scontrol.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize("script", ["infer", "train"])
def test_job_submitted_by_path_finds_its_repository(clone: Path, tmp_path: Path, script: str) -> None:
    pretend_ready(clone)
    echo_arguments(clone)
    record = f"{clone}/{script}.sh other/{script}.sh --seed 1"
    copy, path = spooled(clone, f"{script}.sh", tmp_path, record)
    done = bash(copy, "x", PATH=path, SLURM_JOB_ID="7", SLURM_SUBMIT_DIR="/")
    assert done.stdout.strip() == f"{[str(clone / f'{script}.py'), 'x']} /", done.stderr


@pytest.mark.parametrize("script", ["infer", "train"])
def test_job_without_a_record_uses_the_submission_folder(clone: Path, tmp_path: Path, script: str) -> None:
    pretend_ready(clone)
    echo_arguments(clone)
    copy, path = spooled(clone, f"{script}.sh", tmp_path, "(null)")
    done = bash(copy, PATH=path, SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(clone))
    assert str(clone / f"{script}.py") in done.stdout, done.stderr
    lost = bash(copy, PATH=path, SLURM_JOB_ID="7", SLURM_SUBMIT_DIR="/")
    assert lost.returncode == 1
    assert "DIFF_V2M_ROOT=/path" in lost.stderr
    set_explicitly = bash(copy, PATH=path, SLURM_JOB_ID="7", SLURM_SUBMIT_DIR="/", DIFF_V2M_ROOT=str(clone))
    assert set_explicitly.stdout == done.stdout.replace(done.args[-1], set_explicitly.args[-1])


def test_each_task_of_an_array_processes_one_part(clone: Path, tmp_path: Path) -> None:
    pretend_ready(clone)
    echo_arguments(clone)
    copy, path = spooled(clone, "infer.sh", tmp_path, f"{clone}/infer.sh")
    task = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_STEP": "2"}
    task["SLURM_ARRAY_TASK_COUNT"] = "3"  # --array=3-7:2, the second task
    assert "'--part', '1/3', 'videos'" in bash(copy, "videos", PATH=path, **task).stdout
    for flag in ("--part", "--shard"):
        assert "1/3" not in bash(copy, "videos", flag, "0/2", PATH=path, **task).stdout
    assert "--part" not in bash(clone / "infer.sh", "videos", PATH=path, **task).stdout  # called by a job script


def test_a_job_that_slurm_started_again_recovers(clone: Path, tmp_path: Path) -> None:
    pretend_ready(clone)
    echo_arguments(clone)
    copy, path = spooled(clone, "train.sh", tmp_path, f"{clone}/train.sh")
    first, again = (
        bash(copy, "--name", "x", PATH=path, SLURM_JOB_ID="7", SLURM_RESTART_COUNT=count).stdout for count in "01"
    )
    assert "'--name', 'x']" in first and "'--name', 'x', '--recover']" in again


def test_several_tasks_are_started_by_srun_and_end_together(clone: Path, tmp_path: Path) -> None:
    pretend_ready(clone)
    echo_arguments(clone)
    copy, path = spooled(clone, "train.sh", tmp_path, f"{clone}/train.sh")
    srun = tmp_path / "bin" / "srun"
    srun.write_text('#!/bin/sh\necho "$@"\n')
    srun.chmod(0o755)
    job = {"PATH": path, "SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "3"}
    started = bash(copy, "--name", "x", **job).stdout
    assert started.startswith("--kill-on-bad-exit=1 --cpus-per-task=3 ") and started.endswith("train.py --name x\n")
    assert bash(copy, "--name", "x", **job, SLURM_STEP_ID="0").stdout.startswith("[")  # srun started this one


# -------------------------------------------------------------------------------------------------------- set-up


def test_a_finished_environment_is_used_without_checks(clone: Path) -> None:
    python = pretend_ready(clone)
    done = bash(clone / "setup.sh", PYTHON="/nowhere/python")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{python}\n", "")


def test_changed_requirements_ask_for_set_up(clone: Path) -> None:
    pretend_ready(clone)
    with (clone / "requirements-sat.txt").open("a") as file:
        file.write("another==1\n")
    assert bash(clone / "setup.sh", PYTHON="/nowhere/python").returncode == 1


def test_wrong_python_is_named(clone: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit\nexit 1\n')
    old.chmod(0o755)
    done = bash(clone / "setup.sh", PYTHON=str(old))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"Python 3.11 is needed; tried: {old} (Python 3.9.2)" in done.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.slow
def test_failed_download_says_so_and_leaves_nothing(tiny_clone: Path) -> None:
    done = bash(tiny_clone / "infer.sh", "video.mp4")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Download failed" in done.stderr
    assert "run the same command again" in done.stderr
    assert not (tiny_clone / ".venv").exists()


@pytest.mark.slow
def test_set_up_once_for_two_callers_then_update_and_repair(tiny_clone: Path) -> None:
    local = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": (tiny_clone / "wheels").as_uri()}
    command = ["bash", str(tiny_clone / "setup.sh")]
    callers = [
        subprocess.Popen(
            command, env=environment(**local), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/"
        )
        for _ in range(2)
    ]
    try:
        said = [caller.communicate(timeout=900) for caller in callers]
    finally:
        for caller in callers:
            caller.kill()
    assert [caller.returncode for caller in callers] == [0, 0], said
    python = tiny_clone / ".venv" / "bin" / "python"
    assert [out for out, _ in said] == [f"{python}\n"] * 2
    assert sorted("2/4 packages" in err for _, err in said) == [False, True], "one sets up, the other waits"

    def installed() -> str:
        report = [python, "-c", "import tinything; print(tinything.version)"]
        return subprocess.run(report, text=True, capture_output=True, check=True).stdout.strip()

    assert installed() == "1.0"
    for name in LISTS:
        (tiny_clone / name).write_text("tinything==3.0\n")  # which there is not
    failed = bash(*command[1:], **local)
    assert failed.returncode == 1
    assert "is not complete" in failed.stderr
    assert python.exists(), "an environment that was there before is not removed"
    assert bash(*command[1:], PYTHON="/nowhere/python").returncode == 1, "but it does not count as finished"
    for name in LISTS:
        (tiny_clone / name).write_text("tinything==2.0\n")
    assert bash(*command[1:], **local).returncode == 0
    assert installed() == "2.0"
    assert bash(*command[1:], PYTHON="/nowhere/python").returncode == 0
    for more in ("--with-studio", "--with-tests"):
        assert bash(*command[1:], more, PYTHON="/nowhere/python").returncode == 1, f"{more} needs more"
    for name in TEST_LISTS:
        (tiny_clone / name).write_text("tinything==2.0\n")
    assert bash(*command[1:], "--with-tests", **local).returncode == 0
    assert bash(*command[1:], "--with-studio", PYTHON="/nowhere/python").returncode == 0, "tests need the studio too"


def test_foreign_folder_is_not_touched(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = bash(clone / "setup.sh", DIFF_V2M_VENV=str(tmp_path))
    assert done.returncode == 1
    assert "is not a virtual environment" in done.stderr
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_own_python_is_used_or_told_what_it_lacks(clone: Path, tmp_path: Path) -> None:
    done = bash(clone / "setup.sh", DIFF_V2M_PYTHON=sys.executable)
    assert (done.returncode, done.stdout) == (0, f"{sys.executable}\n"), done.stderr
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    done = bash(clone / "setup.sh", DIFF_V2M_PYTHON="bare/bin/python", cwd=tmp_path)
    assert done.returncode == 1
    assert "lacks: torch torchvision" in done.stderr
    assert "stable-audio-tools" in done.stderr
    assert "-m pip install --no-deps -r requirements-sat.txt" in done.stderr
    assert not (clone / ".venv").exists()


def test_every_requirement_is_pinned_and_constrained() -> None:
    constrained = {line.split(";")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    pins = [pin for name in TEST_LISTS if name not in LISTS[1:] for pin in requirements(name)]
    assert pins and all("==" in pin for pin in pins)
    assert [pin for pin in pins if pin not in constrained] == []


def test_the_package_depends_on_what_is_set_up() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(lines: list[str]) -> set[str]:
        return {re.split(r"[<>=;\[ ]", line)[0] for line in lines}

    assert names(project["dependencies"]) == names(requirements("requirements.txt"))
    for extra in ("studio", "test"):
        wanted = names(requirements(f"requirements-{extra}.txt"))
        assert names(project["optional-dependencies"][extra]) == wanted
