"""Diff-V2M, outermost first: LatentDiffusion > GuidedDiT > HierarchicalDiT.

    batch ─ Conditioners ─▶ Conditions ─┐
    noise, t ──────────────────────── GuidedDiT ─▶ v          sampled by diffusion.py from t = 1 to 0 ─▶ latents
                                        └ HierarchicalDiT              Pretransform.decode(latents) ─▶ audio

Shape legend: B batch, N latent frames, p patch size, T tokens of a stream, D model width, C context width.
Attribute names are the released checkpoint's.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from diff_v2m.common.scratch import TEMPORARY, Scratch
from diff_v2m.config import GRID_DIM, SHOT_DIM, DiffusionConfig, DiTConfig, ModelConfig
from diff_v2m.data.batch import Batch
from diff_v2m.model.blocks import FourierFeatures, HierarchicalTransformer, LayerKeysValues, zero_linear
from diff_v2m.model.conditioners import Conditioners, Conditions
from diff_v2m.model.diffusion import OBJECTIVES
from diff_v2m.model.fusion import FUSIONS, Fusion
from diff_v2m.model.music import Music
from diff_v2m.model.pretransform import build_pretransform
from diff_v2m.model.rotary import Rotary, RotaryEmbedding, time_rotary
from diff_v2m.model.streams import NO_MOMENTS, Moments, Stream, Streams, at_times, drop_streams
from diff_v2m.score.planner import Plan


class LatentDiffusion(nn.Module):
    """The whole system: batch → conditions, audio ⇄ latents, and the network that predicts v."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        diffusion = config.model.diffusion
        self.objective = OBJECTIVES[diffusion.diffusion_objective]
        self.iterate_batch = config.pretransform.iterate_batch
        rows = config.model.conditioning.rows_per_second
        self.model = GuidedDiT(diffusion, latent_rate=config.latent_rate, rows_per_second=rows)
        self.conditioner = Conditioners(config.model, latent_rate=config.latent_rate)
        self.pretransform = build_pretransform(config.pretransform)

    def condition(self, batch: Batch) -> Conditions:
        return self.conditioner(batch)

    @torch.no_grad()
    def encode(self, audio: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Audio (B, channels, samples) → sampled latents (B, latent, N)."""
        return torch.cat([self.pretransform.encode(part, generator) for part in self._parts(audio)])

    @torch.no_grad()
    def decode(self, latents: Tensor, chunk: int | None = None) -> Tensor:
        """Latents (B, latent, N) → audio (B, channels, N · downsampling_ratio), `chunk` frames at a time."""
        dtype = next(self.pretransform.parameters()).dtype
        return torch.cat([self.pretransform.decode(part, chunk) for part in self._parts(latents.to(dtype))])

    @torch.no_grad()
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
    ) -> Music:
        """Latents (latent, N) → `Pretransform.music`."""
        latents = latents.to(next(self.pretransform.parameters()).dtype)
        options = {"ending": ending, "plan": plan, "scratch": scratch}
        return self.pretransform.music(latents, duration, sample_rate, chunk, **options)

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """`iterate_batch`: one clip at a time, so that the autoencoder's memory does not grow with the batch."""
        return x.split(1) if self.iterate_batch else (x,)


class GuidedDiT(nn.Module):
    """The network with classifier-free guidance: conditions are dropped in training and amplified in sampling.

    A student has the guidance scale as an input, and is evaluated once where other networks are evaluated twice.
    The exponential moving average of the weights follows this module.
    """

    def __init__(self, config: DiffusionConfig, *, latent_rate: float, rows_per_second: int = 1):
        super().__init__()
        self.rhythm_in_color_slot = config.uses_color and not config.config.color_attention
        self.is_student = config.student is not None
        self.model = HierarchicalDiT(
            config.config,
            latent_rate=latent_rate,
            color=config.uses_color,
            grid=config.uses_grid,
            motion=config.uses_motion,
            shots=config.uses_shots,
            rows_per_second=rows_per_second,
            guidance_range=config.student.guidance_range if config.student else None,
        )

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        conditions: Conditions,
        *,
        guidance_scale: float | Tensor = 1.0,
        condition_dropout: float = 0.0,
        joint_dropout: float = 0.0,
    ) -> Tensor:
        """Predict v, or what the objective predicts, for x (B, latent, N) at t (B,): in training, and for a single
        prediction. Sampling uses `precompute` and `denoise`.

        guidance_scale: 1 = the plain prediction; above, the difference that the conditions make is amplified. For a
        student also (B,), one a clip.
        condition_dropout, joint_dropout: in training, the probability that a clip loses each stream, or all of them.
        """
        streams, moments = self.color_slot(conditions.streams), conditions.moments
        if condition_dropout > 0 or joint_dropout > 0:
            streams, dropped = drop_streams(streams, condition_dropout, joint_dropout)
            moments = moments if dropped is None else moments.drop(dropped)
        scale = self._scales(guidance_scale, conditions)
        cache = self.model.precompute(streams, conditions.global_cond, x.shape[-1], moments, scale)
        return self._guided(x, t, cache, None, guidance_scale)

    def color_slot(self, streams: Streams) -> Streams:
        """The streams as the blocks attend to them. As released, the colour slot holds the rhythm again; corrected
        (`color_attention`), it holds the colour.
        """
        return streams._replace(color=streams.rhythm) if self.rhythm_in_color_slot else streams

    @property
    def fusion_switch_t(self) -> float | None:
        """Timestep at which hard fusion switches from semantics (above) to rhythm; None: the fusion is not hard."""
        transformer = self.model.transformer
        return transformer.fusion_switch_t if transformer.fusion.sides else None

    def precompute(
        self, conditions: Conditions, frames: int, guidance_scale: float | Tensor | None = None
    ) -> ConditioningCache:
        """Everything independent of x and t, for latents of N = `frames` frames.

        guidance_scale: for a student, which needs it here: one number, or (B,). Other networks ignore it.
        """
        streams, scale = self.color_slot(conditions.streams), self._scales(guidance_scale, conditions)
        return self.model.precompute(streams, conditions.global_cond, frames, conditions.moments, scale)

    def _scales(self, guidance_scale: float | Tensor | None, conditions: Conditions) -> Tensor | None:
        """(B,) for a student, else None."""
        if not self.is_student:
            return None
        if guidance_scale is None:
            raise ValueError("a student needs the guidance scale in `precompute`")
        count = len(conditions.global_cond)
        return torch.as_tensor(guidance_scale, dtype=torch.float32, device=conditions.global_cond.device).expand(count)

    def denoise(self, x: Tensor, t: Tensor, cache: ConditioningCache, *, guidance_scale: float = 1.0) -> Tensor:
        """`forward` from a cache. t (B,) is on the CPU, where reading it does not synchronise a GPU: hard fusion then
        computes only the side that t selects. A student's guidance scale is in the cache.
        """
        fusion = self.model.transformer.fusion_at(t)
        return self._guided(x, t.to(x.device, non_blocking=x.is_cuda), cache, fusion, guidance_scale)

    def _guided(
        self, x: Tensor, t: Tensor, cache: ConditioningCache, fusion: Fusion | None, scale: float | Tensor
    ) -> Tensor:
        if self.is_student or scale == 1:
            return self.model(x, t, cache, fusion)
        conditional, unconditional = self.with_and_without(x, t, cache, fusion)
        return unconditional + (conditional - unconditional) * scale

    def with_and_without(
        self, x: Tensor, t: Tensor, cache: ConditioningCache, fusion: Fusion | None = None
    ) -> tuple[Tensor, Tensor]:
        """The predictions that guidance compares, each (B, latent, N): conditional and unconditional."""
        conditional, unconditional = self.model(x.repeat(2, 1, 1), t.repeat(2), cache, fusion).chunk(2)
        return conditional, unconditional

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Cast the weights, once. Those that make angles of times and positions stay float32."""
        for module in self.modules():
            if not isinstance(module, (FourierFeatures, RotaryEmbedding)):
                for tensor in chain(module.parameters(recurse=False), module.buffers(recurse=False)):
                    tensor.data = tensor.data.to(dtype)


class ConditioningCache(NamedTuple):
    """Tensors computed from the conditions of B clips. They are the same at every sampling step."""

    global_token: Tensor  # (B, D), to which the embedded t is added; a student's holds the guidance scale
    streams: Streams  # tokens (B, T, C)
    layers: list[LayerKeysValues] | None  # keys and values of every layer; None: they depend on t
    rotary: Rotary  # of 1 + N / p tokens
    time_rotary: Rotary | None  # of 1 + N / p tokens; None without time-aligned attention
    aligned: Tensor | None  # (B, N / p, D); None without aligned input and moments


class HierarchicalDiT(nn.Module):
    """The bare network: noised latents, t and a conditioning cache → v.

    Corrected by the config (absent = as released): `time_aligned_attention` gives latent frames and condition tokens
    rotary positions in seconds; `aligned_input` adds each second's tokens to that second's latent frames; `grid` adds
    the beat grid's row of each latent frame to that frame, `motion` the level of motion at that time, and `shots`
    features of the shot.
    `guidance_range` (a student): scales of guidance, which are embedded as t is.
    """

    def __init__(
        self,
        config: DiTConfig,
        *,
        latent_rate: float,
        color: bool,
        grid: bool = False,
        motion: bool = False,
        shots: bool = False,
        rows_per_second: int = 1,
        guidance_range: tuple[float, float] | None = None,
    ):
        super().__init__()
        dim, latent = config.embed_dim, config.io_channels
        context_dim = dim if config.project_cond_tokens else config.cond_token_dim
        fusion = FUSIONS[config.attention_weight_type]
        self.patch_size = config.patch_size
        self.token_rate = latent_rate / config.patch_size  # latent tokens a second
        self.time_aligned_attention = config.time_aligned_attention
        self.fastest_period = 2.0 / rows_per_second  # seconds, of time-aligned attention: neighbouring rows differ
        self.normalize_context = config.normalize_context

        self.preprocess_conv = _zero_conv(latent)
        self.timestep_features = FourierFeatures(256)
        self.to_timestep_embed = _two_layers(256, dim, bias=True)
        self.to_global_embed = _two_layers(config.global_cond_dim, dim)
        self.guidance_range = guidance_range
        if guidance_range is not None:
            self.guidance_features = FourierFeatures(256)
            self.to_guidance_embed = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), zero_linear(dim, dim))
        self.to_cond_embed = _two_layers(config.cond_token_dim, context_dim)
        self.aligned_input = (
            zero_linear(fusion.stream_count(color) * context_dim, dim, bias=False) if config.aligned_input else None
        )
        self.grid_input = zero_linear(GRID_DIM * config.patch_size, dim, bias=False) if grid else None
        self.motion_input = zero_linear(1, dim, bias=False) if motion else None
        self.shots_input = zero_linear(SHOT_DIM, dim, bias=False) if shots else None
        self.transformer = HierarchicalTransformer(
            latent * config.patch_size,
            dim,
            config.depth,
            config.num_heads,
            context_dim,
            fusion,
            pre_norm=config.pre_norm,
            fusion_switch_t=config.rhythm_t_max,
        )
        self.postprocess_conv = _zero_conv(latent)

        if not config.pre_norm:  # as released: all parameters start at half their size
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.mul_(0.5)

    def precompute(
        self,
        streams: Streams,
        global_cond: Tensor,
        frames: int,
        moments: Moments = NO_MOMENTS,
        guidance: Tensor | None = None,
    ) -> ConditioningCache:
        """Streams, global_cond (B, ·), moments, and a student's guidance scales (B,) of B clips, for latents of
        N = `frames` frames.
        """
        count = -(-frames // self.patch_size)  # N / p latent tokens
        times = (torch.arange(count, device=global_cond.device) + 0.5) / self.token_rate  # (N / p,) seconds
        streams = self.transformer.fusion.select(streams).map(self.embed)  # tokens (B, T, C)
        return ConditioningCache(
            self.global_token(global_cond, guidance),
            streams,
            None if self.transformer.fusion.modulates_streams else self.transformer.keys_values(streams),
            rotary=self.transformer.rotary_pos_emb(1 + count),
            time_rotary=self.time_rotary(F.pad(times, (1, 0), value=math.nan)),  # the global token is timeless
            aligned=self.align(streams, times, moments),
        )

    def forward(self, x: Tensor, t: Tensor, cache: ConditioningCache, fusion: Fusion | None = None) -> Tensor:
        """x (B, latent, N), t (B,) → v like x.

        fusion: fusion to use instead of the configured one, already resolved for this t.

        x may hold twice the clips of the cache: the second half is unconditional, except for the global token.
        As released, its tokens are zero. Attention to zeros is exactly zero and is not computed.
        """
        input_dtype, frames, conditional = x.dtype, x.shape[-1], len(cache.global_token)
        x = x.to(self.dtype)
        x = x + self.preprocess_conv(x)  # (B, latent, N)
        x = F.pad(x, (0, -frames % self.patch_size))
        x = rearrange(x, "b c (n p) -> b n (c p)", p=self.patch_size)  # (B, N / p, latent · p)

        te = self.to_timestep_embed(self.timestep_features(t).to(self.dtype))  # (B, D)
        layers = cache.layers
        if layers is None:
            unconditional = len(x) > conditional
            streams = cache.streams.map(Stream.with_unconditional) if unconditional else cache.streams
            layers = self.transformer.keys_values(streams, t.float())
        x = self.transformer(
            x,
            t.float(),
            te + cache.global_token.repeat(len(x) // conditional, 1),
            layers,
            rotary=cache.rotary,
            time_rotary=cache.time_rotary,
            aligned=cache.aligned,
            fusion=fusion,
        )  # (B, N / p, latent · p)
        x = rearrange(x, "b n (c p) -> b c (n p)", p=self.patch_size)[..., :frames]
        return (x + self.postprocess_conv(x)).to(input_dtype)  # (B, latent, N)

    def global_token(self, global_cond: Tensor, guidance: Tensor | None) -> Tensor:
        """(B, D)."""
        token = self.to_global_embed(global_cond.to(self.dtype))
        if self.guidance_range is None:
            return token
        low, high = self.guidance_range
        return token + self.to_guidance_embed(self.guidance_features((guidance - low) / (high - low)).to(self.dtype))

    @property
    def dtype(self) -> torch.dtype:
        return self.preprocess_conv.weight.dtype

    def embed(self, stream: Stream) -> Stream:
        """Tokens (B, T, ·) → (B, T, C), with the rotary table of their times. Corrected (`normalize_context`): tokens
        of unit RMS; zero stays zero.
        """
        tokens = self.to_cond_embed(stream.tokens.to(self.dtype))
        if self.normalize_context:
            tokens = F.rms_norm(tokens, tokens.shape[-1:], eps=1e-8)
        return stream._replace(tokens=tokens, rotary=self.time_rotary(stream.times))

    def time_rotary(self, seconds: Tensor) -> Rotary | None:
        """The rotary table of tokens at these times (T,), if attention is time-aligned."""
        if not self.time_aligned_attention:
            return None
        return time_rotary(seconds, self.transformer.head_dim, self.fastest_period)

    def align(self, streams: Streams, times: Tensor, moments: Moments = NO_MOMENTS) -> Tensor | None:
        """Contribution of condition tokens and moments to the latent tokens of the same time, (B, N / p, D)."""
        parts = []
        if self.aligned_input is not None:
            tokens = [at_times(stream, times) for stream in streams.present()]  # each (B, N / p, C)
            parts.append(self.aligned_input(torch.cat(tokens, dim=-1)))
        if self.grid_input is not None:
            grid = F.pad(moments.grid, (0, 0, 0, -moments.grid.shape[1] % self.patch_size)).to(self.dtype)
            parts.append(self.grid_input(rearrange(grid, "b (n p) c -> b n (p c)", p=self.patch_size)))
        if self.motion_input is not None:
            parts.append(self.motion_input(at_times(moments.motion, times).to(self.dtype)))
        if self.shots_input is not None:
            parts.append(self.shots_input(at_times(moments.shots, times).to(self.dtype)))
        return sum(parts) if parts else None


def _two_layers(dim: int, dim_out: int, bias: bool = False) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim_out, bias=bias), nn.SiLU(), nn.Linear(dim_out, dim_out, bias=bias))


def _zero_conv(channels: int) -> nn.Conv1d:
    conv = nn.Conv1d(channels, channels, 1, bias=False)
    nn.init.zeros_(conv.weight)
    return conv
