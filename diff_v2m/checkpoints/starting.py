"""Starting weights of a new run, from a model of another config or from Stable Audio.

Taken, new and unused tensors are logged. Any other difference is an error.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diff_v2m.checkpoints.files import read_weights
from diff_v2m.checkpoints.loading import find_config, load_into
from diff_v2m.common.errors import InputError
from diff_v2m.config import ModelConfig
from diff_v2m.model.dit import HierarchicalDiT, LatentDiffusion

log = logging.getLogger(__name__)

# Keys that exist only under some configs: pattern → the member of the model JSON that decides it.
OPTIONAL = {
    r"diffusion\.model\.model\.aligned_input\.weight": "aligned_input",
    r"diffusion\.model\.model\.(grid|motion|shots)_input\.weight": "aligned_cond_ids",
    r"diffusion\.model\.model\.(guidance_features|to_guidance_embed)\..*": "student",
    r"diffusion\.conditioner\.conditioners\.semantic\.extractor\.motion_linear\..*": "motion_level",
    r"diffusion\.conditioner\.conditioners\.semantic\.extractor\.grid_linear\..*": "beat_grid",
    r"diffusion\.model\.model\.transformer\.layers\.\d+\.(t_linear|FiLM_\w+|gate)\..*": "attention_weight_type",
    r"diffusion\.conditioner\.conditioners\.\w+\.proj_out\.(weight|bias)": "unused_projections",
    r"diffusion\.conditioner\.conditioners\.(rhythm|color)\..*": "conditioning.configs",
    r"diffusion\.pretransform\.latent_(mean|std)": "normalize_latents",
}

STABLE_AUDIO = "model.model."  # prefix of its transformer's keys
STABLE_AUDIO_GLOBALS = ("seconds_start", "seconds_total")  # conditions in its global condition, in their order
GLOBAL_INPUT = "to_global_embed.0.weight"


def start_from(model: LatentDiffusion, config: ModelConfig, path: str | Path) -> None:
    """Fill a model with weights of the same architecture, possibly trained under another config.

    For example the released checkpoint for a config with our corrections. A moving average is preferred. Keys of
    `OPTIONAL` that the file lacks keep their initial values. Differences are logged; any other raises InputError.
    """
    file = read_weights(path)
    loaded = load_into(model, file, "ema", optional=OPTIONAL)
    log.info("%s: %d tensors taken", path, loaded.taken)
    for keys, what in ((loaded.absent, "new, with initial values"), (loaded.unexpected, "not used")):
        for reason, some in _by_reason(keys).items():
            log.info("%s: %d tensors %s (%s): %s", path, len(some), what, reason, grouped(some))
    theirs = find_config(file)
    if theirs is None:
        log.info("%s: has no model config; differences to its settings are unknown", path)
        return
    for key, was, now in differences(theirs.raw["model"], config.raw["model"]):
        log.info("%s: trained with %s %s; now %s", path, key, was, now)


def start_from_stable_audio(network: HierarchicalDiT, path: str | Path, global_ids: Sequence[str] = ()) -> None:
    """Fill the transformer from Stable Audio Open's: each tensor whose shape agrees.

    Its cross-attention and the norm before it go to each of the three streams. global_ids: the conditions that make up
    ours; if they begin with those of Stable Audio Open, the columns for them are taken too. Taken and unused tensors
    are logged. Raises InputError if the file is another model's.
    """
    file = read_weights(path)
    theirs = {k.removeprefix(STABLE_AUDIO): v for k, v in file.state.items() if k.startswith(STABLE_AUDIO)}
    own = network.state_dict()
    sources = {name: _in_stable_audio(name) for name in own}
    taken = {name: source for name, source in sources.items() if _fits(own[name], theirs.get(source))}
    if not any(".self_attn.to_qkv" in name for name in taken):
        raise InputError(
            f"{path}: no layer of a transformer there fits; expected Stable Audio Open's model.safetensors (keys "
            f"{STABLE_AUDIO}transformer.layers…) and a model JSON with its embed_dim, num_heads and cond_token_dim"
        )
    state = own | {name: theirs[source] for name, source in taken.items()}
    columns = _shared_columns(own[GLOBAL_INPUT], theirs.get(GLOBAL_INPUT), global_ids)
    if columns:
        state[GLOBAL_INPUT] = torch.cat([theirs[GLOBAL_INPUT].to(own[GLOBAL_INPUT]), own[GLOBAL_INPUT][:, columns:]], 1)
        taken[GLOBAL_INPUT] = GLOBAL_INPUT
    network.load_state_dict(state, strict=True)
    log.info("%s: %d of the transformer's %d tensors taken", path, len(taken), len(own))
    if columns:
        log.info(
            "%s: of %s the first %d of %d columns taken (%s); the others keep initial values",
            path,
            GLOBAL_INPUT,
            columns,
            own[GLOBAL_INPUT].shape[1],
            ", ".join(STABLE_AUDIO_GLOBALS),
        )
    others = [name for name in own if name not in taken and sources[name] in theirs]
    absent = [name for name in own if sources[name] not in theirs]
    for what, names in (
        ("keep initial values: other shape in the file", others),
        ("keep initial values: not in the file", absent),
        ("of the file are not used", theirs.keys() - set(taken.values())),
    ):
        if names:
            log.info("%s: %d tensors %s: %s", path, len(names), what, grouped(names))


def _in_stable_audio(name: str) -> str:
    return re.sub(r"\.cross_attn[012]\.", ".cross_attn.", name).replace(".color_norm.", ".cross_attend_norm.")


def _shared_columns(own: Tensor, theirs: Tensor | None, global_ids: Sequence[str]) -> int:
    """Columns of the first layer on the global condition that mean the same in both models."""
    shared = len(STABLE_AUDIO_GLOBALS)
    if theirs is None or tuple(global_ids[:shared]) != STABLE_AUDIO_GLOBALS or len(global_ids) == shared:
        return 0
    alike = len(theirs) == len(own) and theirs.shape[1] * len(global_ids) == own.shape[1] * shared
    return theirs.shape[1] if alike else 0


def _fits(own: Tensor, theirs: Tensor | None) -> bool:
    return theirs is not None and theirs.shape == own.shape


def grouped(keys: Iterable[str]) -> str:
    """Sorted keys with layer numbers replaced by *, each with its count."""
    counts = Counter(re.sub(r"\.layers\.\d+\.", ".layers.*.", key) for key in sorted(keys))
    return ", ".join(key if count == 1 else f"{key} × {count}" for key, count in counts.items())


def differences(theirs: Any, ours: Any, place: str = "model") -> list[tuple[str, str, str]]:
    """(key, their value, our value) wherever two JSON values differ; "absent" for a missing key."""
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        theirs, ours = (dict(enumerate(values)) for values in (theirs, ours))
    if not (isinstance(theirs, Mapping) and isinstance(ours, Mapping)):
        return [] if theirs == ours else [(place, str(theirs), str(ours))]
    found = []
    for key in sorted(theirs.keys() | ours.keys()):
        found += differences(theirs.get(key, "absent"), ours.get(key, "absent"), f"{place}.{key}")
    return found


def _by_reason(keys: list[str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for key in keys:
        online = key.replace("diffusion_ema.ema_", "diffusion.", 1)
        reason = next(reason for pattern, reason in OPTIONAL.items() if re.fullmatch(pattern, online))
        reasons.setdefault(reason, []).append(key)
    return reasons
