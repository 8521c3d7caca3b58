"""Order: the Slurm test waits for minutes, so it starts first and the others run beside it."""

import os
from pathlib import Path

import pytest

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # Two processes that compile a function of librosa at once may leave a file that crashes every later process.
    os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "numba" / worker))


def pytest_collection_modifyitems(items: list) -> None:
    items.sort(key=lambda item: item.path.name != "test_slurm.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Logs with names that are not UTF-8 would end pytest-xdist, which sends them between processes."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode("utf-8")) for title, text in report.sections
    ]
    return report
