"""The doctor: each line is ok or says what to do, and nothing that is wrong stops the other checks."""

import json
import sys
from importlib import metadata
from types import SimpleNamespace

import psutil
import pytest
from helpers import toys
from helpers.hub_server import use_hub

from diff_v2m.__main__ import main
from diff_v2m.generation import doctor


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """All checks but the run, offline."""
    use_hub(monkeypatch, None, tmp_path / "hub")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delitem(doctor.CHECKS, "run")


def findings(capsys, *arguments):
    """(exit status, name → (ok, text))."""
    status = main(["doctor", "--json", "--device", "cpu", *map(str, arguments)])
    return status, {found["name"]: (found["ok"], found["text"]) for found in json.loads(capsys.readouterr().out)}


def test_a_good_machine(quick, capsys, tmp_path):
    model = toys.save_toy_model(tmp_path / "model.safetensors")
    status, found = findings(capsys, "--ckpt-path", model, "--output-dir", tmp_path / "out")
    assert status == 0 and all(ok for ok, _ in found.values()), found
    assert list(found) == list(doctor.CHECKS) and not (tmp_path / "out").exists(), "nothing is written"
    assert str(model) in found["weights"][1] and found["encoder"][1] == "hog"


def test_each_fault_has_its_line(quick, capsys, tmp_path, monkeypatch):
    model = toys.save_toy_model(tmp_path / "model.safetensors")
    (tmp_path / "file").touch()

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    monkeypatch.setattr(metadata, "version", absent)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    status, found = findings(capsys, "--ckpt-path", model, "--output-dir", tmp_path / "file" / "out")
    assert status == 1
    expected = {
        "python": "expected 3.11",
        "packages": "missing: torch",
        "output": "file: is a file",
        "memory": "1 kB free; end other programs",
    }
    for name, text in expected.items():
        assert not found[name][0] and text in found[name][1]
    assert found["codecs"][0] and found["weights"][0]


def test_a_model_that_is_not_here(quick, capsys, tmp_path):
    status, found = findings(capsys, "--ckpt-path", "hf:me/mine", "--output-dir", tmp_path)
    assert status == 1 and "run: python -m diff_v2m weights get hf:me/mine" in found["weights"][1]
    assert not any(found[name][0] for name in ("weights", "encoder", "memory")) and found["disk"][0]


def test_a_broken_package_is_a_finding(quick, capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert main(["doctor", "--ckpt-path", str(toys.save_toy_model(tmp_path / "m.safetensors"))]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("FIX memory: ModuleNotFoundError") and "setup.sh" in line for line in lines)
    assert any(line.startswith("ok  python: 3.11") for line in lines)


@pytest.mark.slow
def test_the_run_of_one_second(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", {"run": doctor.check_run})
    status, found = findings(capsys)
    assert status == 0 and found["run"][1].startswith("1.0 s of music"), found
    monkeypatch.setattr(doctor, "BUNDLED", doctor.ROOT / "examples")
    status, found = findings(capsys)
    assert status == 1 and "the run failed: error:" in found["run"][1]
