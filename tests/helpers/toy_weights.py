"""Toy models and weights files in every format, for the tests of checkpoints/."""

import json
from pathlib import Path

import torch

from diff_v2m.config import ModelConfig
from diff_v2m.model.dit import LatentDiffusion

RELEASED = Path(__file__).parents[2] / "configs" / "model" / "diff_v2m.json"


def toy_json(depth: int = 2, **conditioning: object) -> dict:
    """The released schema at a size that builds in milliseconds."""
    raw = json.loads(RELEASED.read_text())
    raw["sample_size"] = 2048
    raw["model"]["io_channels"] = 4
    oobleck = {"channels": 4, "c_mults": [1, 2], "strides": [4, 8], "use_snake": True}
    raw["model"]["pretransform"]["config"] |= {
        "encoder": {"type": "oobleck", "config": oobleck | {"in_channels": 2, "latent_dim": 8}},
        "decoder": {"type": "oobleck", "config": oobleck | {"out_channels": 2, "latent_dim": 4, "final_tanh": False}},
        "latent_dim": 4,
        "downsampling_ratio": 32,
    }
    small = {
        "semantic": {"hidden_dim": 16, "extractor": {"dim": 64, "depth": 1, "num_heads": 2}},
        "rhythm": {"hidden_dim": 16},
        "color": {"hidden_dim": 16},
    }
    for entry in raw["model"]["conditioning"]["configs"]:
        entry["config"] |= small.get(entry["id"], {})
    raw["model"]["conditioning"] |= {"cond_dim": 32} | conditioning
    raw["model"]["diffusion"]["config"] |= {
        "io_channels": 4,
        "embed_dim": 64,
        "depth": depth,
        "num_heads": 2,
        "cond_token_dim": 32,
        "global_cond_dim": 96,
    }
    return raw


def autoencoder_json(config: ModelConfig, **changes: object) -> dict:
    raw = {key: config.raw[key] for key in ("sample_rate", "sample_size", "audio_channels")}
    return raw | {"model_type": "autoencoder", "model": config.raw["model"]["pretransform"]["config"] | changes}


def toy_model(config: ModelConfig) -> LatentDiffusion:
    """A toy model whose tensors are all random, so that no two can be confused."""
    torch.manual_seed(0)
    return filled(LatentDiffusion(config).eval())


def filled(vae: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for tensor in vae.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape))
    return vae


def wrapper_state(model: LatentDiffusion) -> dict[str, torch.Tensor]:
    """The released training wrapper's state dict; its moving average is the online network + 1."""
    state = {"diffusion." + name: tensor.clone() for name, tensor in model.state_dict().items()}
    network = {name: tensor for name, tensor in state.items() if name.startswith("diffusion.model.")}
    state |= {name.replace("diffusion.model.", "diffusion_ema.ema_model."): t + 1 for name, t in network.items()}
    state |= {"diffusion_ema.initted": torch.ones(1), "diffusion_ema.step": torch.tensor([7])}
    return state | {f"losses.losses.{index}.weight": torch.tensor(1.0) for index in range(2)}


def lightning(path: Path, state: dict, **extra: object) -> Path:
    rest = {"epoch": 3, "global_step": 9, "pytorch-lightning_version": "2.1.0", "loops": {}, "optimizer_states": []}
    torch.save({"state_dict": state} | rest | extra, path)
    return path


def equal(ours: torch.nn.Module, theirs: dict[str, torch.Tensor]) -> bool:
    state = ours.state_dict()
    return state.keys() == theirs.keys() and all(torch.equal(state[name], theirs[name]) for name in state)
