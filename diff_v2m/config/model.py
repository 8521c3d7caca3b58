"""The model JSON, key by key: attributes are named as the keys and nested as the JSON nests.

A key that the released file does not have is one of ours; its default is "as released".
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from diff_v2m.config.parsing import Count, Probability, Range, chosen_by
from diff_v2m.config.training import AutoencoderTraining, DiffusionTraining

MAX_SECONDS = 30  # rows of video features one window holds; also the clamp of seconds_start and seconds_total
CLASSES = 3  # kinds of video the class embedding knows; every released config says 2, music videos and background music

RhythmType = Literal["odf", "mel", "tempo", "beat"]
RHYTHM_DIMS = {"odf": 1, "beat": 1, "mel": 16, "tempo": 16}  # values a second

CAST_DTYPES = {"float32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # --dtype → its name in torch
QUANTIZED_DTYPES = {"int8": "int8", "fp8": "float8_e4m3fn"}
DTYPES = (*CAST_DTYPES, *QUANTIZED_DTYPES)

FusionName = Literal[  # those that mean something in the published code, see fusion.py
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


# -- autoencoder ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class OobleckConfig:
    """What encoder and decoder share; field names are the arguments of stable-audio-tools' classes."""

    channels: Count = 128
    latent_dim: Count = 32
    c_mults: tuple[Count, ...] = (1, 2, 4, 8)
    strides: tuple[Count, ...] = (2, 4, 8, 8)
    use_snake: bool = False
    antialias_activation: bool = False


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(OobleckConfig):
    in_channels: Count = 2


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(OobleckConfig):
    out_channels: Count = 2
    use_nearest_upsample: bool = False
    final_tanh: bool = True


@dataclass(frozen=True, kw_only=True)
class Encoder:
    type: Literal["oobleck"]
    config: EncoderConfig
    requires_grad: bool = True  # accepted and ignored: the VAE is always frozen while the generator trains


@dataclass(frozen=True, kw_only=True)
class Decoder:
    type: Literal["oobleck"]
    config: DecoderConfig


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    type: Literal["vae"]


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    encoder: Encoder
    decoder: Decoder
    bottleneck: Bottleneck
    latent_dim: Count
    downsampling_ratio: Count  # waveform samples per latent frame
    io_channels: Count
    patch_size: Count = 1  # waveform samples folded into channels before the encoder; 1: as released
    normalize_latents: bool = False  # latents scaled to zero mean, unit variance per channel; false: as released


@dataclass(frozen=True, kw_only=True)
class PretransformConfig:
    type: Literal["autoencoder"]
    config: AutoencoderConfig
    iterate_batch: bool = False  # encode and decode clip by clip, so that memory does not grow with the batch


# -- conditioning -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ExtractorConfig:
    """The rhythm predictor's transformer; the published code hard-codes these numbers."""

    dim: Count = 512
    depth: Count = 12
    num_heads: Count = 8
    dropout: Probability = 0.0  # of its input rows' values, in training; 0: as released
    visual_rhythm: bool = True  # it reads cuts and pseudo beats, as released; false: semantics and class alone


@dataclass(frozen=True, kw_only=True)
class SemanticConfig:
    dim: Count = 512
    max_length: Annotated[int, Range(1, MAX_SECONDS)] = MAX_SECONDS  # accepted, unused: windows have MAX_SECONDS rows
    rhythm_type: RhythmType = "odf"
    hidden_dim: Count = 512
    extractor: ExtractorConfig = ExtractorConfig()
    encoder: Literal["clip-vit-base-patch32", "hog"] = "clip-vit-base-patch32"  # what makes the rows from frames


@dataclass(frozen=True, kw_only=True)
class RhythmConfig:
    dim: Count = 1
    max_length: Annotated[int, Range(1, MAX_SECONDS)] = MAX_SECONDS  # accepted, unused: windows have MAX_SECONDS rows
    hidden_dim: Count = 512


@dataclass(frozen=True, kw_only=True)
class ColorConfig:
    dim: Count = 3072
    max_length: Annotated[int, Range(1, MAX_SECONDS)] = MAX_SECONDS  # accepted, unused: windows have MAX_SECONDS rows
    hidden_dim: Count = 1024
    hellinger: bool = False  # corrected: square root of the histogram × √dim, so that inputs have unit scale


@dataclass(frozen=True, kw_only=True)
class IntConfig:
    min_val: int = 0
    max_val: int


@dataclass(frozen=True, kw_only=True)
class NumberConfig:
    min_val: float = 0
    max_val: float


CONDITIONER_CONFIGS = {
    "semantic": SemanticConfig,
    "rhythm": RhythmConfig,
    "color": ColorConfig,
    "int": IntConfig,
    "number": NumberConfig,
    "t5": dict[str, Any],  # the released file lists a text prompt that no id list refers to: accepted, never built
}


@dataclass(frozen=True, kw_only=True)
class Conditioner:
    id: str
    type: Literal["semantic", "rhythm", "color", "int", "number", "t5"]
    config: Any = field(metadata=chosen_by("type", CONDITIONER_CONFIGS))


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """Conditioners by id: `conditioning["semantic"].config.dim`, `"color" in conditioning`."""

    configs: tuple[Conditioner, ...]
    cond_dim: Count
    mask_padding: bool = False  # corrected: padded rows are left out of statistics and attention
    restandardize_rhythm: bool = False  # corrected: predicted rhythm is z-scored as the true one is
    rhythm_gradient: bool = False  # corrected: the diffusion loss may reach the rhythm predictor
    unused_projections: bool = True  # as released: `proj_out` layers that nothing calls, so that keys match

    def __contains__(self, id: str) -> bool:
        return any(entry.id == id for entry in self.configs)

    def __getitem__(self, id: str) -> Conditioner:
        for entry in self.configs:
            if entry.id == id:
                return entry
        raise KeyError(id)


# -- diffusion transformer --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
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


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    type: Literal["dit"]
    config: DiTConfig
    cross_attention_cond_ids: tuple[str, ...]
    diffusion_objective: Literal["v", "rectified_flow"] = "v"
    global_cond_ids: tuple[str, ...] = ()

    @property
    def uses_rhythm(self) -> bool:
        return "rhythm" in self.cross_attention_cond_ids

    @property
    def uses_color(self) -> bool:
        return "color" in self.cross_attention_cond_ids


@dataclass(frozen=True, kw_only=True)
class LatentDiffusionConfig:
    pretransform: PretransformConfig
    conditioning: Conditioning
    diffusion: DiffusionConfig
    io_channels: Count


# -- the file ---------------------------------------------------------------------------------------------------------

MODELS = {"diffusion_cond": LatentDiffusionConfig, "autoencoder": AutoencoderConfig}
TRAININGS = {"diffusion_cond": DiffusionTraining | None, "autoencoder": AutoencoderTraining | None}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    model_type: Literal["diffusion_cond", "autoencoder"]
    sample_rate: Count
    sample_size: Count  # waveform samples in one window
    audio_channels: Count
    model: Any = field(metadata=chosen_by("model_type", MODELS))
    training: Any = field(default=None, metadata=chosen_by("model_type", TRAININGS))
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, metadata={"not_in_json": True})

    @property
    def pretransform(self) -> PretransformConfig:
        """The autoencoder, whichever of the two model types this file describes."""
        if self.model_type == "autoencoder":
            return PretransformConfig(type="autoencoder", config=self.model)
        return self.model.pretransform

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
