"""Order: the Slurm test waits for minutes, so it starts first and the others run beside it."""


def pytest_collection_modifyitems(items: list) -> None:
    items.sort(key=lambda item: item.path.name != "test_slurm.py")
