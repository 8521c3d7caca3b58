"""The `training` member of the model JSON: optimiser, schedule, dropout, curriculum, demos."""

from dataclasses import dataclass, field
from typing import Any, Literal

from diff_v2m.config.parsing import Count, Natural, NonNegative, Probability, chosen_by


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    lr: NonNegative
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.01


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    type: Literal["AdamW"]
    config: AdamWConfig


@dataclass(frozen=True, kw_only=True)
class InverseLRConfig:
    """lr(k) = lr · (1 − warmup^(k+1)) / (1 + k/inv_gamma)^power."""

    inv_gamma: NonNegative = 1.0
    power: NonNegative = 1.0
    warmup: Probability = 0.0
    final_lr: NonNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class CosineLRConfig:
    """Linear warm-up over warmup_steps, then half a cosine to final_lr at total_steps (default: the run's length)."""

    warmup_steps: Natural = 0
    total_steps: Count | None = None
    final_lr: NonNegative = 0.0


SCHEDULER_CONFIGS = {"InverseLR": InverseLRConfig, "CosineLR": CosineLRConfig}


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    type: Literal["InverseLR", "CosineLR"]
    config: Any = field(metadata=chosen_by("type", SCHEDULER_CONFIGS))


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    optimizer: Optimizer
    scheduler: Scheduler | None = None


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Demos while training, of the first clips of the validation set, or of the training set if there is none."""

    demo_every: Natural = 2000  # optimiser steps between demos; 0: none
    demo_steps: Count = 250
    num_demos: Natural = 4
    demo_cfg_scales: tuple[float, ...] = (3.0,)
    demo_cond: tuple[dict[str, Any], ...] = ()  # text prompts of the released file; accepted, unused
    demo_cond_from_batch: bool = True  # accepted, unused: conditions are those of the clips
    demo_save_dir: str = "generated_demo/"  # in the run's folder


@dataclass(frozen=True, kw_only=True)
class MetricsConfig:
    """Cheap figures of the music while training, logged as music/*, for the clips that demos are of."""

    every: Count = 2000  # optimiser steps
    clips: Count = 8
    steps: Count = 50  # of sampling
    cfg_scale: float = 3.0


@dataclass(frozen=True, kw_only=True)
class RhythmCurriculum:
    """P(predicted rhythm) is 0 before start_epoch, rises linearly and is 1 from end_epoch on."""

    start_epoch: Natural = 10
    end_epoch: Natural = 30


@dataclass(frozen=True, kw_only=True)
class DiffusionTraining:
    optimizer_configs: dict[str, OptimizerConfig]
    use_ema: bool = True  # a moving average of the network's weights
    ema_conditioner: bool = False  # it covers the conditioners too; false: as released
    log_loss_info: bool = False  # the loss of each fifth of the timesteps is logged too
    timestep_sampler: Literal["uniform", "logit_normal"] = "uniform"
    gradient_checkpointing: bool = False  # layers are computed again in the backward pass: less memory, slower
    cfg_dropout_prob: Probability = 0.1  # each stream dropped alone, as released
    joint_dropout_prob: Probability = 0.0  # all streams dropped together, the state that guidance uses; 0: as released
    rhythm_curriculum: RhythmCurriculum = RhythmCurriculum()
    joint_rhythm: bool = True  # false: the generator is trained with true rhythm alone and never meets the predictor
    demo: DemoConfig | None = None
    metrics: MetricsConfig | None = None  # absent: none, as released


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Factors of the autoencoder's loss terms; the attribute names are the terms."""

    spectral: NonNegative = 1.0  # multi-resolution STFT distance
    waveform: NonNegative = 10.0  # L1
    kl: NonNegative = 1e-4


@dataclass(frozen=True, kw_only=True)
class AutoencoderTraining:
    optimizer_configs: dict[str, OptimizerConfig]
    loss_weights: LossWeights = LossWeights()
    freeze_encoder: bool = False  # train the decoder alone, so that latents made before stay valid
    residual_init: NonNegative = 1.0  # factor on every residual branch at the start; 1: stable-audio-tools' own
    perceptual_weighting: bool = False  # the spectral distance is heard through an A-weighting, as Stable Audio's was
