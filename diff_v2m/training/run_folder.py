"""The folder of a run: checkpoints, written atomically, and a record of every start.

runs/<name>/checkpoints/last.ckpt           the newest state; best-step=<n>.ckpt beside it, by validation loss
runs/<name>/model_config.json, dataset_config.json, val_dataset_config.json
runs/<name>/run.json                        every start of the run: flags, code, versions, data fingerprint
runs/<name>/model.safetensors               the finished model
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import logging
import os
import platform
import secrets
import subprocess
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import ROOT, atomic, write_json
from diff_v2m.common.versions import VERSION
from diff_v2m.config import DatasetConfig, ModelConfig
from diff_v2m.data.tar_shards import INDEX, read_bytes
from diff_v2m.training.run_paths import kept_after_failure, run_folder

log = logging.getLogger(__name__)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints atomically: every byte is on the disk before the file gets its name. Reads them through a
    memory map, so that resuming does not hold a second copy of the whole training state.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises InputError, and keeps the previous file, if the disk is full or the folder cannot be written."""
        try:
            with atomic(path) as part, part.open("wb") as file:
                try:
                    torch.save(checkpoint, file)
                except RuntimeError as error:  # torch's zip writer wraps what the file raised
                    raise error.__context__ if isinstance(error.__context__, OSError) else error from None
                file.flush()
                os.fsync(file.fileno())
        except InputError as error:
            kept = kept_after_failure(Path(path).parent)
            raise InputError(f"{error}; {kept}; free some space and resume with --recover") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        return torch.load(path, map_location=map_location, weights_only=weights_only, mmap=True)


def remove_partial_checkpoints(folder: Path) -> None:
    """Delete unfinished checkpoints of killed processes."""
    for part in folder.glob(".*.part.ckpt"):
        log.info("removing %s, an unfinished checkpoint of a killed process", part)
        part.unlink()


@rank_zero_only
def write_record(settings: argparse.Namespace, config: ModelConfig, data: dict[str, DatasetConfig]) -> None:
    """Write the configs, and add this start to run.json: flags, versions, fingerprints of the data sets.

    data: "dataset" and perhaps "val_dataset" → config. Warns if a data set has changed since the last start.
    """
    folder, record = run_folder(settings), read_record(settings)
    start = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": vars(settings),
        "code": {"diff_v2m": VERSION, "git": _git_describe()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "lightning": pl.__version__},
        "fingerprints": {name: fingerprint(dataset) for name, dataset in data.items()},
    }
    if record["starts"] and record["starts"][-1]["fingerprints"] != start["fingerprints"]:
        log.warning("%s: the data set has changed since this run was last started; its batches differ", folder)
    record["starts"].append(start)
    write_json(folder / "run.json", record)
    write_json(folder / "model_config.json", config.raw)
    for name, dataset in data.items():
        write_json(folder / f"{name}_config.json", dataset.model_dump(mode="json"))


def read_record(settings: argparse.Namespace) -> dict[str, Any]:
    """The run's run.json, or that of a new run: an id, which loggers keep over restarts, and the starts."""
    path = run_folder(settings) / "run.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {"id": secrets.token_hex(4), "starts": []}
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}); remove it, nothing depends on it") from error


def fingerprint(data: DatasetConfig) -> str:
    """SHA-256, in hex, of the names and sizes of a data set's files and the content of its video_info, or of the index
    of its shards.

    Not of the content of sound and features, which would take hours to read.
    """
    digest = hashlib.sha256()
    if data.dataset_type == "audio_video_shards":
        for entry in data.datasets:
            digest.update(f"{entry.id}\n".encode() + read_bytes(entry.shards, INDEX))
        return digest.hexdigest()
    for entry in data.datasets:
        digest.update(f"{entry.id} {entry.class_label}\n".encode())
        if entry.video_info.is_file():
            digest.update(entry.video_info.read_bytes())
        for folder in filter(None, (entry.path, entry.video_feat, entry.video_color, entry.latents, entry.scores)):
            if folder.is_dir():
                files = sorted((file.name, file.stat().st_size) for file in os.scandir(folder) if file.is_file())
                digest.update(json.dumps(files).encode())
    return digest.hexdigest()


def _git_describe() -> str | None:
    """The commit that this code is, with "-dirty" if it was changed since; None outside a git checkout."""
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), "describe", "--tags", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
