"""Low-rank adapters (LoRA, peft): fine-tuning with a small number of trained weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
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


class MergedState(Mapping[str, Tensor]):
    """A state dict with its adapters merged: W + B A under the layer's own name, computed when it is read."""

    def __init__(self, state: Mapping[str, Tensor]):
        self.state = state
        self.keys_by_name = {key.replace(BASE, "."): key for key in state if not is_adapter(key)}
        self.adapted = {
            layer.removesuffix(DOWN) + ".weight": layer.removesuffix(DOWN) for layer in state if layer.endswith(DOWN)
        }

    def __getitem__(self, name: str) -> Tensor:
        weight = self.state[self.keys_by_name[name]].detach()
        if (layer := self.adapted.get(name)) is None:
            return weight
        up, down = (self.state[layer + side].detach().float().to(weight.device) for side in (UP, DOWN))
        return torch.addmm(weight.float(), up, down).to(weight.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys_by_name)

    def __len__(self) -> int:
        return len(self.keys_by_name)


def describe(rank: int, base: Path) -> dict[str, str | int]:
    """Provenance in a checkpoint of adapters: their rank and their base model."""
    return {"rank": rank, "base": str(base.resolve()), "base_sha256": content_hash(base)}


def read_adapters(
    file: WeightsFile, weights: WeightSet, base: Path | None = None
) -> tuple[LatentDiffusion, ModelConfig, dict[str, Tensor]]:
    """A checkpoint of adapters → its base model, the config, and the adapters by their keys in the released format.

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
    return model, config, {online + k.removeprefix(prefix): v for k, v in file.state.items() if k.startswith(prefix)}


def check_base(path: str | Path, adapters: Mapping, base: Path) -> None:
    """InputError unless `base` is the file that the adapters were trained on."""
    if content_hash(base) != adapters["base_sha256"]:
        raise InputError(f"{path}: its adapters were trained on {adapters['base']}, and {base} is another model")
