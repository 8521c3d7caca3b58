"""The examples of docs/directing.md run, in order, on a toy model."""

import re

import numpy as np
import pytest
from helpers import toys


@pytest.mark.slow
def test_the_examples_of_the_page(tmp_path, monkeypatch):
    page = (toys.ROOT / "docs" / "directing.md").read_text(encoding="utf-8")
    toys.save_toy_model(tmp_path / "saved_model" / "tiny" / "model.safetensors")
    toys.write_video(tmp_path / "video.mp4", 4.2)
    toys.write_video(tmp_path / "longer.mp4", 6.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diff_v2m.generation.settings.DEFAULT_STEPS", {"adams": 3})
    names: dict = {}
    for example in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(example, "docs/directing.md", "exec"), names)
    assert names["whole"].audio.shape[1] == 6 * toys.RATE
    np.testing.assert_array_equal(names["again"].audio[:, : toys.RATE], names["best"].audio[:, : toys.RATE])
