"""How music is sampled: one set of options and defaults, from the command line to the sampler and the manifest."""

from __future__ import annotations

from dataclasses import dataclass

from diff_v2m.config import ModelConfig

SAMPLERS = ("ddim", "dpmpp-3m")  # the names in diffusion.SAMPLERS, which --help lists without importing torch
PUBLISHED_STEPS = 250  # ddim, where the model JSON has no demo_steps
DEFAULT_STEPS = 30  # dpmpp-3m: less error than ddim in 250 steps
DEFAULT_CLASS_LABEL = 2  # music videos and background music: the one class of the released configs


@dataclass(frozen=True)
class SamplingSettings:
    """Everything that decides a clip's music besides the model, the clip and the variation."""

    seed: int = 42
    steps: int | None = None  # None: see `steps_for`
    sampler: str = "dpmpp-3m"  # one of SAMPLERS; published results are ddim
    guidance_scale: float = 3.0  # 1: no guidance
    guidance_interval: tuple[float, float] = (0.0, 1.0)  # guidance acts for low < t ≤ high
    class_label: int | None = None  # 0, 1 or 2; None: that of the clip's data set, else DEFAULT_CLASS_LABEL

    def steps_for(self, config: ModelConfig) -> int:
        """`steps`, or the default of the sampler: for ddim the demo_steps of the model JSON (250 as released)."""
        if self.steps is not None:
            return self.steps
        if self.sampler != "ddim":
            return DEFAULT_STEPS
        demo = config.training and config.training.demo
        return demo.demo_steps if demo else PUBLISHED_STEPS

    def label_for(self, own: int = DEFAULT_CLASS_LABEL) -> int:
        """`class_label`, or the clip's own label."""
        return own if self.class_label is None else self.class_label
