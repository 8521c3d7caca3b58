"""Low-rank adapters (LoRA, peft): fine-tuning with a small number of trained weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from diff_v2m.checkpoints.files import AVERAGED, WeightsFile, warn_if_not_averaged
from diff_v2m.checkpoints.loading import WeightSet, config_of, load_model
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash
from diff_v2m.config import ModelConfig
from diff_v2m.model.dit import LatentDiffusion

log = logging.getLogger(__name__)

ADAPTED = r".*\.layers\.\d+\.(.*attn\d?\.(to_qkv|to_q|to_kv|to_out)|ff\.ff\.0\.proj|ff\.ff\.2)"
BASE, DOWN, UP = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


def add_adapters(model: LatentDiffusion, rank: int) -> None:
    """Freeze the model and add an adapter to every linear layer of the transformer's attentions and feed-forwards.

    The adapters start at zero, so the model's output does not change.
    """
    from peft import LoraConfig, inject_adapter_in_model

    model.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=ADAPTED), model.model)
    adapters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    share = sum(p.numel() for p in adapters) / sum(p.numel() for p in model.parameters())
    log.info("training %d adapters of rank %d, %.2f%% of all weights", len(adapters) // 2, rank, 100 * share)


def is_adapter(key: str) -> bool:
    return key.endswith((DOWN, UP))


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Merge the adapters of a state dict into its weights: W + B A, under the layer's own name."""
    plain = {key.replace(BASE, "."): tensor for key, tensor in state.items() if not is_adapter(key)}
    for key in filter(lambda key: key.endswith(DOWN), state):
        layer = key.removesuffix(DOWN)
        weight, change = plain[layer + ".weight"], state[layer + UP].float() @ state[key].float()
        plain[layer + ".weight"] = (weight + change.to(weight.device)).to(weight.dtype)
    return plain


def describe(rank: int, base: Path) -> dict[str, str | int]:
    """Provenance in a checkpoint of adapters: their rank and their base model."""
    return {"rank": rank, "base": str(base.resolve()), "base_sha256": content_hash(base)}


def merge_into_base(
    file: WeightsFile, weights: WeightSet, base: Path | None = None
) -> tuple[LatentDiffusion, ModelConfig]:
    """A checkpoint of adapters → the base model with the adapters merged, and its config.

    base: path of the base model; None: the path at training time. Raises InputError if it is missing or another model.
    """
    base = base or Path(file.adapters["base"])
    if not base.is_file():
        raise InputError(f"{file.path}: its adapters belong to {base}, which does not exist; give --base FILE")
    check_base(file.path, file.adapters, base)
    config = config_of(file)
    model, _ = load_model(base, config=config)
    online = "diffusion.model."
    averaged = AVERAGED[online]
    prefix = averaged if weights == "ema" and any(key.startswith(averaged) for key in file.state) else online
    if prefix == averaged:
        warn_if_not_averaged(file.state, file.path)
    adapters = {"model." + k.removeprefix(prefix): v for k, v in file.state.items() if k.startswith(prefix)}
    model.load_state_dict(merged(model.state_dict() | adapters))
    return model, config


def check_base(path: str | Path, adapters: Mapping, base: Path) -> None:
    """InputError unless `base` is the file that the adapters were trained on."""
    if content_hash(base) != adapters["base_sha256"]:
        raise InputError(f"{path}: its adapters were trained on {adapters['base']}, and {base} is another model")
