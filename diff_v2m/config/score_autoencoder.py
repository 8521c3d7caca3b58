"""The score autoencoder of a model JSON: `model.pretransform` of type score, or `model` with `"type": "score"`."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from diff_v2m.config.base import Config, Count, NonNegative, invalid

SCORE_SAMPLE_RATE, SCORE_CHANNELS = 44100, 2  # of the synthesiser


class ScoreAutoencoderConfig(Config):
    """score ⇄ latents, one latent frame for `downsampling_ratio` samples of the music that the score sounds as."""

    kind: ClassVar[str] = "score"

    type: Literal["score"] = "score"
    latent_dim: Count
    downsampling_ratio: Count = 2940  # 15 frames a second
    io_channels: Count = SCORE_CHANNELS
    width: Count = 384
    encoder_depth: Count = 3  # residual blocks
    decoder_depth: Count = 4
    kernel_size: Count = 7  # frames; odd
    latent_noise: NonNegative = 0.0  # training adds noise of up to this standard deviation to the latents
    normalize_latents: bool = True  # latents scaled to zero mean, unit variance per channel

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.io_channels != SCORE_CHANNELS:
            raise invalid(f"expected {SCORE_CHANNELS}, the synthesiser's; got {self.io_channels}", "io_channels")
        if SCORE_SAMPLE_RATE % self.downsampling_ratio:
            message = f"expected a divisor of {SCORE_SAMPLE_RATE}, got {self.downsampling_ratio}"
            raise invalid(message, "downsampling_ratio")
        if self.kernel_size % 2 == 0:
            raise invalid(f"expected an odd number, got {self.kernel_size}", "kernel_size")
        return self

    def check_sample_rate(self, sample_rate: int) -> None:
        """Raises the validation error of a model JSON with another rate than the synthesiser's."""
        if sample_rate != SCORE_SAMPLE_RATE:
            raise invalid(f"expected {SCORE_SAMPLE_RATE}, the synthesiser's; got {sample_rate}", "sample_rate")
