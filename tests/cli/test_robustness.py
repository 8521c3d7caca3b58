"""The campaigns of helpers/robustness.py, small."""

import os
import random

import pytest
from helpers import robustness
from helpers.robustness import Place


@pytest.mark.slow
@pytest.mark.parametrize(("campaign", "count"), [("damaged", 12), ("kills", 1)])
def test_campaign(tmp_path, campaign, count):
    run, _ = robustness.CAMPAIGNS[campaign]
    figures, wrong = run(Place(tmp_path), count, random.Random(0))
    assert figures and not wrong


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk to fill")
def test_full_disk(tmp_path):
    try:
        with robustness.mounted(tmp_path / "disk", "size=4096"):
            pass
    except OSError as error:
        pytest.skip(f"no file system to fill: {error}")
    _, wrong = robustness.disks(Place(tmp_path), 1, random.Random(0))
    assert not wrong


def test_damage_is_seeded():
    data = bytes(range(256)) * 40
    first, again = ([robustness.damage(data, random.Random(3)) for _ in range(5)] for _ in range(2))
    assert first == again and all(content != data for _, content in first)
