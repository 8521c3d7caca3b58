"""A guided step in the published arrangement, plain and eager, with our weights: the baseline of the benchmarks.

Every step embeds the conditions and computes keys, values and rotary tables. Both halves of the guided batch run every
cross-attention, both sides of the hard fusion included. Attention on a CPU is softmax(q kᵀ) v written out.
Written from the description of the released model, and for it alone (FiLM_choose, colour slot, as released).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from diff_v2m.model.conditioners import Conditions
from diff_v2m.model.dit import GuidedDiT


def denoise(network: GuidedDiT, x: Tensor, t: Tensor, conditions: Conditions, scale: float) -> Tensor:
    """x (B, latent, N), t (B,) → guided v; the same numbers as `GuidedDiT.forward`."""
    dit = network.model
    semantic, rhythm, _ = conditions.streams
    streams = [semantic, rhythm, rhythm]  # the colour slot holds the rhythm again
    contexts = [dit.to_cond_embed(torch.cat([s.tokens, torch.zeros_like(s.tokens)])) for s in streams]
    masks = [s.mask.repeat(2, 1)[:, None, None] for s in streams]
    x, t = x.repeat(2, 1, 1), t.repeat(2)
    token = dit.to_global_embed(conditions.global_cond.repeat(2, 1)) + dit.to_timestep_embed(dit.timestep_features(t))
    x = x + dit.preprocess_conv(x)
    h = torch.cat([token[:, None], dit.transformer.project_in(x.transpose(1, 2))], dim=1)
    for layer in dit.transformer.layers:
        rotary = dit.transformer.rotary_pos_emb(h.shape[1])
        qkv = layer.self_attn.to_qkv(layer.pre_norm(h)).chunk(3, -1)
        q, k, v = (heads(part, layer.self_attn.head_dim) for part in qkv)
        h = h + layer.self_attn.to_out(attend(rotary(q), rotary(k), v))
        h = layer.cross_attend_norm(h)
        h = layer.color_norm(h + cross(layer.cross_attn0, h, contexts[2], masks[2]))
        s = cross(layer.cross_attn1, h, contexts[0], masks[0])
        r = cross(layer.cross_attn2, h, contexts[1], masks[1])
        te = layer.t_linear(t[:, None])[:, None]
        s = layer.FiLM_gamma_sem(te) * s + layer.FiLM_beta_sem(te)
        r = layer.FiLM_gamma_rhy(te) * r + layer.FiLM_beta_rhy(te)
        h = h + torch.where((t > layer.fusion_switch_t)[:, None, None], s, r)
        value, gate = layer.ff.ff[0].proj(layer.ff_norm(h)).chunk(2, -1)
        h = h + layer.ff.ff[2](value * F.silu(gate))
    out = dit.transformer.project_out(h)[:, 1:].transpose(1, 2)
    conditional, unconditional = (out + dit.postprocess_conv(out)).chunk(2)
    return unconditional + (conditional - unconditional) * scale


def cross(attention, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
    k, v = (heads(part, attention.head_dim) for part in attention.to_kv(context).chunk(2, -1))
    k, v = (part.repeat_interleave(attention.groups, dim=1) for part in (k, v))
    return attention.to_out(attend(heads(attention.to_q(x), attention.head_dim), k, v, mask))


def heads(x: Tensor, head_dim: int) -> Tensor:
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    if q.is_cuda:  # where the published code has a fused kernel
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
