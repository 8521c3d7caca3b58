"""The score autoencoder: frames of a score ⇄ latents, around a variational bottleneck; a synthesiser plays the score.

Frames are laid out in score/frames.py. Encoder and decoder are residual blocks of a depthwise convolution along time
and a two-layer perceptron on the channels. No audio takes part in training. The generator's latents hold music in C, so
that it learns one key and writes all: the plan's key transposes the decoded score.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diff_v2m.common.scratch import TEMPORARY, Scratch
from diff_v2m.config import ScoreAutoencoderConfig
from diff_v2m.config.score_autoencoder import SCORE_SAMPLE_RATE
from diff_v2m.model.music import Music, fade_out
from diff_v2m.model.warp import TimeWarp
from diff_v2m.score import editing
from diff_v2m.score.frames import DRUM_ROWS, LAYOUT, PITCH_ROWS, PROGRAM_ROWS, from_frames
from diff_v2m.score.planner import Plan
from diff_v2m.score.score import Score

if TYPE_CHECKING:
    from diff_v2m.score.synth import Rendering

POSITIVE_WEIGHT = 2.0  # of frames with an onset, which are few


class ScoreVAE(nn.Module):
    """frames (B, LAYOUT.rows, N) ⇄ latents (B, latent_dim, N) → Score → audio (2, samples)."""

    extras, has_stems = ("mid",), True

    def __init__(self, config: ScoreAutoencoderConfig):
        super().__init__()
        self.downsampling_ratio = config.downsampling_ratio
        self.rate = SCORE_SAMPLE_RATE // config.downsampling_ratio  # frames a second
        self.latent_noise = config.latent_noise
        width, kernel = config.width, config.kernel_size
        self.model = nn.ModuleDict(
            {
                "encoder": _network(LAYOUT.rows, 2 * config.latent_dim, width, kernel, config.encoder_depth),
                "decoder": _network(config.latent_dim, LAYOUT.rows, width, kernel, config.decoder_depth),
            }
        )
        rare = self.model["decoder"][-1].bias[: LAYOUT.sustain.stop]  # at the start, nothing sounds
        nn.init.constant_(rare, -4.0)
        self.reach = config.decoder_depth * (kernel // 2)
        self.normalize_latents = config.normalize_latents
        if config.normalize_latents:
            self.register_buffer("latent_mean", torch.zeros(config.latent_dim, 1))
            self.register_buffer("latent_std", torch.ones(config.latent_dim, 1))

    def encode(self, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sample latents (B, latent_dim, N) of frames (B, LAYOUT.rows, N)."""
        mean, std = self.posterior(frames)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return self.normalize(mean + std * noise)

    def posterior(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, latent_dim, N) of the latents, before normalisation."""
        mean, scale = self.model["encoder"](frames).chunk(2, dim=1)
        return mean, F.softplus(scale) + 1e-4

    def normalize(self, latents: Tensor) -> Tensor:
        """Latents with zero mean and unit variance per channel, if the config asks for it."""
        return (latents - self.latent_mean) / self.latent_std if self.normalize_latents else latents

    def decode_frames(self, latents: Tensor, chunk: int | None = None) -> Tensor:
        """Values (B, LAYOUT.rows, N), all from 0 to 1, of latents (B, latent_dim, N).

        chunk: frames to decode at a time; None: all. The values are the same.
        """
        latents = latents * self.latent_std + self.latent_mean if self.normalize_latents else latents
        frames = latents.shape[-1]
        values = latents.new_empty(len(latents), LAYOUT.rows, frames)
        for start in range(0, frames, chunk or frames):
            stop, first = min(start + (chunk or frames), frames), max(start - self.reach, 0)
            logits = self.decode_raw(latents[..., first : stop + self.reach])
            values[..., start:stop] = _values(logits)[..., start - first : stop - first]
        return values

    def decode_raw(self, latents: Tensor) -> Tensor:
        """Logits (B, LAYOUT.rows, N) of latents that were not normalised."""
        return self.model["decoder"](latents)

    def score(self, latents: Tensor, chunk: int | None = None, duration: float | None = None) -> Score:
        """The score of latents (latent_dim, N), or of their first `duration` seconds. FloatingPointError for NaN."""
        values = self.decode_frames(latents[None], chunk)[0].detach().float().cpu().numpy()
        if not np.isfinite(values).all():
            raise FloatingPointError
        duration = values.shape[1] / self.rate if duration is None else duration
        return from_frames(values[:, : math.ceil(duration * self.rate)], self.rate, duration)

    def decode(self, latents: Tensor, chunk: int | None = None) -> Tensor:
        """Audio (B, 2, N · downsampling_ratio) of latents (B, latent_dim, N)."""
        mixes = [_render(self.score(part, chunk)).mix for part in latents]
        return torch.from_numpy(np.stack(mixes)).to(latents.device)

    def music(
        self,
        latents: Tensor,
        duration: float,
        sample_rate: int,
        chunk: int | None = None,
        *,
        ending: float = 0.0,
        plan: Plan | None = None,
        scratch: Scratch = TEMPORARY,
    ) -> ScoreMusic:
        """See `Pretransform.music`. The latents are rounded to half precision, in which they are kept: kept latents
        then give the same notes.
        """
        score = self.score(latents.half().to(latents.dtype), chunk, duration)
        music = ScoreMusic(score if plan is None else replace(score.in_key(plan.key), grid=plan.grid), scratch)
        if not ending:
            return music
        gain = scratch.zeros(music.audio.shape[1])
        gain[:] = 1
        fade_out(gain, round(ending * sample_rate))
        return music.scaled(gain)

    def losses(self, frames: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Unweighted loss terms of frames (B, LAYOUT.rows, N), each a mean or a sum over what sounds in a frame."""
        mean, std = self.posterior(frames)
        strength = torch.rand(len(mean), 1, 1, generator=generator, device=mean.device) * self.latent_noise
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        logits = self.decode_raw(mean + (std**2 + strength**2).sqrt() * noise).float()
        return score_losses(logits, frames) | {"kl": (mean**2 + std**2 - 2 * torch.log(std) - 1).sum(1).mean() / 2}

    def fingerprint(self) -> str:
        """SHA-256, in hex, of all that latents depend on: encoder and statistics, not the decoder."""
        digest = hashlib.sha256(b"score frames 2")
        for name, tensor in sorted(self.state_dict().items()):
            if not name.startswith("model.decoder."):
                digest.update(f"{name} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().float().cpu().contiguous().numpy())
        return digest.hexdigest()

    def prepare_for_inference(self) -> None:
        """Nothing to fold."""


class ScoreMusic(Music):
    """A score and its sound."""

    def __init__(self, score: Score, scratch: Scratch = TEMPORARY):
        rendering = _render(score, scratch)
        super().__init__(rendering.mix, score, rendering.play_stems, scratch)
        self.gain: np.ndarray | None = None  # (samples,) of the sound; None: 1

    def scaled(self, gain: np.ndarray) -> ScoreMusic:
        """The same music times gain (samples,), which it keeps when its notes change."""
        changed = super().scaled(gain)
        changed.gain = gain if self.gain is None else self.scratch.multiplied(self.gain[None], gain)[0]
        return changed

    def attacks(self) -> tuple[np.ndarray, np.ndarray]:
        return editing.attacks(self.score)

    def with_dynamics(self, change: np.ndarray) -> ScoreMusic:
        """Notes that begin in a second are struck harder or softer."""
        return self._playing(editing.with_dynamics(self.score, change)) if change.any() else self

    def warped(self, warp: TimeWarp, sample_rate: int, attacks: np.ndarray) -> ScoreMusic:
        """Notes and beats are moved exactly; nothing is stretched."""
        return self._playing(editing.warped(self.score, warp.forward))

    def accented(
        self, times: np.ndarray, gains: np.ndarray, sample_rate: int, attacks: np.ndarray, strengths: np.ndarray
    ) -> ScoreMusic:
        """Near notes are moved onto the times, held ones are struck again, with a kick."""
        return self._playing(editing.accented(self.score, times))

    def silenced(self, gain: np.ndarray, spans: Sequence[tuple[float, float]]) -> ScoreMusic:
        """Notes of the spans are removed, and the sound fades."""
        return self._playing(editing.silenced(self.score, spans)).scaled(gain)

    def _playing(self, score: Score) -> ScoreMusic:
        """Another score with this gain."""
        music = ScoreMusic(score, self.scratch)
        return music if self.gain is None else music.scaled(self.gain)

    def write_notes(self, folder: Path, name: str) -> list[str]:
        from diff_v2m.score.midi import write_midi

        write_midi(folder / f"{name}.mid", self.score)
        return [f"{name}.mid"]

    def about(self) -> dict[str, Any]:
        """Key, metre, tempo, and the tempo from each second at which it changes; programs and notes of the voices."""
        grid = self.score.grid
        return {
            "score": {
                "key": str(self.score.key),
                "beats_per_bar": grid.beats_per_bar,
                "first_downbeat": round(float(grid.bars[0]), 4) if len(grid.bars) else None,
                "tempo": round(grid.tempo, 2),
                "tempo_map": [(round(at, 4), round(tempo, 3)) for at, tempo in grid.tempo_map],
                "programs": {voice.name: voice.program for voice in self.score.voices},
                "notes": {voice.name: len(voice.notes) for voice in self.score.voices},
            }
        }

    def caption(self) -> list[str]:
        return [str(self.score.key), f"{self.score.grid.tempo:.0f} BPM"] if self.score.note_count else []


def _render(score: Score, scratch: Scratch = TEMPORARY) -> Rendering:
    from diff_v2m.score.synth import render  # imports scipy.fft, which an audio model does not wait for

    return render(score, scratch=scratch)


def score_losses(logits: Tensor, frames: Tensor) -> dict[str, Tensor]:
    """Loss terms of logits against frames, both (B, LAYOUT.rows, N).

    Means over frames of the sum over rows; those of offset, velocity and program are means over onsets and voices.
    """
    onset, beat = frames[:, LAYOUT.onset], frames[:, LAYOUT.beat]
    weight = torch.tensor(POSITIVE_WEIGHT, device=logits.device)
    terms = {
        name: F.binary_cross_entropy_with_logits(
            logits[:, rows], frames[:, rows], pos_weight=pos_weight, reduction="none"
        )
        .sum(1)
        .mean()
        for name, rows, pos_weight in (
            ("onset", LAYOUT.onset, weight),
            ("beat", LAYOUT.beat, weight),
            ("sustain", LAYOUT.sustain, None),
        )
    }
    voices = torch.stack(
        [onset[:, rows].amax(1) for rows in (*PITCH_ROWS.values(), DRUM_ROWS)], 1
    )  # (B, pitched voices and drums, N)
    drums = onset[:, DRUM_ROWS]
    here = torch.cat([voices[:, :-1].repeat_interleave(2, 1), voices[:, -1:], beat[:, :1]], 1)
    terms["offset"] = _masked(logits, frames, LAYOUT.offset, here)
    terms["velocity"] = _masked(logits, frames, LAYOUT.velocity, torch.cat([voices[:, :-1], drums], 1))
    terms["program"] = torch.stack(
        [
            _cross_entropy(logits[:, LAYOUT.program][:, rows], frames[:, LAYOUT.program][:, rows])
            for rows in PROGRAM_ROWS.values()
        ]
    ).mean()
    return terms


def _masked(logits: Tensor, frames: Tensor, rows: slice, here: Tensor) -> Tensor:
    distance = (torch.sigmoid(logits[:, rows]) - frames[:, rows]).abs()
    return (distance * here).sum() / here.sum().clamp(min=1)


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Of frames of pieces that have the voice."""
    there = wanted.amax(1)
    loss = -(F.log_softmax(logits, 1) * wanted).sum(1)
    return (loss * there).sum() / there.sum().clamp(min=1)


def _values(logits: Tensor) -> Tensor:
    """Logits → values from 0 to 1: probabilities of onsets and programs, shares, offsets and velocities."""
    programs = logits[:, LAYOUT.program]
    shares = [torch.softmax(programs[:, rows], 1) for rows in PROGRAM_ROWS.values()]
    return torch.cat([torch.sigmoid(logits[:, : LAYOUT.program.start]), *shares], 1)


def _network(inputs: int, outputs: int, width: int, kernel: int, depth: int) -> nn.Sequential:
    blocks = [_Block(width, kernel) for _ in range(depth)]
    return nn.Sequential(nn.Conv1d(inputs, width, 1), *blocks, _Norm(width), nn.Conv1d(width, outputs, 1))


class _Block(nn.Module):
    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.along_time = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = _Norm(width)
        self.up, self.down = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(self.along_time(x)))))


class _Norm(nn.Module):
    """Unit RMS over the channels of each frame, times a gain."""

    def __init__(self, width: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6) * self.gain
