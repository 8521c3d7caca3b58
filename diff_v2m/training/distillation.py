"""Distillation: a student learns the guided result of a frozen teacher in few steps, one evaluation each.

The student takes the steps of ddim on its own grid of t. Its target in a step is the v with which that step ends where
the teacher ends: guided, in several evaluations. This is guidance distillation (Meng et al., arXiv 2210.03142) and
progressive distillation (Salimans & Ho, arXiv 2202.00512) at once. A student can be the teacher of one with fewer
steps.

Conditioners and pretransform are the teacher's, frozen. Rhythm is predicted, as in generation, but for the share of
clips that the curriculum leaves the true one.
"""

from __future__ import annotations

import argparse
import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diff_v2m.checkpoints.files import read_weights
from diff_v2m.checkpoints.loading import config_of, load_model
from diff_v2m.checkpoints.starting import differences, start_from
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import content_hash
from diff_v2m.common.seeding import mixed_seed
from diff_v2m.config import ModelConfig, StudentConfig, load_model_config, parse_model_config, whole_model
from diff_v2m.data.batch import Batch
from diff_v2m.model.compiling import compile_blocks
from diff_v2m.model.conditioners import Conditions
from diff_v2m.model.diffusion import Denoise, add_noise, ddim_step, midpoint_step, time_grid, velocity_between
from diff_v2m.model.dit import GuidedDiT, LatentDiffusion
from diff_v2m.training.diffusion_module import DiffusionModule
from diff_v2m.training.losses import Losses

log = logging.getLogger(__name__)

AT_DEFAULT = 0.5  # share of clips that train the default guidance scale; the others draw one of the range


def student_config(settings: argparse.Namespace) -> ModelConfig:
    """The teacher's config with a `student` member.

    A model JSON of the flags gives `training` and `student`; the rest of its `model` is the teacher's. Raises
    InputError if it is not, and for steps that the teacher's are no multiple of.
    """
    teacher = whole_model(config_of(read_weights(settings.distill)), settings.distill)
    given = teacher
    if settings.model_config:
        given = whole_model(load_model_config(settings.model_config), settings.model_config)
    raw = copy.deepcopy(given.raw)
    other = differences(_architecture(teacher.raw), _architecture(raw))
    if other:
        place, theirs, ours = other[0]
        raise InputError(f"{settings.model_config}: {place} is {ours}, in the teacher {theirs}; a student has the same")
    before: StudentConfig | None = teacher.model.diffusion.student
    member = (before or given.model.diffusion.student or StudentConfig()).model_dump(mode="json")
    if before is not None:
        member["steps"] = before.steps // 2
    member["steps"] = settings.student_steps or member["steps"]
    if before is not None and (before.steps % max(1, member["steps"]) or member["steps"] >= before.steps):
        raise InputError(
            f"--student-steps {member['steps']}: the teacher is a student for {before.steps} steps; expected a divisor "
            "of that, and fewer"
        )
    raw["model"]["diffusion"]["student"] = member
    for name, steps, scale in (
        ("demo", "demo_steps", {"demo_cfg_scales": [member["guidance"]]}),
        ("metrics", "steps", {"cfg_scale": member["guidance"]}),
    ):
        if (raw.get("training") or {}).get(name):
            raw["training"][name] |= {steps: member["steps"], **scale}
    return parse_model_config(raw, "config of the student")


def _architecture(raw: dict[str, Any]) -> dict[str, Any]:
    """`model` without what training decides: the student's member, and the identity of the features' encoder."""
    raw = copy.deepcopy(raw["model"])
    raw["diffusion"].pop("student", None)
    for entry in raw["conditioning"]["configs"]:
        entry.get("config", {}).pop("encoder_identity", None)
    return raw


class Teacher:
    """A frozen network and its own way to get from one t to a lower one, with guidance."""

    def __init__(self, path: Path, steps: int, dtype: torch.dtype):
        """steps: of its student. dtype: in which it computes. Raises InputError."""
        model, config = load_model(path)
        self.path, self.sha256 = path, content_hash(path)
        self.network: GuidedDiT = model.model.eval().requires_grad_(False)
        self.network.lower_precision(dtype)
        self.objective = model.objective
        student: StudentConfig | None = config.model.diffusion.student
        self.is_student = student is not None
        self.steps = 1 if student is None else student.steps // steps  # for one of the student

    @torch.no_grad()
    def advance(self, x: Tensor, t: Tensor, end: Tensor, conditions: Conditions, scales: Tensor) -> Tensor:
        """x (B, latent, N) at t (B,) → x at `end` (B,), with guidance of these scales (B,)."""
        with torch.autocast(x.device.type, enabled=False):
            denoise = self.objective.as_v(self._denoise(conditions, x.shape[-1], scales))
            if not self.is_student:
                return midpoint_step(denoise, x, t, end)
            for number in range(self.steps):
                start, stop = (torch.lerp(t, end, share / self.steps) for share in (number, number + 1))
                x = ddim_step(x, denoise(x, start), start, stop)
            return x

    def _denoise(self, conditions: Conditions, frames: int, scales: Tensor) -> Denoise:
        network, cache = self.network, self.network.precompute(conditions, frames, scales)
        if self.is_student:
            return lambda x, t: network.model(x, t, cache)

        def guided(x: Tensor, t: Tensor) -> Tensor:
            conditional, unconditional = network.with_and_without(x, t, cache)
            return torch.lerp(unconditional, conditional, scales[:, None, None].to(x))

        return guided


