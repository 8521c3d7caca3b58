"""train.sh and infer.sh under a real Slurm, if installed: tests/slurm/run.sh."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SKIPPED = 77


def test_jobs_of_a_real_slurm() -> None:
    script = Path(__file__).parent / "run.sh"
    environment = os.environ | {"DIFF_V2M_PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", str(script)], env=environment, capture_output=True, text=True, errors="replace", timeout=3000
    )  # a progress bar may be cut within a character
    if done.returncode == SKIPPED:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
