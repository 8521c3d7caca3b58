"""The device of a command: names that exist here, and one line for others."""

import pytest
import torch

from diff_v2m.common.devices import pick_device
from diff_v2m.common.errors import InputError


def test_devices_that_are_not_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("cpu", "cpu:0", "cuda", "cuda:0", "cuda:1"):
        assert pick_device(name) == name
    for name in ("tpu", "cpu:x", "cpu:1", "cuda:", "cuda:2", "cuda:-1", "cuda:128", "cuda:256", "", "meta"):
        with pytest.raises(InputError, match=f"^--device {name}: .*use --device auto"):
            pick_device(name)


@pytest.mark.parametrize("command", ["clips", "latents", "evaluate"])
def test_a_device_that_is_not_here_is_one_line(command, tmp_path, monkeypatch, caplog):
    from diff_v2m.preprocess.__main__ import main as preprocess
    from inference.evaluate import main as evaluate

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "a.mp4").touch()
    for name, message in (("gpu", "expected auto, cpu, cuda"), ("cuda", "not available here")):
        output = ["--output", str(tmp_path / "out"), "--device", name]
        models = ["--model-config", "none.json", "--pretransform-ckpt-path", "none", "--device", name]
        status = {
            "clips": lambda output=output: preprocess(["clips", str(tmp_path), "--encoder", "hog", *output]),
            "latents": lambda models=models: preprocess(["latents", "--dataset-config", "none.json", *models]),
            "evaluate": lambda output=output: evaluate(["--generated", str(tmp_path), *output]),
        }[command]()
        assert status == 1 and f"--device {name}: {message}" in caplog.text
    assert not (tmp_path / "out").exists()
    assert all("\n" not in record.getMessage() for record in caplog.records)
