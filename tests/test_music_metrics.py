"""What is measured of music while training: figures that know clicks at the cuts from clicks elsewhere, and silence."""

from pathlib import Path

import numpy as np
import pytest
from eval_toys import clicks, music
from toys import toy_features

from diff_v2m import music_metrics
from diff_v2m.demos import DemoClip
from diff_v2m.generation import Composition
from diff_v2m.music_metrics import listen, means

RATE, SECONDS = 16000, 12.0
CUTS = np.array([1.0, 3.5, 6.0, 8.5, 11.0])


def piece(audio: np.ndarray) -> Composition:
    return Composition(audio[None].astype(np.float32), np.zeros(int(SECONDS), np.float32), ())


def rhythm_of(times) -> np.ndarray:
    rows = np.zeros(int(SECONDS))
    np.add.at(rows, np.floor(times).astype(int), 1)
    return rows


@pytest.fixture(scope="module")
def found() -> dict:
    beat = clicks(np.arange(1.0, SECONDS, 0.5), SECONDS)  # a steady pulse that meets every cut
    wanted = {"true": rhythm_of(CUTS), "predicted": None}
    return listen(piece(beat + 0.02 * music(0, SECONDS)), RATE, wanted, CUTS)
