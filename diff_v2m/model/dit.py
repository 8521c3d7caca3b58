"""Diff-V2M, outermost first: LatentDiffusion > GuidedDiT > HierarchicalDiT.

    batch ─ Conditioners ─▶ Conditions ─┐
    noise, t ──────────────────────── GuidedDiT ─▶ v          sampled by diffusion.py from t = 1 to 0 ─▶ latents
                                        └ HierarchicalDiT              OobleckVAE.decode(latents) ─▶ audio

Attribute names are the released checkpoint's. Shape legend: B batch, N latent frames, p patch size, T tokens,
D model width, C context width.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from diff_v2m.config import DiTConfig, ModelConfig
from diff_v2m.data.batch import Batch
from diff_v2m.model.autoencoder import OobleckVAE
from diff_v2m.model.blocks import (
    Context,
    Contexts,
    HierarchicalTransformer,
    LayerKeysValues,
    zero_linear,
)
from diff_v2m.model.conditioners import Conditioners, Conditions, Stream
from diff_v2m.model.diffusion import OBJECTIVES
from diff_v2m.model.fusion import FUSIONS, Fusion
from diff_v2m.model.rotary import Rotary, RotaryEmbedding, time_rotary


class LatentDiffusion(nn.Module):
    """The whole system: what the clip shows → conditions; latents ⇄ audio; and the network between them."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        diffusion = config.model.diffusion
        self.objective = OBJECTIVES[diffusion.diffusion_objective]
        self.iterate_batch = config.pretransform.iterate_batch
        self.model = GuidedDiT(diffusion.config, latent_rate=config.latent_rate, color=diffusion.uses_color)
        self.conditioner = Conditioners(config.model)
        self.pretransform = OobleckVAE(config.pretransform.config)

    def condition(self, batch: Batch) -> Conditions:
        """Everything the network is told about the clips of a batch."""
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

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """The batch clip by clip, so that the autoencoder's memory does not grow with it, or in one piece."""
        return x.split(1) if self.iterate_batch else (x,)


