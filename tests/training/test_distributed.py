"""Distributed training: fsdp2 computes the same as one process, and missing packages are named."""

import argparse
import importlib.util
import json
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from helpers.kill_nine import SERVER
from helpers.processes import run_to_the_end
from helpers.training_toys import breaks, checkpoint, logged, make_place, run

from diff_v2m.checkpoints.loading import load_model
from diff_v2m.common.errors import InputError
from diff_v2m.training.distributed import DDP, build_precision, build_strategy


def flags(**given: object) -> argparse.Namespace:
    usual = {"strategy": None, "num_gpus": 1, "num_nodes": 1, "precision": "32", "accelerator": "cpu"}
    return argparse.Namespace(**usual | given)


def test_strategies_by_name():
    assert build_strategy(flags()) == "auto" and build_strategy(flags(num_nodes=2)) == DDP
    assert build_strategy(flags(strategy="ddp")) == DDP and build_strategy(flags(strategy="ddp_spawn")) == "ddp_spawn"
    with pytest.raises(InputError, match="--strategy fsdp2 with --precision 16: expected --precision bf16-mixed or 32"):
        build_strategy(flags(strategy="fsdp2", precision="16"))


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is not None, reason="deepspeed is installed")
def test_what_is_not_installed_is_said_how_to_install():
    with pytest.raises(InputError, match="--strategy deepspeed: not installed: pip install 'deepspeed==.*fsdp2"):
        build_strategy(flags(strategy="deepspeed"))


@pytest.mark.parametrize(
    ("precision", "accelerator", "expected"),
    [("16", "cpu", "bf16-mixed"), ("bf16-mixed", "auto", "bf16-mixed"), ("32", "auto", None)],
)
def test_precision(precision, accelerator, expected):
    name, plugins = build_precision(flags(precision=precision, accelerator=accelerator))
    assert [plugin.precision for plugin in plugins] == ([expected] if expected else [])
    assert name == (None if expected else "32")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Five of the six clips are there to validate on: three for one process, two for the other."""
    root = make_place(tmp_path_factory.mktemp("strategies"))
    shutil.copytree(root / "set", root / "val", ignore=shutil.ignore_patterns("c5.wav"))
    data = json.loads((root / "data.json").read_text())
    data["datasets"][0]["path"] = str(root / "val/wav")
    (root / "val.json").write_text(json.dumps(data))
    return root


def train(place: Path, name: str, *more: object) -> Path:
    """Two processes of a run, connected as those that Lightning starts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [SERVER.Process(target=one_of_two, args=(rank, port, place, name, more)) for rank in range(2)]
    with run_to_the_end(processes):
        return place / name


def one_of_two(rank: int, port: int, place: Path, name: str, more: Sequence[object]) -> None:
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "NODE_RANK": 0, "LOCAL_RANK": rank}
    os.environ.update({key: str(value) for key, value in where.items()})
    run(
        place,
        place / name,
        "--num-gpus",
        2,
        "--batch-size",
        1,
        "--val-dataset-config",
        place / "val.json",
        "--gradient-clip-val",
        1,
        *more,
    )


@pytest.mark.slow
def test_fsdp2_is_ddp_with_less_memory_and_its_checkpoints_are_like_any_other(place, monkeypatch):
    """With one clip that cannot be read when its turn comes, in training and in validation."""
    breaks(monkeypatch, "c3")
    whole = train(place, "ddp", "--max-steps", 3)
    parts = train(place, "fsdp2", "--max-steps", 2, "--strategy", "fsdp2")
    train(place, "fsdp2", "--max-steps", 3, "--strategy", "fsdp2", "--recover")
    for column, steps in (("train/loss", 3), ("train/grad_norm", 3), ("val/loss", 1)):
        assert logged(parts, column) == pytest.approx(logged(whole, column), rel=1e-4), column
        assert len(logged(parts, column)) == steps
    ours, theirs = checkpoint(parts)["state_dict"], checkpoint(whole)["state_dict"]
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.allclose(ours[name].float(), tensor.float(), atol=1e-4), name
    exported = [load_model(run / "model.safetensors")[0].state_dict() for run in (parts, whole)]
    assert all(torch.allclose(exported[0][name], tensor, atol=1e-3) for name, tensor in exported[1].items())
