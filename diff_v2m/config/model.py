"""The model JSON, key by key.

A key that the released file does not have is one of ours; its default is "as released". Validators stand below the
fields that must agree; each raises what would otherwise crash later, less clearly.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from diff_v2m.config.autoencoder import AutoencoderConfig, PretransformConfig
from diff_v2m.config.base import Config, Count, ListOf, Probability, invalid
from diff_v2m.config.training import AutoencoderTraining, DiffusionTraining

MAX_SECONDS = 30  # longest window: per-second features it holds, and the clamp of seconds_start and seconds_total
CLASSES = 3  # kinds of video the class embedding knows; every released config says 2, music videos and background music

RhythmType = Literal["odf", "mel", "tempo", "beat"]
RHYTHM_DIMS = {"odf": 1, "beat": 1, "mel": 16, "tempo": 16}  # values a second

CAST_DTYPES = {"float32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # --dtype → its name in torch
QUANTIZED_DTYPES = {"int8": "int8", "fp8": "float8_e4m3fn"}
DTYPES = (*CAST_DTYPES, *QUANTIZED_DTYPES)

FusionName = Literal[  # those that mean something in the published code, see model/fusion.py
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


# -- conditioning -----------------------------------------------------------------------------------------------------

MaxLength = Annotated[int, Field(ge=1, le=MAX_SECONDS)]  # accepted, unused: windows have MAX_SECONDS seconds


class ExtractorConfig(Config):
    """The rhythm predictor's transformer; the published code hard-codes these numbers."""

    dim: Count = 512
    depth: Count = 12
    num_heads: Count = 8
    dropout: Probability = 0.0  # of the values of its input, in training; 0: as released
    visual_rhythm: bool = (
        True  # input includes shot cuts and pseudo beats, as released; false: semantics and class only
    )

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.dim % self.num_heads:
            raise invalid(f"does not divide dim = {self.dim}: {self.num_heads}", "num_heads")
        return self


class SemanticConfig(Config):
    dim: Count = 512
    max_length: MaxLength = MAX_SECONDS
    rhythm_type: RhythmType = "odf"
    hidden_dim: Count = 512
    extractor: ExtractorConfig = ExtractorConfig()
    encoder: Literal["clip-vit-base-patch32", "hog"] = "clip-vit-base-patch32"  # frames → per-second features


class RhythmConfig(Config):
    dim: Count = 1
    max_length: MaxLength = MAX_SECONDS
    hidden_dim: Count = 512


class ColorConfig(Config):
    dim: Count = 3072
    max_length: MaxLength = MAX_SECONDS
    hidden_dim: Count = 1024
    hellinger: bool = False  # corrected: square root of the histogram × √dim, so that inputs have unit scale


class IntConfig(Config):
    min_val: int = 0
    max_val: int

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.max_val <= self.min_val:
            raise invalid(f"expected a number above min_val = {self.min_val}, got {self.max_val}", "max_val")
        return self


class NumberConfig(Config):
    min_val: float = 0.0
    max_val: float

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.max_val <= self.min_val:
            raise invalid(f"expected a number above min_val = {self.min_val:g}, got {self.max_val:g}", "max_val")
        return self


CONDITIONER_TYPES = {  # ids with a fixed meaning → the type they must have
    "semantic": "semantic",
    "rhythm": "rhythm",
    "color": "color",
    "class": "int",
    "seconds_start": "number",
    "seconds_total": "number",
}


class Conditioner(Config):
    """One entry of `conditioning.configs`; the subclasses say which config goes with which type."""

    id: str
    type: str
    config: Any

    @model_validator(mode="after")
    def _check_type(self) -> Self:
        expected = CONDITIONER_TYPES.get(self.id, self.type)
        if self.type != expected:
            raise invalid(f"expected {expected} for the id {self.id!r}, got {self.type}", "type")
        return self


class SemanticConditioner(Conditioner):
    type: Literal["semantic"]
    config: SemanticConfig


class RhythmConditioner(Conditioner):
    type: Literal["rhythm"]
    config: RhythmConfig


class ColorConditioner(Conditioner):
    type: Literal["color"]
    config: ColorConfig


class IntConditioner(Conditioner):
    type: Literal["int"]
    config: IntConfig


class NumberConditioner(Conditioner):
    type: Literal["number"]
    config: NumberConfig


class TextConditioner(Conditioner):
    """The released file lists a text prompt that no id list refers to: accepted, never built."""

    type: Literal["t5"]
    config: dict[str, Any]


AnyConditioner = Annotated[
    SemanticConditioner | RhythmConditioner | ColorConditioner | IntConditioner | NumberConditioner | TextConditioner,
    Field(discriminator="type"),
]


class Conditioning(Config):
    """Conditioners by id: `conditioning["semantic"].config.dim`, `"color" in conditioning`."""

    configs: ListOf[AnyConditioner]
    cond_dim: Count
    mask_padding: bool = False  # corrected: padded seconds do not enter statistics and attention
    restandardize_rhythm: bool = False  # corrected: predicted rhythm is z-scored as the true one is
    rhythm_gradient: bool = False  # corrected: the diffusion loss reaches the rhythm predictor
    unused_projections: bool = True  # as released: `proj_out` layers that nothing calls, so that keys match

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        for index, entry in enumerate(self.configs):
            if entry.id in self.ids[:index]:
                raise invalid(f"{entry.id!r} appears twice", "configs", index, "id")
        return self

    @property
    def ids(self) -> list[str]:
        return [entry.id for entry in self.configs]

    def __contains__(self, id: str) -> bool:
        return id in self.ids

    def __getitem__(self, id: str) -> Conditioner:
        for entry in self.configs:
            if entry.id == id:
                return entry
        raise KeyError(id)


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


class DiffusionConfig(Config):
    type: Literal["dit"]
    config: DiTConfig
    cross_attention_cond_ids: ListOf[str]
    diffusion_objective: Literal["v", "rectified_flow"] = "v"
    global_cond_ids: ListOf[str] = ()

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        if "semantic" not in self.cross_attention_cond_ids:
            raise invalid("expected 'semantic' among the ids", "cross_attention_cond_ids")
        return self

    @property
    def uses_rhythm(self) -> bool:
        return "rhythm" in self.cross_attention_cond_ids

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

    def _problem_of(self, id: str, is_global: bool) -> str | None:
        """Why this id cannot be a condition; None if it can."""
        if id not in self.conditioning:
            return f"no conditioner has the id {id!r} (there are: {', '.join(self.conditioning.ids)})"
        kind = self.conditioning[id].type
        if kind == "t5":
            return f"{id!r} is a text prompt; this model takes none"
        if id not in CONDITIONER_TYPES:
            return f"{id!r} has no data; expected one of {', '.join(CONDITIONER_TYPES)}"
        if is_global and kind not in ("int", "number"):
            return f"{id!r} is {kind}; a global condition is an int or a number"
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


class AutoencoderModelConfig(ModelConfig):
    model_type: Literal["autoencoder"]
    model: AutoencoderConfig
    training: AutoencoderTraining | None = None

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        self._check_channels("model")
        return self

    @property
    def pretransform(self) -> PretransformConfig:
        return PretransformConfig(type="autoencoder", config=self.model)


AnyModelConfig = Annotated[DiffusionModelConfig | AutoencoderModelConfig, Field(discriminator="model_type")]