class GuidedDiT(nn.Module):
    """The network with classifier-free guidance: conditions dropped in training, amplified in sampling.

    What the moving average of the weights follows.
    """

    def __init__(self, config: DiTConfig, *, latent_rate: float, color: bool):
        super().__init__()
        self.color_slot = color
        self.color_attention = config.color_attention
        self.model = HierarchicalDiT(config, latent_rate=latent_rate, color=color)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        conditions: Conditions,
        *,
        guidance_scale: float = 1.0,
        rescale_phi: float = 0.0,
        condition_dropout: float = 0.0,
        joint_dropout: float = 0.0,
    ) -> Tensor:
        """Predict v, or whatever the objective predicts, for x (B, latent, N) at t (B,): for training and for single
        predictions; `denoise` is for sampling.

        guidance_scale: 1 = the plain prediction; above, the difference the conditions make is amplified.
        rescale_phi: how far to bring the guided prediction's deviation back to the plain one's, 0..1.
        condition_dropout, joint_dropout (training): chance that a clip loses a stream, and that it loses all of them.
        """
        streams = self.streams(conditions)
        if condition_dropout > 0 or joint_dropout > 0:
            streams = drop_streams(streams, condition_dropout, joint_dropout)
        prepared = self.model.prepare(streams, conditions.global_cond, x.shape[-1])
        return self._guided(x, t, prepared, None, guidance_scale, rescale_phi)

    @property
    def switch(self) -> float | None:
        """The t at which the network changes at once, from semantics above to rhythm; None where it never does."""
        return self.model.transformer.rhythm_t_max if self.model.transformer.fusion.sides else None

    def prepare(self, conditions: Conditions, frames: int) -> PreparedConditions:
        """All that the conditions come to, whatever x and t, for latents of this many frames."""
        return self.model.prepare(self.streams(conditions), conditions.global_cond, frames)

    def denoise(
        self,
        x: Tensor,
        t: Tensor,
        prepared: PreparedConditions,
        *,
        guidance_scale: float = 1.0,
        rescale_phi: float = 0.0,
    ) -> Tensor:
        """`forward` of prepared conditions. t (B,) is on the CPU, where looking at it stops no GPU: of a hard choice
        between semantics and rhythm, only what t selects is computed."""
        fusion = self.model.transformer.fusion_at(t)
        return self._guided(x, t.to(x.device, non_blocking=x.is_cuda), prepared, fusion, guidance_scale, rescale_phi)

    def _guided(
        self, x: Tensor, t: Tensor, prepared: PreparedConditions, fusion: Fusion | None, scale: float, phi: float
    ) -> Tensor:
        if scale == 1:
            return self.model(x, t, prepared, fusion)
        prediction = self.model(x.repeat(2, 1, 1), t.repeat(2), prepared, fusion)
        conditional, unconditional = prediction.chunk(2)
        guided = unconditional + (conditional - unconditional) * scale
        if phi == 0:
            return guided
        rescaled = guided * (conditional.std(1, keepdim=True) / guided.std(1, keepdim=True))
        return phi * rescaled + (1 - phi) * guided

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Cast the weights, once. What makes angles of times and positions stays float32."""
        for module in self.modules():
            if not isinstance(module, (FourierFeatures, RotaryEmbedding)):
                for tensor in chain(module.parameters(recurse=False), module.buffers(recurse=False)):
                    tensor.data = tensor.data.to(dtype)

    def streams(self, conditions: Conditions) -> list[Stream]:
        """Semantics, rhythm and what goes into the colour slot: colour, or as released the rhythm again."""
        streams = [conditions.semantic, conditions.rhythm]
        if self.color_slot:
            streams.append(conditions.color if self.color_attention else conditions.rhythm)
        return streams


def drop_streams(streams: list[Stream], each: float, joint: float) -> list[Stream]:
    """Zero the tokens of each stream for a share `each` of the clips, drawn stream by stream as released, and then
    those of all streams for a share `joint`: the state in which guidance uses the network."""

    def draw(share: float) -> Tensor:
        tokens = streams[0].tokens
        return torch.bernoulli(tokens.new_full((len(tokens), 1, 1), share)).bool()

    dropped = [draw(each) for _ in streams] if each > 0 else [False] * len(streams)
    if joint > 0:
        dropped_together = draw(joint)
        dropped = [alone | dropped_together for alone in dropped]
    return [s._replace(tokens=s.tokens.masked_fill(gone, 0)) for s, gone in zip(streams, dropped, strict=True)]


class PreparedConditions(NamedTuple):
    """What the conditions of B clips come to in the network: all that stays the same from step to step."""

    global_token: Tensor  # (B, D), to which the time is added
    contexts: Contexts
    layers: list[LayerKeysValues] | None  # keys and values of every layer; None where they depend on t
    rotary: Rotary  # of 1 + N / p tokens
    clock: Rotary | None
    aligned: Tensor | None  # (B, N / p, D)


class HierarchicalDiT(nn.Module):
    """The bare network: noised latents, time and the prepared streams → v.

    Switches of the config (absent = as released): `time_aligned_attention` gives latent frames and tokens a common
    clock in the cross-attentions; `aligned_input` adds each second's tokens to that second's latent frames.
    """

    def __init__(self, config: DiTConfig, *, latent_rate: float, color: bool):
        super().__init__()
        dim, latent = config.embed_dim, config.io_channels
        context_dim = dim if config.project_cond_tokens else config.cond_token_dim
        fusion = FUSIONS[config.attention_weight_type]
        self.patch_size = config.patch_size
        self.token_rate = latent_rate / config.patch_size  # latent tokens a second
        self.time_aligned_attention = config.time_aligned_attention
        self.normalize_context = config.normalize_context
        self.active_streams = [True, fusion.rhythm, *([fusion.color] if color else [])]

        self.preprocess_conv = _zero_conv(latent)
        self.timestep_features = FourierFeatures(256)
        self.to_timestep_embed = _two_layers(256, dim, bias=True)
        self.to_global_embed = _two_layers(config.global_cond_dim, dim)
        self.to_cond_embed = _two_layers(config.cond_token_dim, context_dim)
        self.aligned_input = (
            zero_linear(sum(self.active_streams) * context_dim, dim, bias=False) if config.aligned_input else None
        )
        self.transformer = HierarchicalTransformer(
            latent * config.patch_size,
            dim,
            config.depth,
            config.num_heads,
            context_dim,
            fusion,
            pre_norm=config.pre_norm,
            rhythm_t_max=config.rhythm_t_max,
        )
        self.postprocess_conv = _zero_conv(latent)

        if not config.pre_norm:  # as released: the whole network starts at half its size
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.mul_(0.5)

    def prepare(self, streams: list[Stream], global_cond: Tensor, frames: int) -> PreparedConditions:
        """streams [semantics, rhythm(, colour)] and global_cond (B, ·) of B clips of N = `frames` latent frames."""
        count = -(-frames // self.patch_size)  # latent tokens
        times = (torch.arange(count, device=global_cond.device) + 0.5) / self.token_rate  # (N / p,) seconds
        global_token = self.to_global_embed(global_cond.to(self.dtype))
        tokens = [self.embed_context(s.tokens.to(self.dtype)) for s in streams]  # each (B, T, C)
        contexts = self.contexts(streams, tokens)
        return PreparedConditions(
            global_token,
            contexts,
            None if self.transformer.fusion.modulates_contexts else self.transformer.keys_values(contexts),
            rotary=self.transformer.rotary_pos_emb(1 + count),
            clock=self.clock(F.pad(times, (1, 0), value=math.nan)),
            aligned=self.aligned(streams, tokens, times),
        )

    def forward(self, x: Tensor, t: Tensor, prepared: PreparedConditions, fusion: Fusion | None = None) -> Tensor:
        """x (B, latent, N), t (B,) → v like x; fusion: what is left of it at this t.

        x may hold twice the clips that were prepared: the second half is unconditional but for the global condition.
        (As released it gets zero tokens, and attention to zeros is exactly zero: it is not computed.)
        """
        input_dtype, frames, conditional = x.dtype, x.shape[-1], len(prepared.global_token)
        x = x.to(self.dtype)
        x = x + self.preprocess_conv(x)  # (B, latent, N)
        x = F.pad(x, (0, -frames % self.patch_size))
        x = rearrange(x, "b c (n p) -> b n (c p)", p=self.patch_size)  # (B, N / p, latent · p)

        te = self.to_timestep_embed(self.timestep_features(t).to(self.dtype))  # (B, D)
        layers = prepared.layers
        if layers is None:
            contexts = prepared.contexts.with_unconditional() if len(x) > conditional else prepared.contexts
            layers = self.transformer.keys_values(contexts, t.float())
        x = self.transformer(
            x,
            t.float(),
            te + prepared.global_token.repeat(len(x) // conditional, 1),
            layers,
            rotary=prepared.rotary,
            clock=prepared.clock,
            aligned=prepared.aligned,
            fusion=fusion,
        )  # (B, N / p, latent · p)
        x = rearrange(x, "b n (c p) -> b c (n p)", p=self.patch_size)[..., :frames]
        return (x + self.postprocess_conv(x)).to(input_dtype)  # (B, latent, N)

    @property
    def dtype(self) -> torch.dtype:
        return self.preprocess_conv.weight.dtype

    def embed_context(self, tokens: Tensor) -> Tensor:
        """Condition tokens (B, T, ·) → (B, T, C); `normalize_context` brings each to unit RMS, and zero stays zero."""
        embedded = self.to_cond_embed(tokens)
        return F.rms_norm(embedded, embedded.shape[-1:], eps=1e-8) if self.normalize_context else embedded

    def contexts(self, streams: list[Stream], tokens: list[Tensor]) -> Contexts:
        contexts = [Context(h, s.mask, self.clock(s.times)) for s, h in zip(streams, tokens, strict=True)]
        return Contexts(*contexts, *[None] * (3 - len(contexts)))

    def clock(self, seconds: Tensor) -> Rotary | None:
        """The rotary table of tokens at these times, if attention is to know them."""
        return time_rotary(seconds, self.transformer.head_dim) if self.time_aligned_attention else None

    def aligned(self, streams: list[Stream], tokens: list[Tensor], times: Tensor) -> Tensor | None:
        """What each latent token is given straight from its own second (B, N / p, D)."""
        if self.aligned_input is None:
            return None
        streams = zip(tokens, streams, self.active_streams, strict=True)
        return self.aligned_input(torch.cat([at_times(h, s, times) for h, s, active in streams if active], dim=-1))


def at_times(tokens: Tensor, stream: Stream, times: Tensor) -> Tensor:
    """Tokens (B, T, C) of a stream, interpolated linearly between their seconds at `times` (n,) → (B, n, C).

    Held constant before the first and after the last valid second for as long as that second reaches, zero beyond;
    timeless and masked tokens have no part in it.
    """
    distance = (times[:, None] - stream.times.nan_to_num(nan=math.inf)).abs()  # (n, T)
    weight = (1 - distance).clamp(min=0) * stream.mask[:, None]  # (B, n, T)
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1e-6)
    return weight.to(tokens.dtype) @ tokens


class FourierFeatures(nn.Module):
    """t (B,) → cosines and sines at random frequencies, (B, dim) float32."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim // 2, 1))

    def forward(self, t: Tensor) -> Tensor:
        phases = 2 * math.pi * t.float()[:, None] @ self.weight.float().T
        return torch.cat([phases.cos(), phases.sin()], dim=-1)


def _two_layers(dim: int, dim_out: int, bias: bool = False) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim_out, bias=bias), nn.SiLU(), nn.Linear(dim_out, dim_out, bias=bias))


def _zero_conv(channels: int) -> nn.Conv1d:
    conv = nn.Conv1d(channels, channels, 1, bias=False)
    nn.init.zeros_(conv.weight)
    return conv
