"""Toys for run.sh: `FOLDER` makes a training set, a model and five videos in it; `--compare A B` compares two runs."""

import sys
from pathlib import Path

from helpers.toys import save_toy_model, write_video
from helpers.training_toys import logged, make_place

COLUMNS = ("train/loss", "train/rhythm_loss", "train/grad_norm", "val/loss", "val/rhythm_loss")


def compare(whole: Path, pieces: Path) -> None:
    for column in COLUMNS:
        expected, seen = logged(whole, column), logged(pieces, column)
        if not expected or seen != expected:
            sys.exit(f"{column}: {pieces} has {seen}, {whole} has {expected}")


def make(folder: Path) -> None:
    make_place(folder)
    save_toy_model(folder / "model.safetensors")
    for number in range(5):
        write_video(folder / f"videos/video{number}.mp4", 2.0, seed=number)


if __name__ == "__main__":
    compare(*map(Path, sys.argv[2:])) if sys.argv[1] == "--compare" else make(Path(sys.argv[1]))