class DistillationModule(DiffusionModule):
    """`DiffusionModule` whose target is the teacher's. Checkpoints hold the student and the teacher's hash."""

    def __init__(self, config: ModelConfig, seed: int, teacher: Teacher):
        super().__init__(config, seed)
        self.teacher, self.student = teacher, config.model.diffusion.student
        self.diffusion.conditioner.requires_grad_(False).eval()
        self.grid = torch.cat([time_grid(self.student.steps), torch.zeros(1)])  # (steps + 1,)

    @classmethod
    def from_settings(cls, config: ModelConfig, settings: argparse.Namespace) -> DistillationModule:
        path = Path(settings.distill)
        dtype = torch.float32 if settings.precision == "32" else torch.bfloat16
        module = cls(config, settings.seed, Teacher(path, config.model.diffusion.student.steps, dtype))
        start_from(module.diffusion, config, path)
        module.complete_start(settings)
        if settings.compile:
            compile_blocks(module.teacher.network)
        return module

    def on_train_start(self) -> None:
        super().on_train_start()
        self.teacher.network.to(self.device)

    def on_validation_start(self) -> None:
        self.teacher.network.to(self.device)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        seed = mixed_seed(self.seed, self.global_rank, self.current_epoch, batch_index) + 1
        latents = self.latents_of(batch, torch.Generator(self.device).manual_seed(seed))
        steps = (self.draw_uniform(len(batch), batch.skipped) * self.student.steps).long()  # (B,)
        low, high = self.student.guidance_range
        drawn = low + (high - low) * torch.rand(len(batch), device=self.device)
        is_default = torch.rand(len(batch), device=self.device) < AT_DEFAULT
        scales = torch.where(is_default, self.student.guidance, drawn)
        noise = torch.randn_like(latents)
        conditions = self.conditions_of(batch)
        if share := self.recipe.rhythm_curriculum.true_share:
            conditions = conditions.with_rhythm(torch.rand(len(batch), device=self.device) < share)
        losses = self.losses_at(self.diffusion, conditions, latents, noise, steps, scales)
        if batch.padding:  # every process has to take part in the step
            return 0 * losses.total
        self.log("train/loss", losses.total, prog_bar=True, batch_size=len(batch))
        if self.recipe.log_loss_info:
            self.loss_by_time.add(losses, self.grid[steps].to(self.device))
        return losses.total

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Loss of the averaged weights at each step of the student, with fixed noise and the default guidance."""
        latents = self.latents_of(batch, torch.Generator(self.device).manual_seed(batch_index))
        conditions, clips = self.conditions_of(batch), 0 if batch.padding else len(batch)
        generator = torch.Generator(self.device).manual_seed(self.seed + 1 + batch_index)
        scales = torch.full((len(batch),), self.student.guidance, device=self.device)
        for number in range(self.student.steps):
            noise = torch.randn(latents.shape, generator=generator, device=self.device)
            steps = torch.full((len(batch),), number)
            losses = self.losses_at(self.averaged, conditions, latents, noise, steps, scales)
            self.log(f"val/mse_t{self.grid[number]:.3g}", losses.mse, batch_size=clips, sync_dist=True)
            self.log("val/loss", losses.mse, batch_size=clips, sync_dist=True, prog_bar=True)

    def losses_at(
        self,
        model: LatentDiffusion,
        conditions: Conditions,
        latents: Tensor,
        noise: Tensor,
        steps: Tensor,
        scales: Tensor,
    ) -> Losses:
        """Squared error of v in steps (B,) of the student, on the CPU, with guidance scales (B,)."""
        t, end = self.grid[steps].to(self.device), self.grid[steps + 1].to(self.device)
        x = add_noise(latents, noise, t)
        target = velocity_between(x, self.teacher.advance(x, t, end, conditions, scales), t, end)
        denoise = model.objective.as_v(lambda x, t: model.model(x, t, conditions, guidance_scale=scales))
        output = denoise(x, t)
        mse = (output.float() - target).square().mean()
        return Losses(mse, mse, torch.zeros_like(mse), output, target)

    @torch.no_grad()
    def conditions_of(self, batch: Batch) -> Conditions:
        """In float32, as in generation."""
        with torch.autocast(self.device.type, enabled=False):
            return self.diffusion.condition(batch)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["teacher_sha256"] = self.teacher.sha256

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        super().on_load_checkpoint(checkpoint)
        if checkpoint.get("teacher_sha256") != self.teacher.sha256:
            raise InputError(f"{self.teacher.path}: the run's student has another teacher; give that as --distill")
