"""`pip install .` and the container: the commands are there and find the bundled model."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_an_installed_package_has_its_commands_model_and_page(tmp_path):
    pip = [sys.executable, "-m", "pip", "-q", "install", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "infer.py", "train.py", "defaults.ini"):
        shutil.copy(ROOT / name, source)
    for name in ("diff_v2m", "inference", "experiments", "benchmarks", "saved_model"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    subprocess.run([*pip, tmp_path / "site", source], check=True, capture_output=True, cwd=tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name in scripts:
        command = [sys.executable, tmp_path / "site" / "bin" / name, "--help"]
        shown = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert shown.returncode == 0 and "usage:" in shown.stdout, name
    asked = "from diff_v2m.common.files import BUNDLED; from diff_v2m.score import instruments; import diff_v2m;"
    asked += "print(*map(str, [BUNDLED / 'model.safetensors', instruments.SOUNDFONT]), sep='\\n')"
    found = subprocess.run([sys.executable, "-c", asked], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert all(str(tmp_path) in line and Path(line).is_file() for line in found.stdout.splitlines()), found
    assert (tmp_path / "site" / "diff_v2m" / "studio" / "assets" / "studio.js").is_file()


def docker_runs() -> bool:
    """Whether a docker daemon answers: the client alone builds nothing."""
    return bool(shutil.which("docker")) and subprocess.run(["docker", "info"], capture_output=True).returncode == 0


@pytest.mark.skipif(not (os.environ.get("CI") and docker_runs()), reason="needs a docker daemon, in CI")
def test_the_container_is_built_and_generates():
    subprocess.run(["docker", "build", "-t", "diff-v2m-test", ROOT], check=True)
    run = ["docker", "run", "--rm", "diff-v2m-test", "diff-v2m", "/app/examples/earth.mp4", "--steps", "2"]
    subprocess.run(run, check=True)
