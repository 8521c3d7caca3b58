"""Reading the reference folder: model configs derived from case names, weights by recipe, batches from stored inputs.

The folder holds numbers computed by the published code (see its layout in test_reference.py); nothing of that code.
"""

from __future__ import annotations

import copy
import json
import os
import re
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from helpers.released_rhythm import released_resize
from torch import Tensor, nn

from diff_v2m.config import RHYTHM_DIMS, ModelConfig, parse_model_config
from diff_v2m.data.batch import Batch
from diff_v2m.model.dit import LatentDiffusion
from diff_v2m.model.fusion import FUSIONS

OURS = Path(__file__).parents[1] / "reference"
FOLDER = Path(os.environ.get("DIFF_V2M_REFERENCE") or OURS)
ROWS = 30


def locate(relative: str) -> Path:
    """A file of the chosen folder; inputs that it shares with ours, and does not repeat, come from ours."""
    for folder in (FOLDER, OURS):
        if (folder / relative).exists():
            return folder / relative
    raise FileNotFoundError(f"{relative} is neither in {FOLDER} nor in {OURS}")


def arrays(relative: str) -> dict[str, np.ndarray]:
    with np.load(locate(relative), allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def description(kind: str) -> dict:
    return json.loads(locate(f"{kind}/description.json").read_text())


# --- configs and weights -----------------------------------------------------------------------------------------


def tiny_raw_config() -> dict:
    """tiny_config.json with the sizes that the published code hard-codes, and the reference shrank, written out."""
    stored = json.loads(locate("tiny_config.json").read_text())
    raw, shrunk = stored["config"], stored["hard_coded_sizes_shrunk"]
    conditioner(raw, "semantic")["extractor"] = shrunk["extractor"]
    conditioner(raw, "color")["hidden_dim"] = shrunk["color_mid_dim"]
    return raw


def conditioner(raw: dict, id: str) -> dict:
    return next(entry["config"] for entry in raw["model"]["conditioning"]["configs"] if entry["id"] == id)


def set_rhythm(raw: dict, kind: str) -> None:
    conditioner(raw, "semantic")["rhythm_type"] = kind
    conditioner(raw, "rhythm")["dim"] = RHYTHM_DIMS[kind]


def config_of_conditioner_case(case: str, stored: dict[str, np.ndarray]) -> ModelConfig:
    """odf|mel|tempo, `_released_sizes`; feature widths are those of the stored arrays."""
    raw = tiny_raw_config()
    set_rhythm(raw, case.split("_")[0])
    conditioner(raw, "semantic")["dim"] = stored["in/0/semantic"].shape[1]
    conditioner(raw, "color")["dim"] = stored["in/0/color"].shape[1]
    if case.endswith("released_sizes"):
        del conditioner(raw, "semantic")["extractor"], conditioner(raw, "color")["hidden_dim"]
    width = stored["out/semantic/0"].shape[2]
    raw["model"]["conditioning"]["cond_dim"] = width
    dit = raw["model"]["diffusion"]["config"]
    dit |= {"cond_token_dim": width, "global_cond_dim": 3 * width, "embed_dim": 2 * width}
    return parse_model_config(raw, case)


def config_of_dit_case(case: str) -> ModelConfig:
    """A fusion's name, `_nocolor` where colour is not among the ids; or opt_patchN, opt_project_cond_tokens."""
    raw = tiny_raw_config()
    diffusion = raw["model"]["diffusion"]
    name = case.removesuffix("_nocolor")
    if name != case:
        diffusion["cross_attention_cond_ids"].remove("color")
    if patch := re.fullmatch(r"opt_patch(\d+)", name):
        diffusion["config"]["patch_size"] = int(patch[1])
    elif name == "opt_project_cond_tokens":
        diffusion["config"]["project_cond_tokens"] = True
    elif name in FUSIONS:
        diffusion["config"]["attention_weight_type"] = name
    else:
        raise ValueError(f"the reference case d_dit/{case} is of a kind this test does not know")
    return parse_model_config(raw, case)


def recipe(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a parameter in the reference, from the last part of its name and its shape."""
    last = key.split(".")[-1]
    if last in ("gamma", "weight_g"):
        return {"gamma": (1.0, 0.1), "weight_g": (0.8, 0.05)}[last]
    if last in ("alpha", "beta", "bias"):
        return 0.0, 0.1
    if last == "weights" or key.endswith("timestep_features.weight"):
        return 0.0, 1.0
    if key.endswith(("class_embedding.weight", "scene_embedding.weight", "int_embedder.weight")):
        return 0.0, 0.5
    return 0.0, float(np.prod(shape[1:])) ** -0.5


def recipe_values(key: str, shape: tuple[int, ...], prefix: str = "") -> np.ndarray:
    mean, std = recipe(key, shape)
    generator = np.random.RandomState(zlib.crc32((prefix + key).encode()))
    return (mean + std * generator.standard_normal(int(np.prod(shape))).reshape(shape)).astype(np.float32)


def fill(module: nn.Module, prefix: str) -> nn.Module:
    """Give every parameter the value the reference had; buffers keep theirs."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(recipe_values(name, tuple(parameter.shape), prefix)))
    return module.eval()


@lru_cache(maxsize=2)
def model_of(case: str, rhythm: str = "odf", *, ema: bool = False) -> LatentDiffusion:
    """The whole tiny system with the reference's weights; `ema` puts the averaged ones into the DiT."""
    raw = copy.deepcopy(config_of_dit_case(case).raw)
    set_rhythm(raw, rhythm)
    model = fill(LatentDiffusion(parse_model_config(raw, case)), "diffusion.")
    if ema:
        fill(model.model, "diffusion_ema.ema_model.")
    return model


# --- inputs ------------------------------------------------------------------------------------------------------


def batch_of(stored: dict[str, np.ndarray], count: int, rhythm: str) -> Batch:
    """The first `count` clips of a conditioner case, padded and cut to 30 seconds as the published code does."""

    def rows(field: str, dtype: type) -> Tensor:
        padded = []
        for i in range(count):
            values = stored[f"in/{i}/{field}"][:ROWS].astype(dtype)
            padded.append(np.pad(values, [(0, ROWS - len(values))] + [(0, 0)] * (values.ndim - 1)))
        return torch.from_numpy(np.stack(padded))

    def mask(field: str) -> Tensor:
        return torch.stack([torch.arange(ROWS) < len(stored[f"in/{i}/{field}"]) for i in range(count)])

    def scalars(field: str) -> Tensor:
        return torch.tensor([int(stored[f"in/{i}/{field}"]) for i in range(count)])

    frames = [torch.from_numpy(stored[f"in/{i}/rhythm"]) for i in range(count)]
    target, target_mask = released_resize(frames, RHYTHM_DIMS[rhythm])
    return Batch(
        semantic=rows("semantic", np.float32),
        color=rows("color", np.float32) / np.float32(255),
        scene_cut=rows("scene_cut", np.int64),
        pseudo_beats=rows("pseudo_beat", np.float32),
        mask=mask("semantic"),
        class_label=scalars("class"),
        seconds_start=scalars("seconds_start").float(),
        seconds_total=scalars("seconds_total").float(),
        names=[f"clip {i}" for i in range(count)],
        rhythm=target,
        rhythm_mask=target_mask.bool(),
        color_mask=mask("color"),
    )


def clips(count: int, rhythm: str = "odf") -> tuple[Batch, int]:
    """`count` clips with that rhythm, and how many of them are the reference's.

    All its batches share their first clips, so any stored conditioner case will do; if none has so many, the last
    known clip fills the places up, and only what is computed from the known ones can be compared.
    """
    stored = {int(p.stem.removeprefix(f"{rhythm}_b")): p for folder in (OURS, FOLDER) for p in _batches(folder, rhythm)}
    if not stored:
        raise FileNotFoundError(f"no b_conditioner/{rhythm}_bN.npz in {FOLDER}: the inputs of this case are needed")
    known = min((n for n in stored if n >= count), default=max(stored))
    values = arrays(f"b_conditioner/{stored[known].name}")
    known = min(known, count)
    for i in range(known, count):
        values |= {key.replace(f"/{known - 1}/", f"/{i}/"): v for key, v in values.items() if f"in/{known - 1}/" in key}
    return batch_of(values, count, rhythm), known


def _batches(folder: Path, rhythm: str) -> list[Path]:
    return [p for p in (folder / "b_conditioner").glob(f"{rhythm}_b*.npz") if re.fullmatch(r".*_b\d+", p.stem)]
