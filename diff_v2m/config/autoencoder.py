"""The pretransform of a model JSON, and its audio autoencoder, which is also the `model` of an autoencoder JSON."""

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from diff_v2m.config.base import Config, Count, ListOf, invalid
from diff_v2m.config.score_autoencoder import ScoreAutoencoderConfig


class OobleckConfig(Config):
    """Settings common to encoder and decoder; field names are the arguments of stable-audio-tools' classes."""

    channels: Count = 128
    latent_dim: Count = 32
    c_mults: ListOf[Count] = (1, 2, 4, 8)
    strides: ListOf[Count] = (2, 4, 8, 8)
    use_snake: bool = False
    antialias_activation: bool = False

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if len(self.c_mults) != len(self.strides):
            raise invalid(f"expected one value per stride, {len(self.strides)}, got {self.c_mults}", "c_mults")
        return self


class EncoderConfig(OobleckConfig):
    in_channels: Count = 2


class DecoderConfig(OobleckConfig):
    out_channels: Count = 2
    use_nearest_upsample: bool = False
    final_tanh: bool = True


class Encoder(Config):
    type: Literal["oobleck"]
    config: EncoderConfig
    requires_grad: bool = True  # accepted and ignored: the VAE is always frozen while the generator trains


class Decoder(Config):
    type: Literal["oobleck"]
    config: DecoderConfig


class Bottleneck(Config):
    type: Literal["vae"]


class AutoencoderConfig(Config):
    kind: ClassVar[str] = "autoencoder"

    encoder: Encoder
    decoder: Decoder
    bottleneck: Bottleneck
    latent_dim: Count
    downsampling_ratio: Count  # waveform samples per latent frame
    io_channels: Count
    patch_size: Count = 1  # waveform samples folded into channels before the encoder; 1: as released
    normalize_latents: bool = False  # latents scaled to zero mean, unit variance per channel; false: as released

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        encoder, decoder, folded = self.encoder.config, self.decoder.config, self.io_channels * self.patch_size
        ends = (("encoder", "in_channels", encoder.in_channels), ("decoder", "out_channels", decoder.out_channels))
        for name, key, channels in ends:
            if channels != folded:
                message = f"expected io_channels × patch_size = {folded}, got {channels}"
                raise invalid(message, name, "config", key)
        parts = (("encoder", encoder, 2 * self.latent_dim), ("decoder", decoder, self.latent_dim))
        for name, part, width in parts:  # the encoder outputs mean and scale
            ratio = math.prod(part.strides) * self.patch_size
            if ratio != self.downsampling_ratio:
                message = f"strides × patch_size make {ratio}, but downsampling_ratio is {self.downsampling_ratio}"
                raise invalid(message, name, "config", "strides")
            if part.latent_dim != width:
                message = f"expected {width}, got {part.latent_dim} (latent_dim of the autoencoder: {self.latent_dim})"
                raise invalid(message, name, "config", "latent_dim")
        return self

    def check_sample_rate(self, sample_rate: int) -> None:
        """Any rate will do."""


class AudioPretransformConfig(Config):
    type: Literal["autoencoder"]
    config: AutoencoderConfig
    iterate_batch: bool = False  # encode and decode clip by clip, so that memory does not grow with the batch


class ScorePretransformConfig(Config):
    type: Literal["score"]
    config: ScoreAutoencoderConfig
    iterate_batch: bool = False


PretransformConfig = Annotated[AudioPretransformConfig | ScorePretransformConfig, Field(discriminator="type")]
PRETRANSFORMS = {"autoencoder": AudioPretransformConfig, "score": ScorePretransformConfig}  # by type
