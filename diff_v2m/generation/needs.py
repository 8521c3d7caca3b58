"""What a run needs, checked once and before anything slow: model JSON, sampling, device, compiler, encoder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from diff_v2m.checkpoints.files import read_weights
from diff_v2m.checkpoints.loading import config_of
from diff_v2m.common.devices import pick_device
from diff_v2m.common.errors import InputError
from diff_v2m.config import ModelConfig, SemanticConfig, whole_model
from diff_v2m.features.semantic import check_encoder, encoder_identity
from diff_v2m.generation.feature_cache import FeatureCache
from diff_v2m.generation.settings import SamplingSettings
from diff_v2m.model.compiling import check_compiler
from diff_v2m.model.precision import check_precision
from diff_v2m.model.pretransform import PRETRANSFORMS

log = logging.getLogger(__name__)
DEFAULTS = SamplingSettings()


def check_needs(
    weights: Path,
    config: ModelConfig | None,
    *,
    device: str,
    dtype: str,
    compile: bool = False,
    stems: bool = False,
    videos: Sequence[Path],
    cache: FeatureCache | None,
    sampling: SamplingSettings = DEFAULTS,
) -> None:
    """Raise InputError for the first thing that the run lacks.

    config: the one that replaces the checkpoint's, if any. The encoder is needed for `videos` whose features are not
    in the cache.
    """
    check_precision(dtype, torch.device(pick_device(device)))
    if compile:
        check_compiler()
    config = whole_model(config or config_of(read_weights(weights)), weights)
    if stems and not PRETRANSFORMS[config.model.pretransform.type].has_stems:
        raise InputError("--stems: this model writes no separate voices; omit --stems or give another --ckpt_path")
    sampling.resolve(config)
    semantic = config.model.conditioning["semantic"].config
    try:
        check_encoder(semantic.encoder)
    except InputError:
        if not all(_is_cached(video, semantic.encoder, cache) for video in videos):
            raise
        return
    if videos and semantic.encoder_identity:
        warn_of_other_encoder(semantic, encoder_identity(semantic.encoder))


def warn_of_other_encoder(trained: SemanticConfig, made_by: str | None) -> None:
    """One line if features were made by other weights than those of the training features, where both are known."""
    known = [identity for identity in (trained.encoder_identity, made_by) if identity and "@" in identity]
    if len(set(known)) > 1:
        log.warning(
            "features are made by %s, the model was trained with those of %s; the music follows the picture less. Use "
            "the weights that the model was trained with",
            *reversed(known),
        )


def _is_cached(video: Path, encoder: str, cache: FeatureCache | None) -> bool:
    try:
        return cache is not None and cache.holds(video, encoder)
    except InputError:  # the video cannot be read, which is reported when its turn comes
        return True
