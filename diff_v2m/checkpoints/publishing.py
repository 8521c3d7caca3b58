"""A model as a folder in the layout of the hub: model.safetensors, model_config.json, and a model card.

Such a folder, and the repository it is uploaded to, load by name: `hf:owner/repo`.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from diff_v2m.checkpoints.files import read_weights, save_model
from diff_v2m.checkpoints.loading import WeightSet, load_model
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import atomic, content_hash, write_json
from diff_v2m.common.versions import VERSION
from diff_v2m.config import ModelConfig
from diff_v2m.weights import hub
from diff_v2m.weights.names import PREFIX, parse_name

log = logging.getLogger(__name__)

WEIGHTS, CONFIG, CARD = "model.safetensors", "model_config.json", "README.md"
SETTINGS = ("max_steps", "max_epochs", "batch_size", "accum_batches", "precision", "seed", "lora_rank")


@dataclass(frozen=True)
class Source:
    """What a model was loaded from."""

    path: Path
    weights: WeightSet


class Publishable:
    """A loaded model that can be saved and uploaded in the layout of the hub.

    The weights are read again from its file, so they are whole whatever precision the model runs in.
    """

    config: ModelConfig
    source: Source | None = None  # None: not loaded from a file

    def loaded_from(self, path: Path, weights: WeightSet) -> Self:
        """Remember the file; returns the model."""
        self.source = Source(path, weights)
        return self

    def save_pretrained(self, folder: str | Path, **options: Any) -> Path:
        """Write weights in half precision, model JSON and model card; `from_pretrained(folder)` loads them.

        options: license, results, dtype, see `save_pretrained` of publishing.py. Raises InputError.
        """
        source = self._source()
        return save_pretrained(source.path, folder, config=self.config, weights=source.weights, **options)

    def push_to_hub(self, repo: str, **options: Any) -> str:
        """Upload what `save_pretrained` writes to owner/repo of the hub; `hf:owner/repo` loads it.

        options: private, license, results, dtype. Returns the address of the commit. Raises InputError.
        """
        source = self._source()
        return push_to_hub(source.path, repo, config=self.config, weights=source.weights, **options)

    def _source(self) -> Source:
        if self.source is None:
            raise InputError("this model was not loaded from a file; load it with from_pretrained, or use save_model")
        return self.source


def save_pretrained(
    source: Path,
    folder: str | Path,
    *,
    config: ModelConfig | None = None,
    weights: WeightSet = "ema",
    dtype: torch.dtype | None = torch.float16,
    license: str | None = None,
    results: str | Path | None = None,
    name: str = "hf:owner/repo",
) -> Path:
    """Write one weight set of a checkpoint, its model JSON and a model card into a folder.

    license: its identifier on the hub, such as mit. results: a Markdown file with measured values and thresholds, which
    becomes a section of the card. name: by which the card says to load the model. Raises InputError.
    """
    folder = Path(folder)
    table = _read(results) if results is not None else None
    model, config = load_model(source, config=config, weights=weights)
    save_model(model, config, folder / WEIGHTS, dtype=dtype)
    write_json(folder / CONFIG, config.raw)
    card = _card(folder / WEIGHTS, config, license, table, training_run(source), name)
    with atomic(folder / CARD) as part:
        part.write_text(card, encoding="utf-8")
    return folder


def push_to_hub(source: Path, repo: str, *, private: bool = False, **options: Any) -> str:
    """Upload what `save_pretrained(source, …, **options)` writes to owner/repo; returns the page of the commit.

    The repository is created if it does not exist. Needs a token that may write (`hf auth login`, or HF_TOKEN). Raises
    InputError.
    """
    from huggingface_hub import HfApi

    name = parse_name(f"{PREFIX}{repo}")
    if name is None or name.file is not None:
        raise InputError(f"{repo}: expected owner/repo")
    with tempfile.TemporaryDirectory(prefix="diff_v2m_push_") as folder:
        save_pretrained(source, folder, name=name.text, **options)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        api = HfApi()
        log.info("%s: uploading %s to %s/%s", repo, hub.size_text(size), api.endpoint, repo)
        with hub.in_one_line(name, [name], "uploaded"):
            api.create_repo(repo, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Diff-V2M model"))


def training_run(source: Path) -> dict[str, Any] | None:
    """The last start in the run.json of the run folder that a weights file is in; None if it is in none."""
    for folder in source.resolve().parents[:2]:  # runs/name/model.safetensors, runs/name/checkpoints/last.ckpt
        try:
            starts = json.loads((folder / "run.json").read_text(encoding="utf-8"))["starts"]
            return {"name": folder.name, "starts": len(starts), **starts[-1]}
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return None


def _card(
    weights: Path, config: ModelConfig, license: str | None, results: str | None, run: dict[str, Any] | None, name: str
) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        license=license, library_name="diff-v2m", tags=["video-to-music", "music-generation", "diffusion"]
    )
    parameters = sum(tensor.numel() for tensor in read_weights(weights).state.values())
    encoder = config.model.conditioning["semantic"].config.encoder
    facts = {
        "parameters": f"{parameters / 1e6:.1f} M",
        "sample rate": f"{config.sample_rate} Hz",
        "channels": str(config.audio_channels),
        "window": f"{config.sample_size / config.sample_rate:g} s",
        "image encoder": encoder,
        "pretransform": config.model.pretransform.type,
        "SHA-256 of model.safetensors": content_hash(weights),
        "written by": f"diff-v2m {VERSION}",
    }
    lines = [
        "---",
        data.to_yaml(),
        "---",
        "",
        "# Music for videos: a Diff-V2M model",
        "",
        "A latent diffusion transformer that generates music for a video, conditioned on per-second image, colour, cut "
        "and motion features.",
        "",
        f"    bash infer.sh video.mp4 --ckpt_path {name}",
        "",
        "```python",
        "from diff_v2m import DiffV2M",
        "",
        f'model = DiffV2M.from_pretrained("{name}")',
        "```",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in facts.items()),
        "",
        f"The whole config is in `{CONFIG}`, and in the metadata of `{WEIGHTS}`.",
        "",
        "## Licence",
        "",
        license or "Not stated by the publisher. Ask before use.",
        "",
    ]
    if results is not None:
        lines += ["## Results", "", results, ""]
    if run is not None:
        lines += ["## Training run", "", *_run_lines(run), ""]
    return "\n".join(lines)


def _run_lines(run: dict[str, Any]) -> list[str]:
    """Settings without paths of the machine."""
    settings = run.get("settings", {})
    facts = {
        "run": f"{run['name']}, started {run['starts']} times, last {run.get('time', 'at an unknown time')}",
        "code": run.get("code", {}).get("git") or run.get("code", {}).get("diff_v2m"),
        **{key: settings.get(key) for key in SETTINGS},
        "pretrained_ckpt_path": Path(start).name if (start := settings.get("pretrained_ckpt_path")) else None,
        **{f"SHA-256 of the files of {data}": digest for data, digest in run.get("fingerprints", {}).items()},
    }
    return ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items() if value is not None)]


def _read(results: str | Path) -> str:
    """Markdown, its headings one level lower, under that of the card."""
    try:
        text = Path(results).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{results}: cannot be read; expected a Markdown file with results") from error
    return re.sub(r"^#", "##", text.strip(), flags=re.MULTILINE)
