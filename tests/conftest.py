"""Order: the Slurm test waits for minutes, so it starts first and the others run beside it."""

import pytest


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
