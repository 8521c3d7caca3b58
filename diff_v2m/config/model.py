"""The model JSON, key by key.

A key that the released file does not have is one of ours; its default is "as released". Validators stand below the
fields that must agree. Without them, errors would appear later and less clearly.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from diff_v2m.common.errors import InputError
from diff_v2m.config.autoencoder import PRETRANSFORMS, AutoencoderConfig, PretransformConfig
from diff_v2m.config.base import Config, Count, ListOf, PairOf, Probability, invalid
from diff_v2m.config.conditioning import CONDITIONER_TYPES, MAX_SECONDS, RHYTHM_DIMS, Conditioning
from diff_v2m.config.score_autoencoder import ScoreAutoencoderConfig
from diff_v2m.config.training import AutoencoderTraining, DiffusionTraining

CAST_DTYPES = {"float32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # --dtype → its name in torch
QUANTIZED_DTYPES = {"int8": "int8", "fp8": "float8_e4m3fn"}
DTYPES = (*CAST_DTYPES, *QUANTIZED_DTYPES)

FusionName = Literal[  # names with a meaning of their own in the published code, see model/fusion.py
    "FiLM_choose",
    "FiLM",
    "choose",
    "gate",
    "choose_gate",
    "gate_choose",
    "none",
    "only_clip",
    "sigmoid",
    "linear",
    "preFiLM",
    "preFiLM_gate",
    "preFiLM_choose",
    "preFiLM_none",
]


# -- diffusion transformer --------------------------------------------------------------------------------------------


class DiTConfig(Config):
    io_channels: Count
    embed_dim: Count
    depth: Count
    num_heads: Count
    cond_token_dim: Count
    global_cond_dim: Count
    patch_size: Count = 1
    project_cond_tokens: bool = True
    transformer_type: Literal["continuous_transformer"] = "continuous_transformer"
    global_cond_type: Literal["prepend"] = "prepend"
    attention_weight_type: FusionName = "sigmoid"
    color_attention: bool = False  # corrected: colour tokens in the colour slot, where the release repeats rhythm
    time_aligned_attention: bool = False  # corrected: queries and keys carry their time in seconds
    aligned_input: bool = False  # conditions interpolated to latent frames and added to the latent tokens
    normalize_context: bool = False  # corrected: embedded tokens of unit RMS; raw features leave them near zero
    pre_norm: bool = False  # corrected: x + CA(LN(x)); the release overwrites the stream by its norm
    rhythm_t_max: Probability = 0.2  # FiLM_choose and choose: rhythm acts for t ≤ this, semantics above

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.embed_dim % self.num_heads:
            raise invalid(f"does not divide embed_dim = {self.embed_dim}: {self.num_heads}", "num_heads")
        # Key and value heads are as wide as query heads, and each serves the same number of query heads.
        width = self.embed_dim // self.num_heads
        if not self.project_cond_tokens and (
            self.cond_token_dim % width or self.num_heads % (self.cond_token_dim // width)
        ):
            raise invalid(
                f"expected embed_dim / n for a whole n and a multiple of the head width {width}, "
                f"got {self.cond_token_dim}",
                "cond_token_dim",
            )
        return self


class StudentConfig(Config):
    """A distilled model: it predicts the guided result in one evaluation, for so many steps of ddim."""

    steps: Count = 8
    guidance: float = 3.0  # guidance scale unless another is asked for
    guidance_range: PairOf[float] = (1.0, 5.0)  # scales that it was trained with

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        low, high = self.guidance_range
        if low >= high:
            raise invalid(f"expected two ascending scales, got {low:g} and {high:g}", "guidance_range")
        if not low <= self.guidance <= high:
            raise invalid(f"expected a scale of guidance_range, {low:g} to {high:g}; got {self.guidance:g}", "guidance")
        return self


class DiffusionConfig(Config):
    type: Literal["dit"]
    config: DiTConfig
    cross_attention_cond_ids: ListOf[str]
    diffusion_objective: Literal["v", "rectified_flow"] = "v"
    global_cond_ids: ListOf[str] = ()
    aligned_cond_ids: ListOf[Literal["grid", "motion", "shots"]] = ()  # of each moment, added to the latent tokens
    student: StudentConfig | None = None  # absent: guidance compares two predictions, as released

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        if "semantic" not in self.cross_attention_cond_ids:
            raise invalid("expected 'semantic' among the ids", "cross_attention_cond_ids")
        if set(self.cross_attention_cond_ids) <= {"semantic", "color"}:  # the rhythm stream would be empty
            raise invalid("expected 'rhythm' or a number, as 'seconds_total', too", "cross_attention_cond_ids")
        return self

    @property
    def uses_rhythm(self) -> bool:
        return "rhythm" in self.cross_attention_cond_ids

    @property
    def uses_grid(self) -> bool:
        return "grid" in self.aligned_cond_ids

    @property
    def uses_motion(self) -> bool:
        return "motion" in self.aligned_cond_ids

    @property
    def uses_shots(self) -> bool:
        return "shots" in self.aligned_cond_ids

    @property
    def uses_color(self) -> bool:
        return "color" in self.cross_attention_cond_ids


class LatentDiffusionConfig(Config):
    pretransform: PretransformConfig
    conditioning: Conditioning
    diffusion: DiffusionConfig
    io_channels: Count

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        for key in ("cross_attention_cond_ids", "global_cond_ids"):
            for index, id in enumerate(getattr(self.diffusion, key)):
                if problem := self._problem_of(id, is_global=key == "global_cond_ids"):
                    raise invalid(problem, "diffusion", key, index)
        return self

    @model_validator(mode="after")
    def _check_rows(self) -> Self:
        for id in ("motion", "shots"):
            if id in self.diffusion.aligned_cond_ids and self.conditioning.rows_per_second == 1:
                raise invalid(f"{id!r} needs conditioning.rows_per_second above 1", "diffusion", "aligned_cond_ids")
        if self.conditioning["semantic"].config.extractor.beat_grid and not self.diffusion.uses_grid:
            message = "expected 'grid' among them, since the extractor of 'semantic' has beat_grid"
            raise invalid(message, "diffusion", "aligned_cond_ids")
        return self

    def _problem_of(self, id: str, is_global: bool) -> str | None:
        """Why this id cannot be a condition; None if it can."""
        if id not in self.conditioning:
            return f"no conditioner has the id {id!r} (there are: {', '.join(self.conditioning.ids)})"
        kind = self.conditioning[id].type
        if kind == "t5":
            return f"{id!r} is a text prompt; this model takes none"
        if id not in CONDITIONER_TYPES:
            return f"{id!r} has no data; expected one of {', '.join(CONDITIONER_TYPES)}"
        if is_global and kind not in ("int", "number", "semantic"):
            return f"{id!r} is {kind}; a global condition is an int, a number or semantic"
        return None

    @model_validator(mode="after")
    def _check_dims(self) -> Self:
        conditioning, dit = self.conditioning, self.diffusion.config
        latent_dim, cond_dim = self.pretransform.config.latent_dim, conditioning.cond_dim
        global_dim = cond_dim * len(self.diffusion.global_cond_ids)
        at_dit = ("diffusion", "config")
        for given, expected, meaning, *location in (
            (self.io_channels, latent_dim, "latent_dim", "io_channels"),
            (dit.io_channels, latent_dim, "latent_dim", *at_dit, "io_channels"),
            (dit.cond_token_dim, cond_dim, "conditioning.cond_dim", *at_dit, "cond_token_dim"),
            (dit.global_cond_dim, global_dim, "cond_dim × number of global_cond_ids", *at_dit, "global_cond_dim"),
        ):
            if given != expected:
                raise invalid(f"expected {meaning} = {expected}, got {given}", *location)
        rhythm_type = conditioning["semantic"].config.rhythm_type
        if "rhythm" in conditioning and conditioning["rhythm"].config.dim != RHYTHM_DIMS[rhythm_type]:
            raise invalid(
                f"rhythm_type {rhythm_type} has {RHYTHM_DIMS[rhythm_type]} values a second, "
                f"got {conditioning['rhythm'].config.dim}",
                *("conditioning", "configs", conditioning.ids.index("rhythm"), "config", "dim"),
            )
        return self


# -- the file ---------------------------------------------------------------------------------------------------------


class ModelConfig(Config):
    """A model JSON of either type. Every length in the system is derived here and nowhere else."""

    model_type: str
    sample_rate: Count
    sample_size: Count  # waveform samples in one window
    audio_channels: Count
    model: Any
    training: Any = None
    raw: dict[str, Any] = Field(default_factory=dict, repr=False, exclude=True)  # the JSON as given

    @property
    def pretransform(self) -> PretransformConfig:
        """The autoencoder, whichever of the two model types this file describes."""
        raise NotImplementedError

    @property
    def downsampling_ratio(self) -> int:
        return self.pretransform.config.downsampling_ratio

    @property
    def latent_channels(self) -> int:
        return self.pretransform.config.latent_dim

    @property
    def latent_rate(self) -> float:
        """Latent frames a second."""
        return self.sample_rate / self.downsampling_ratio

    @property
    def window_seconds(self) -> float:
        return self.sample_size / self.sample_rate

    def frames_of(self, seconds: float) -> int:
        """Latent frames of about so many seconds, one at least."""
        return max(1, round(seconds * self.latent_rate))

    def latent_length(self, samples: int | None = None) -> int:
        """Latent frames that cover `samples` waveform samples (default: one window); corrected, the release floors."""
        return math.ceil((self.sample_size if samples is None else samples) / self.downsampling_ratio)

    def _check_channels(self, *autoencoder: str) -> None:
        channels = self.pretransform.config.io_channels
        if channels != self.audio_channels:
            message = f"expected audio_channels = {self.audio_channels}, got {channels}"
            raise invalid(message, *autoencoder, "io_channels")
        self.pretransform.config.check_sample_rate(self.sample_rate)


class DiffusionModelConfig(ModelConfig):
    model_type: Literal["diffusion_cond"]
    model: LatentDiffusionConfig
    training: DiffusionTraining | None = None

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        self._check_channels("model", "pretransform", "config")
        if self.window_seconds > MAX_SECONDS:
            message = f"a window of {self.window_seconds:g} s, but video features cover at most {MAX_SECONDS} s"
            raise invalid(message, "sample_size")
        return self

    @property
    def pretransform(self) -> PretransformConfig:
        return self.model.pretransform


def _kind(given: Any) -> str:
    """The released autoencoder's JSON has no `type`."""
    return given.get("type", "autoencoder") if isinstance(given, dict) else "autoencoder"


AnyAutoencoderConfig = Annotated[
    Annotated[AutoencoderConfig, Tag("autoencoder")] | Annotated[ScoreAutoencoderConfig, Tag("score")],
    Discriminator(_kind),
]


class AutoencoderModelConfig(ModelConfig):
    model_type: Literal["autoencoder"]
    model: AnyAutoencoderConfig
    training: AutoencoderTraining | None = None

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        self._check_channels("model")
        return self

    @property
    def pretransform(self) -> PretransformConfig:
        kind = self.model.kind
        return PRETRANSFORMS[kind](type=kind, config=self.model)


def whole_model(config: ModelConfig, source: object) -> DiffusionModelConfig:
    """The config, if it is of a generator with its pretransform. Raises InputError, with `source`, for others."""
    if not isinstance(config, DiffusionModelConfig):
        raise InputError(f"{source}: its model_type is {config.model_type}; expected diffusion_cond, a whole model")
    return config


AnyModelConfig = Annotated[DiffusionModelConfig | AutoencoderModelConfig, Field(discriminator="model_type")]
