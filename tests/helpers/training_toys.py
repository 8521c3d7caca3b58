"""Real runs of train.py on a toy model and six toy clips, for the tests of training."""

import csv
import json
from pathlib import Path

import pytest
import torch
from helpers.data_folder import Folder
from helpers.toys import RATE, WINDOW, toy_raw_config

import train
from diff_v2m.common.errors import InputError
from diff_v2m.data import dataset as clips
from diff_v2m.data.crops import Clip


def raw_config() -> dict:
    """The toy model, in the middle of its curriculum from the first epoch on and with both kinds of dropout."""
    raw = toy_raw_config(depth=1)
    training = raw["training"]
    training |= {"cfg_dropout_prob": 0.3, "joint_dropout_prob": 0.2}
    training["rhythm_curriculum"] = {"start_epoch": 0, "end_epoch": 6}
    training["optimizer_configs"]["diffusion"] = {
        "optimizer": {"type": "AdamW", "config": {"lr": 0.001}},
        "scheduler": {"type": "CosineLR", "config": {"warmup_steps": 2, "total_steps": 100}},
    }
    return raw


def make_place(root: Path) -> Path:
    """model.json, data.json and, in set/, six clips of which two are longer than the window."""
    root.mkdir(exist_ok=True)
    (root / "model.json").write_text(json.dumps(raw_config()))
    folder = Folder(root)
    for number in range(6):
        folder.add(f"c{number}", number, seconds=WINDOW + 3 * (number > 3), clicks=(0.5, 1.5 + number % 3), rate=RATE)
    data = {"dataset_type": "audio_video_dir", "rhythm_type": "odf", "random_crop": True, "datasets": [folder.entry()]}
    (root / "data.json").write_text(json.dumps(data))
    (root / "clips").symlink_to(folder.root)
    return root


class TheSet:
    """The data set of `place`, for `dataset_config`."""

    def __init__(self, place: Path):
        self.place = place

    def entry(self) -> dict:
        return json.loads((self.place / "data.json").read_text())["datasets"][0]


def run(place: Path, folder: Path, *flags: object) -> Path:
    """train.py on the toy data; → the run's folder."""
    settings = train.parse(
        [
            "--model-config",
            str(place / "model.json"),
            "--dataset-config",
            str(place / "data.json"),
            "--save-dir",
            str(folder.parent),
            "--name",
            folder.name,
            "--batch-size",
            "2",
            "--num-workers",
            "0",
            "--accelerator",
            "cpu",
            "--precision",
            "32",
            "--log-every",
            "1",
            *map(str, flags),
        ]
    )
    train.run(settings)
    return folder


def breaks(monkeypatch: pytest.MonkeyPatch, *stems: str) -> None:
    """Audio that breaks after the data set was checked."""
    inner = clips.crop_audio

    def crop_audio(clip: Clip, *rest: object) -> torch.Tensor:
        if clip.stem in stems:
            raise InputError(f"{clip.stem}.wav: is gone")
        return inner(clip, *rest)

    monkeypatch.setattr(clips, "crop_audio", crop_audio)


def logged(folder: Path, column: str = "train/loss") -> dict[int, float]:
    """Step → value, over all pieces of a run; steps count from 0."""
    values = {}
    for path in sorted(folder.glob("logs/version_*/metrics.csv")):
        with path.open() as file:
            values |= {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row.get(column)}
    return values


def checkpoint(folder: Path, name: str = "last.ckpt") -> dict:
    return torch.load(folder / "checkpoints" / name, weights_only=True)
