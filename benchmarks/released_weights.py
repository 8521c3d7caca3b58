"""Random weights of exactly the released names and shapes: the checkpoint, CLIP, and Stable Audio Open's file.

Files are laid out first and filled through a memory map, so that making 12 GB takes little memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.serialization import set_default_mmap_options, skip_data
from tqdm import tqdm

from diff_v2m.checkpoints.loading import uninitialized
from diff_v2m.checkpoints.starting import STABLE_AUDIO
from diff_v2m.common.files import ROOT, atomic, write_json
from diff_v2m.config import parse_model_config
from diff_v2m.features.semantic import CLIP_NAME
from diff_v2m.training.diffusion_module import DiffusionModule

RELEASED_DEPTH = 24
MAP_SHARED = 1  # mmap.MAP_SHARED, what is written to a tensor is written to its file


def released_config(depth: int) -> dict:
    """The released model JSON with this many layers."""
    raw = json.loads((ROOT / "configs" / "model" / "diff_v2m.json").read_text())
    raw["model"]["diffusion"]["config"]["depth"] = depth
    return raw


def make(folder: Path, depth: int = RELEASED_DEPTH) -> None:
    """Write what is missing of model.ckpt, model_config.json, stable_audio.safetensors and CLIP's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    if not (folder / "model.ckpt").is_file():
        make_checkpoint(folder, released_config(depth))
    if not (folder / "stable_audio.safetensors").is_file():
        make_stable_audio(folder / "model.ckpt", folder / "stable_audio.safetensors")
    if not (folder / CLIP_NAME).is_dir():
        make_clip(folder / CLIP_NAME)


def make_checkpoint(folder: Path, raw: dict) -> None:
    """model.ckpt, with online and averaged weights, and model_config.json."""
    with uninitialized():
        state = DiffusionModule(parse_model_config(raw, "benchmark")).state_dict()
    lightning = {"epoch": 49, "global_step": 1, "pytorch-lightning_version": "2.1.0", "optimizer_states": []}
    with atomic(folder / "model.ckpt") as part:
        with skip_data():
            torch.save({"state_dict": state} | lightning, part)
        _fill(part)
    write_json(folder / "model_config.json", raw)


def _fill(checkpoint: Path) -> None:
    with set_default_mmap_options(MAP_SHARED):
        state = torch.load(checkpoint, mmap=True, weights_only=True)["state_dict"]
    for name, tensor in tqdm(state.items(), desc="random weights", unit="tensor", disable=None):
        _randomize(name, tensor, state)


def _randomize(name: str, tensor: Tensor, state: Mapping[str, Tensor]) -> None:
    """Values that leave the size of activations about as it is."""
    if not tensor.is_floating_point() or name.endswith("initted"):
        tensor.fill_(1)
    elif name.endswith("inv_freq"):
        tensor.copy_(10000.0 ** (-torch.arange(len(tensor)) / len(tensor)))
    elif name.endswith("weight_g"):  # the norm of weight_v: weight normalisation changes nothing
        tensor.fill_(1.0)
    elif tensor.ndim >= 2:
        tensor.normal_(std=0.5 * (tensor[0].numel()) ** -0.5)
    elif name.endswith((".gamma", "norm.weight")):
        tensor.fill_(0.5)
    elif tensor.numel() > 1 and name.endswith(".weights"):  # Fourier frequencies
        tensor.normal_()
    else:  # biases, the logarithms of snake's parameters, weights of the loss terms
        tensor.zero_()


def make_clip(folder: Path) -> None:
    """CLIP ViT-B/32, the half for images."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(patch_size=32, projection_dim=512)  # the other defaults are those of ViT-B/32
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)


def make_stable_audio(checkpoint: Path, target: Path) -> None:
    """The autoencoder and the transformer, with one cross-attention a layer and the global condition (start, total)."""
    from safetensors.torch import save_file

    state = torch.load(checkpoint, mmap=True, weights_only=True)["state_dict"]
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("diffusion.pretransform."):
            theirs[name.removeprefix("diffusion.")] = tensor
        elif name.startswith("diffusion.model.model.") and not any(
            part in name for part in (".cross_attn1.", ".cross_attn2.", ".color_norm.", "FiLM", ".t_linear.")
        ):
            own = STABLE_AUDIO + name.removeprefix("diffusion.model.model.").replace(".cross_attn0.", ".cross_attn.")
            theirs[own] = tensor[:, : 2 * tensor.shape[1] // 3] if "to_global_embed.0" in name else tensor
    with atomic(target) as part:
        save_file({name: tensor.contiguous() for name, tensor in theirs.items()}, part)


def depth_of(folder: Path) -> int:
    """Layers of the weights in a folder."""
    raw = json.loads((folder / "model_config.json").read_text())
    return raw["model"]["diffusion"]["config"]["depth"]
