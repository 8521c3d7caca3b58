"""What single keys cannot show: numbers that must agree, ids that must exist. Each would crash later, less clearly."""

import math

from diff_v2m.config.model import MAX_SECONDS, RHYTHM_DIMS, AutoencoderConfig, LatentDiffusionConfig, ModelConfig
from diff_v2m.config.parsing import Where
from diff_v2m.config.training import RhythmCurriculum

CONDITIONER_TYPES = {  # ids with a fixed meaning → the type they must have
    "semantic": "semantic",
    "rhythm": "rhythm",
    "color": "color",
    "class": "int",
    "seconds_start": "number",
    "seconds_total": "number",
}


def check_model_config(config: ModelConfig, source: str) -> None:
    """Raise InputError naming the key that contradicts another."""
    where = Where(source, "model")
    if config.model_type == "autoencoder":
        check_autoencoder(config.model, config.audio_channels, where)
    else:
        check_autoencoder(config.model.pretransform.config, config.audio_channels, where.child("pretransform.config"))
        check_conditioning(config.model, where)
        check_transformer(config.model, where)
        if config.window_seconds > MAX_SECONDS:
            raise Where(source, "sample_size").error(
                f"a window of {config.window_seconds:g} s, but there are only {MAX_SECONDS} rows of video features"
            )
        if config.training and config.training.ema_conditioner and not config.training.use_ema:
            raise Where(source, "training.ema_conditioner").error("expected use_ema true too: there is no average")
        curriculum = config.training.rhythm_curriculum if config.training else RhythmCurriculum()
        if curriculum.end_epoch < curriculum.start_epoch:
            place = Where(source, "training.rhythm_curriculum.end_epoch")
            raise place.error("expected an epoch not before start_epoch")


def check_autoencoder(config: AutoencoderConfig, audio_channels: int, where: Where) -> None:
    folded = config.io_channels * config.patch_size
    for place, width in (
        ("encoder.config.in_channels", config.encoder.config.in_channels),
        ("decoder.config.out_channels", config.decoder.config.out_channels),
    ):
        if width != folded:
            raise where.child(place).error(f"expected io_channels × patch_size = {folded}, got {width}")
    widths = {"encoder": 2 * config.latent_dim, "decoder": config.latent_dim}  # the encoder gives mean and scale
    for name, width in widths.items():
        place, part = where.child(name).child("config"), getattr(config, name).config
        if len(part.c_mults) != len(part.strides):
            raise place.child("c_mults").error(f"expected one value per stride, {len(part.strides)}: {part.c_mults}")
        ratio = math.prod(part.strides) * config.patch_size
        if ratio != config.downsampling_ratio:
            raise place.child("strides").error(
                f"strides × patch_size make {ratio}, but downsampling_ratio is {config.downsampling_ratio}"
            )
        if part.latent_dim != width:
            raise place.child("latent_dim").error(
                f"expected {width}, got {part.latent_dim} (latent_dim of the autoencoder is {config.latent_dim})"
            )
    if config.io_channels != audio_channels:
        raise where.child("io_channels").error(f"expected audio_channels = {audio_channels}, got {config.io_channels}")


def check_conditioning(model: LatentDiffusionConfig, where: Where) -> None:
    conditioning, diffusion = model.conditioning, model.diffusion
    ids = [entry.id for entry in conditioning.configs]
    for index, entry in enumerate(conditioning.configs):
        place = where.child(f"conditioning.configs[{index}]")
        if entry.id in ids[:index]:
            raise place.child("id").error(f"{entry.id!r} appears twice")
        expected = CONDITIONER_TYPES.get(entry.id, entry.type)
        if entry.type != expected:
            raise place.child("type").error(f"expected {expected} for the id {entry.id!r}, got {entry.type}")
        if entry.type in ("int", "number") and entry.config.max_val <= entry.config.min_val:
            raise place.child("config.max_val").error("expected a number above min_val")
    for key in ("cross_attention_cond_ids", "global_cond_ids"):
        for index, id in enumerate(getattr(diffusion, key)):
            place = where.child(f"diffusion.{key}[{index}]")
            if id not in conditioning:
                raise place.error(f"no conditioner has the id {id!r} (there are: {', '.join(ids)})")
            if conditioning[id].type == "t5":
                raise place.error(f"{id!r} is a text prompt; this model takes none")
            if id not in CONDITIONER_TYPES:
                raise place.error(f"nothing is known of {id!r}; expected one of {', '.join(CONDITIONER_TYPES)}")
            if key == "global_cond_ids" and conditioning[id].type not in ("int", "number"):
                raise place.error(f"{id!r} is {conditioning[id].type}; a global condition is an int or a number")
    if "semantic" not in diffusion.cross_attention_cond_ids:
        raise where.child("diffusion.cross_attention_cond_ids").error("expected 'semantic' among the ids")
    if "rhythm" in conditioning:
        expected = RHYTHM_DIMS[conditioning["semantic"].config.rhythm_type]
        dim = conditioning["rhythm"].config.dim
        if dim != expected:
            raise where.child(f"conditioning.configs[{ids.index('rhythm')}].config.dim").error(
                f"rhythm_type {conditioning['semantic'].config.rhythm_type} has {expected} values a second, got {dim}"
            )


def check_transformer(model: LatentDiffusionConfig, where: Where) -> None:
    config, conditioning = model.diffusion.config, model.conditioning
    place = where.child("diffusion.config")
    latent_dim = model.pretransform.config.latent_dim
    if model.io_channels != latent_dim:
        raise where.child("io_channels").error(f"expected latent_dim = {latent_dim}, got {model.io_channels}")
    if config.io_channels != latent_dim:
        raise place.child("io_channels").error(f"expected latent_dim = {latent_dim}, got {config.io_channels}")
    if config.cond_token_dim != conditioning.cond_dim:
        raise place.child("cond_token_dim").error(
            f"expected conditioning.cond_dim = {conditioning.cond_dim}, got {config.cond_token_dim}"
        )
    expected = conditioning.cond_dim * len(model.diffusion.global_cond_ids)
    if config.global_cond_dim != expected:
        raise place.child("global_cond_dim").error(
            f"expected cond_dim × number of global_cond_ids = {expected}, got {config.global_cond_dim}"
        )
    if config.embed_dim % config.num_heads:
        raise place.child("num_heads").error(f"does not divide embed_dim = {config.embed_dim}: {config.num_heads}")
    head_dim = config.embed_dim // config.num_heads
    # Key and value heads are as wide as query heads, and there are whole groups of query heads for each.
    if not config.project_cond_tokens and (
        config.cond_token_dim % head_dim or config.num_heads % (config.cond_token_dim // head_dim)
    ):
        raise place.child("cond_token_dim").error(
            f"expected embed_dim / n for a whole n and a multiple of the head width {head_dim}, "
            f"got {config.cond_token_dim}"
        )
    extractor = conditioning["semantic"].config.extractor
    if extractor.dim % extractor.num_heads:
        index = [entry.id for entry in conditioning.configs].index("semantic")
        raise where.child(f"conditioning.configs[{index}].config.extractor.num_heads").error(
            f"does not divide dim = {extractor.dim}: {extractor.num_heads}"
        )
