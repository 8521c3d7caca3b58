"""How music is sampled: one set of options and defaults, from the command line to the sampler and the manifest."""

from __future__ import annotations

from dataclasses import dataclass, replace

from diff_v2m.common.errors import InputError
from diff_v2m.config import ModelConfig, StudentConfig

SAMPLERS = ("ddim", "dpmpp-3m", "adams")  # the names in diffusion.SAMPLERS, which --help lists without importing torch
MAX_STEPS = 1000  # of adams and dpmpp-3m: with more, neighbouring times soon are equal in float32
PUBLISHED_STEPS = 250  # ddim, where the model JSON has no demo_steps
DEFAULT_SAMPLER, DEFAULT_GUIDANCE = "adams", 3.0  # of a model that is no student
DEFAULT_STEPS = {"adams": 20, "dpmpp-3m": 30}  # less error than ddim in 250 steps
STUDENT_SAMPLER = "ddim"  # whose steps a student is trained for
DEFAULT_CLASS_LABEL = 2  # music videos and background music: the one class of the released configs


@dataclass(frozen=True)
class SamplingSettings:
    """Everything that decides a clip's music besides the model, the clip and the variation.

    None: the model's own value, see `resolve`.
    """

    seed: int = 42
    steps: int | None = None
    sampler: str | None = None  # one of SAMPLERS; published results are ddim
    guidance_scale: float | None = None  # 1: no guidance
    guidance_interval: tuple[float, float] = (0.0, 1.0)  # guidance acts for low < t ≤ high
    class_label: int | None = None  # 0, 1 or 2; None: that of the clip's data set, else DEFAULT_CLASS_LABEL

    @property
    def of_no_student(self) -> SamplingSettings:
        """Sampler and guidance with the defaults of a model that is no student."""
        guidance = DEFAULT_GUIDANCE if self.guidance_scale is None else self.guidance_scale
        return replace(self, sampler=self.sampler or DEFAULT_SAMPLER, guidance_scale=guidance)

    def resolve(self, config: ModelConfig) -> SamplingSettings:
        """With the model's values in place of None. InputError for too many steps and what a student cannot do."""
        if (student := config.model.diffusion.student) is not None:
            return self._of_student(student)
        resolved = replace(self.of_no_student, steps=self.steps_for(config))
        if resolved.sampler != "ddim" and resolved.steps > MAX_STEPS:
            at_most = f"expected at most {MAX_STEPS} with {resolved.sampler}; more do not change the music"
            raise InputError(f"steps {resolved.steps}: {at_most}")
        return resolved

    def _of_student(self, student: StudentConfig) -> SamplingSettings:
        (low, high), scale = student.guidance_range, self.guidance_scale
        other = "or choose its teacher as --ckpt-path"
        if self.steps not in (None, student.steps):
            raise InputError(
                f"steps {self.steps}: this model is a student for {student.steps} steps; omit --steps, {other}"
            )
        if self.sampler not in (None, STUDENT_SAMPLER):
            raise InputError(
                f"sampler {self.sampler}: this model is a student for {STUDENT_SAMPLER} steps; omit --sampler, {other}"
            )
        if scale is not None and not low <= scale <= high:
            raise InputError(
                f"guidance scale {scale:g}: this model is a student for {low:g} to {high:g}; choose one of these, "
                f"{other}"
            )
        if self.guidance_interval != (0.0, 1.0):
            raise InputError("guidance interval: this model is a student with guidance at every t; omit it")
        return replace(
            self,
            steps=student.steps,
            sampler=STUDENT_SAMPLER,
            guidance_scale=student.guidance if scale is None else scale,
        )

    def steps_for(self, config: ModelConfig) -> int:
        """`steps`, or the default of the sampler: for ddim the demo_steps of the model JSON (250 as released)."""
        if self.steps is not None:
            return self.steps
        if (steps := DEFAULT_STEPS.get(self.sampler or DEFAULT_SAMPLER)) is not None:
            return steps
        demo = config.training and config.training.demo
        return demo.demo_steps if demo else PUBLISHED_STEPS

    def label_for(self, own: int = DEFAULT_CLASS_LABEL) -> int:
        """`class_label`, or the clip's own label."""
        return own if self.class_label is None else self.class_label
