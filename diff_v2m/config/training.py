"""The `training` member of the model JSON: optimiser, schedule, dropout, curriculum, demos."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from diff_v2m.config.base import (
    BelowOne,
    Config,
    Count,
    ListOf,
    Natural,
    NonNegative,
    PairOf,
    Positive,
    Probability,
    invalid,
)


class AdamWConfig(Config):
    lr: NonNegative
    betas: PairOf[BelowOne] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.01


class Optimizer(Config):
    type: Literal["AdamW"]
    config: AdamWConfig


class InverseLRConfig(Config):
    """lr(k) = lr · (1 − warmup^(k+1)) / (1 + k/inv_gamma)^power."""

    inv_gamma: Positive = 1.0
    power: NonNegative = 1.0
    warmup: BelowOne = 0.0  # at 1 the rate would stay 0
    final_lr: NonNegative = 0.0


class CosineLRConfig(Config):
    """Linear warm-up over warmup_steps, then half a cosine to final_lr at total_steps (default: the run's length)."""

    warmup_steps: Natural = 0
    total_steps: Count | None = None
    final_lr: NonNegative = 0.0


class InverseLR(Config):
    type: Literal["InverseLR"]
    config: InverseLRConfig


class CosineLR(Config):
    type: Literal["CosineLR"]
    config: CosineLRConfig


class OptimizerConfig(Config):
    optimizer: Optimizer
    scheduler: Annotated[InverseLR | CosineLR, Field(discriminator="type")] | None = None


class DemoConfig(Config):
    """Demos during training, for the first clips of the validation set, or of the training set if there is none."""

    demo_every: Natural = 2000  # optimiser steps between demos; 0: none
    demo_steps: Count = 250
    num_demos: Natural = 4
    demo_cfg_scales: ListOf[float] = (3.0,)
    demo_cond: ListOf[dict[str, Any]] = ()  # text prompts of the released file; accepted, unused
    demo_cond_from_batch: bool = True  # accepted, unused: the conditions are those of the clips
    demo_save_dir: str = "generated_demo/"  # in the run's folder


class MetricsConfig(Config):
    """Fast metrics of generated music during training, logged as music/*, for the clips of the demos."""

    every: Count = 2000  # optimiser steps
    clips: Count = 8
    steps: Count = 50  # sampling steps
    cfg_scale: float = 3.0


class RhythmCurriculum(Config):
    """P(true rhythm) is 1 before start_epoch, falls linearly and is `true_share` from end_epoch on."""

    start_epoch: Natural = 10
    end_epoch: Natural = 30
    true_share: Probability = 0.0  # above 0: the generator keeps following a rhythm that the video does not tell

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.end_epoch < self.start_epoch:
            raise invalid(
                f"expected an epoch of at least start_epoch = {self.start_epoch}, got {self.end_epoch}", "end_epoch"
            )
        return self


class DiffusionTraining(Config):
    optimizer_configs: dict[str, OptimizerConfig]
    use_ema: bool = True  # a moving average of the transformer's weights
    ema_conditioner: bool = False  # average the conditioners' weights too; false: as released
    log_loss_info: bool = False  # also log the loss of each fifth of the timesteps
    timestep_sampler: Literal["uniform", "logit_normal"] = "uniform"
    gradient_checkpointing: bool = False  # recompute layers in the backward pass: less memory, slower
    cfg_dropout_prob: Probability = 0.1  # each stream dropped alone, as released
    joint_dropout_prob: Probability = 0.0  # all streams dropped together, the state that guidance uses; 0: as released
    rhythm_curriculum: RhythmCurriculum = RhythmCurriculum()
    joint_rhythm: bool = True  # false: the generator is trained on true rhythm only, never on predicted rhythm
    demo: DemoConfig | None = None
    metrics: MetricsConfig | None = None  # absent: none, as released

    @model_validator(mode="after")
    def _check_ema(self) -> Self:
        if self.ema_conditioner and not self.use_ema:
            raise invalid("true needs use_ema true: without it there is no average", "ema_conditioner")
        return self


class LossWeights(Config):
    """Factors of the autoencoder's loss terms; the attribute names are the terms."""

    spectral: NonNegative = 1.0  # multi-resolution STFT distance
    waveform: NonNegative = 10.0  # L1
    kl: NonNegative = 1e-4


class ScoreLossWeights(Config):
    """Factors of the score autoencoder's loss terms; the attribute names are the terms."""

    onset: NonNegative = 1.0
    beat: NonNegative = 1.0
    sustain: NonNegative = 1.0
    offset: NonNegative = 10.0
    velocity: NonNegative = 10.0
    program: NonNegative = 2.0
    kl: NonNegative = 0.01


class AutoencoderTraining(Config):
    optimizer_configs: dict[str, OptimizerConfig]
    loss_weights: LossWeights = LossWeights()
    score_loss_weights: ScoreLossWeights = ScoreLossWeights()  # type score: instead of loss_weights
    freeze_encoder: bool = False  # train the decoder only, so that latents encoded before stay valid
    residual_init: NonNegative = 1.0  # initial factor of every residual branch; 1: as in stable-audio-tools
    perceptual_weighting: bool = False  # A-weight the audio before the spectral distance, as Stable Audio does
