"""Order: the Slurm test takes minutes of waiting, so it starts first and the rest runs beside it."""


def pytest_collection_modifyitems(items: list) -> None:
    items.sort(key=lambda item: item.path.name != "test_slurm.py")
