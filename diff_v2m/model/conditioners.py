"""Batch → `Conditions`: what the generator is conditioned on.

Each conditioner turns batched features into tokens (B, T, C); collate has padded them. `Conditioners` runs them all,
predicts the rhythm from the video and assembles the streams.

Shape legend: B batch, S seconds, R = S · rows_per_second, T tokens, C token width, r rhythm values of a row (1 or 16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from diff_v2m.common.errors import InputError
from diff_v2m.config import (
    CLASSES,
    GRID_DIM,
    RHYTHM_DIMS,
    ColorConfig,
    ExtractorConfig,
    IntConfig,
    LatentDiffusionConfig,
    NumberConfig,
    SemanticConfig,
)
from diff_v2m.data.batch import Batch
from diff_v2m.model.blocks import Encoder
from diff_v2m.model.streams import NO_MOMENTS, Moments, Stream, Streams


@dataclass(frozen=True)
class Conditions:
    """What the generator is conditioned on, for B clips. Computed once, used at every sampling step."""

    streams: Streams  # with the predicted rhythm, unless `with_rhythm` chose otherwise
    global_cond: Tensor  # (B, number of global ids · C)
    predicted_rhythm: Tensor  # (B, R, r) float32, the predictor's output: for the rhythm loss and for plots
    true_rhythm: Tensor | None = None  # (B, R, r) float32, standardised: the predictor's target
    true_rhythm_mask: Tensor | None = None  # (B, R) bool
    true_rhythm_stream: Stream | None = None
    moments: Moments = NO_MOMENTS

    def with_rhythm(self, use_true: Tensor) -> Conditions:
        """The same conditions, with the true instead of the predicted rhythm for the clips in `use_true` (B,) bool."""
        true, predicted = self.true_rhythm_stream, self.streams.rhythm
        if true is None:
            raise ValueError("with_rhythm needs a batch that has rhythm targets, and a model with a rhythm stream")
        use_true = use_true.to(predicted.mask.device)
        rhythm = predicted._replace(
            tokens=torch.where(use_true[:, None, None], true.tokens, predicted.tokens),  # (B, T, C)
            mask=torch.where(use_true[:, None], true.mask, predicted.mask),  # (B, T)
        )
        return replace(self, streams=self.streams._replace(rhythm=rhythm))


class Conditioners(nn.Module):
    """Batch → Conditions. Only conditioners that an id list refers to are built."""

    def __init__(self, config: LatentDiffusionConfig, *, latent_rate: float):
        """latent_rate: latent frames a second, of the beat grid."""
        super().__init__()
        conditioning, diffusion = config.conditioning, config.diffusion
        self.mask_padding = conditioning.mask_padding
        self.rows_per_second, self.latent_rate = conditioning.rows_per_second, latent_rate
        self.uses_grid = diffusion.uses_grid
        self.uses_motion, self.uses_shots = diffusion.uses_motion, diffusion.uses_shots
        self.restandardize_rhythm = conditioning.restandardize_rhythm
        self.rhythm_gradient = conditioning.rhythm_gradient
        self.uses_rhythm, self.uses_color = diffusion.uses_rhythm, diffusion.uses_color
        self.global_ids = diffusion.global_cond_ids
        scalars = [c.id for c in conditioning.configs if c.type in ("int", "number")]
        self.scalar_ids = [id for id in diffusion.cross_attention_cond_ids if id in scalars]

        width, unused = conditioning.cond_dim, conditioning.unused_projections
        self.conditioners = nn.ModuleDict()
        for entry in conditioning.configs:
            if entry.id not in (*diffusion.cross_attention_cond_ids, *diffusion.global_cond_ids):
                continue
            c: Any = entry.config
            match entry.type:
                case "semantic":
                    module = SemanticConditioner(c, width, unused)
                case "rhythm":
                    module = PerSecondConditioner(c.dim, c.hidden_dim, width, unused)
                case "color":
                    module = ColorConditioner(c, width, unused)
                case "int":
                    module = IntConditioner(c, width)
                case "number":
                    module = NumberConditioner(c, width)
            self.conditioners[entry.id] = module

    def forward(self, batch: Batch) -> Conditions:
        if self.mask_padding:
            batch = _zero_padding(batch)
        rate = self.rows_per_second
        mask = batch.mask.repeat_interleave(rate, dim=1)  # (B, R)
        valid = mask if self.mask_padding else None  # None, as released: padding counts like any second
        seconds = torch.arange(batch.mask.shape[1], device=batch.mask.device) + 0.5  # (S,)
        rows = (torch.arange(mask.shape[1], device=mask.device) + 0.5) / rate  # (R,) seconds
        values = {
            "class": batch.class_label,
            "seconds_start": batch.seconds_start,
            "seconds_total": batch.seconds_total,
        }
        wanted = {*self.scalar_ids, *self.global_ids}
        whole = {id: self.conditioners[id](value) for id, value in values.items() if id in wanted}  # (B, 1, C)
        timeless = [whole[id] for id in self.scalar_ids]

        semantic = self.conditioners["semantic"]
        shown = semantic(batch.semantic)  # (B, S, C)
        whole["semantic"] = _mean(shown, batch.mask)
        grid = self._grid(batch)
        predicted = semantic.extractor(  # (B, R, r)
            batch.semantic.repeat_interleave(rate, dim=1),
            batch.scene_cut,
            batch.pseudo_beats,
            batch.class_label,
            valid,
            batch.motion,
            None if grid is None else self._at_rows(grid, rows),
        )
        if batch.wanted_rhythm is not None:
            predicted = direct_rhythm(predicted, batch.wanted_rhythm, batch.accents, batch.mask)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.rhythm_gradient):
            rhythm = self._rhythm_tokens(standardize(predicted, valid) if self.restandardize_rhythm else predicted)
        true, true_mask, true_stream = self._true_rhythm(batch, mask, rows, timeless)
        return Conditions(
            Streams(
                semantic=_stream(shown, batch.mask, seconds, timeless),
                rhythm=_stream(rhythm, mask, rows, timeless, rate),
                color=self._color(batch, seconds),
            ),
            global_cond=torch.cat([whole[id] for id in self.global_ids], dim=1).flatten(1),
            predicted_rhythm=predicted.float(),
            true_rhythm=true,
            true_rhythm_mask=true_mask,
            true_rhythm_stream=true_stream,
            moments=Moments(
                grid,
                _stream(batch.motion[..., None], mask, rows, [], rate) if self.uses_motion else None,
                _stream(batch.shots, mask, rows, [], rate) if self.uses_shots else None,
            ),
        )

    def _rhythm_tokens(self, rhythm: Tensor) -> Tensor | None:
        return self.conditioners["rhythm"](rhythm) if self.uses_rhythm else None  # (B, R, C)

    def _grid(self, batch: Batch) -> Tensor | None:
        if not self.uses_grid:
            return None
        if batch.grid is None:
            raise InputError(
                f"{', '.join(batch.names)}: no beat grid, but the model is conditioned on one; give the dataset JSON "
                "a 'scores' folder"
            )
        return batch.grid

    def _at_rows(self, grid: Tensor, rows: Tensor) -> Tensor:
        """The beat grid (B, N, 13) of the latent frames that rows (R,), in seconds, lie in: (B, R, 13)."""
        return grid[:, (rows * self.latent_rate).long().clamp(max=grid.shape[1] - 1)]

    def _true_rhythm(
        self, batch: Batch, mask: Tensor, rows: Tensor, timeless: list[Tensor]
    ) -> tuple[Tensor | None, Tensor | None, Stream | None]:
        """The standardised target, its mask, and the stream made from it. All None if the batch has no target."""
        if batch.rhythm is None:
            return None, None, None
        mask = mask if batch.rhythm_mask is None else batch.rhythm_mask
        target = standardize(batch.rhythm, mask if self.mask_padding else None)
        return target, mask, _stream(self._rhythm_tokens(target), mask, rows, timeless, self.rows_per_second)

    def _color(self, batch: Batch, seconds: Tensor) -> Stream | None:
        if not self.uses_color:
            return None
        if batch.color is None:
            raise InputError(
                f"{', '.join(batch.names)}: no colour features, but the model is conditioned on colour; "
                "give the dataset JSON a 'video_color' folder"
            )
        mask = batch.mask if batch.color_mask is None else batch.color_mask
        return _stream(self.conditioners["color"](batch.color), mask, seconds, [])


def _mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Tokens (B, S, C) and their mask (B, S) → (B, 1, C): the mean over the seconds of each clip."""
    weights = mask.to(tokens.dtype)[..., None]
    return (tokens * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True).clamp(min=1)


class PerSecondConditioner(nn.Module):
    """Features of each second (B, S, dim) → tokens (B, S, C): two linear layers without a nonlinearity, as released.

    `unused_projections`: proj_out, a third layer that nothing calls, exists so that released weights load.
    """

    def __init__(self, dim: int, hidden_dim: int, width: int, unused_projections: bool):
        super().__init__()
        if unused_projections:
            self.proj_out = nn.Linear(dim, width)
        self.proj_out1 = nn.Linear(dim, hidden_dim)
        self.proj_out2 = nn.Linear(hidden_dim, width)

    def forward(self, features: Tensor) -> Tensor:
        return self.proj_out2(self.proj_out1(features.to(self.proj_out2.weight.dtype)))


class SemanticConditioner(PerSecondConditioner):
    """CLIP or HOG features. Owns the rhythm predictor (`extractor`), which reads the same features."""

    def __init__(self, config: SemanticConfig, width: int, unused_projections: bool):
        super().__init__(config.dim, config.hidden_dim, width, unused_projections)
        if config.dim == config.hidden_dim:
            self.proj_out1 = nn.Identity()
        self.extractor = RhythmPredictor(config.dim, RHYTHM_DIMS[config.rhythm_type], config.extractor)


class ColorConditioner(PerSecondConditioner):
    """Colour histograms.

    A histogram sums to 1 over 3072 bins, so the released layer receives values near zero. Corrected (`hellinger`):
    the square root, scaled by √dim, has unit mean square in every second.
    """

    def __init__(self, config: ColorConfig, width: int, unused_projections: bool):
        super().__init__(config.dim, config.hidden_dim, width, unused_projections)
        self.hellinger = config.hellinger

    def forward(self, features: Tensor) -> Tensor:
        if self.hellinger:
            features = (features.clamp(min=0) * features.shape[-1]).sqrt()
        return super().forward(features)


class IntConditioner(nn.Module):
    """An integer (B,), clamped to its range → one token (B, 1, C)."""

    def __init__(self, config: IntConfig, width: int):
        super().__init__()
        self.range = config.min_val, config.max_val
        self.int_embedder = nn.Embedding(config.max_val - config.min_val + 1, width)

    def forward(self, values: Tensor) -> Tensor:
        low, high = self.range
        return self.int_embedder(values.long().clamp(low, high) - low)[:, None]


class NumberConditioner(nn.Module):
    """A number (B,), clamped to its range and scaled to 0..1 → one token (B, 1, C)."""

    def __init__(self, config: NumberConfig, width: int):
        super().__init__()
        self.range = float(config.min_val), float(config.max_val)
        self.embedder = nn.ModuleDict({"embedding": nn.Sequential(LearnedFourier(128), nn.Linear(257, width))})

    def forward(self, values: Tensor) -> Tensor:
        low, high = self.range
        return self.embedder["embedding"]((values.float().clamp(low, high) - low) / (high - low))[:, None]


class LearnedFourier(nn.Module):
    """x (B,) → x and the sines and cosines of x at `count` learned frequencies, (B, 1 + 2 · count)."""

    def __init__(self, count: int):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(count))

    def forward(self, x: Tensor) -> Tensor:
        phases = 2 * math.pi * x[:, None] * self.weights.float()
        return torch.cat([x[:, None], phases.sin(), phases.cos()], dim=-1).to(self.weights.dtype)


class RhythmPredictor(nn.Module):
    """Rhythm from the video: semantics (B, R, dim), cuts (B, R), pseudo beats (B, R), class (B,) → (B, R, r).

    The input of a second is its standardised semantics, plus an embedding of whether a cut falls into it, plus an
    embedding of its pseudo beat. A class token goes in front and is dropped at the end. With more rows a second, a row
    repeats the semantics of its second, `motion_level` adds an embedding of the level of motion (B, R), and `beat_grid`
    one of the beat grid (B, R, 13). Without `visual_rhythm` (an ablation) the input is semantics and class alone.
    """

    def __init__(self, dim: int, rhythm_dim: int, config: ExtractorConfig):
        super().__init__()
        self.visual_rhythm = config.visual_rhythm
        self.dropout = nn.Dropout(config.dropout)
        self.class_embedding = nn.Embedding(CLASSES, dim)
        if config.visual_rhythm:
            self.scene_embedding = nn.Embedding(2, dim)
            self.pseudo_linear = nn.Sequential(nn.Linear(1, 128), nn.ReLU(), nn.Linear(128, dim))
        self.motion_linear = None
        if config.motion_level:
            self.motion_linear = nn.Sequential(nn.Linear(1, 128), nn.ReLU(), nn.Linear(128, dim))
        self.grid_linear = None
        if config.beat_grid:
            self.grid_linear = nn.Sequential(nn.Linear(GRID_DIM, 128), nn.ReLU(), nn.Linear(128, dim))
        self.transformer = Encoder(dim, config.dim, rhythm_dim, config.depth, config.num_heads)

    def forward(
        self,
        semantic: Tensor,
        scene_cut: Tensor,
        pseudo_beats: Tensor,
        class_label: Tensor,
        mask: Tensor | None,
        motion: Tensor | None = None,
        grid: Tensor | None = None,
    ) -> Tensor:
        """mask (B, R) bool: ignore padded seconds (corrected); None, as released: they count like any other."""
        dtype = self.class_embedding.weight.dtype
        x = self.dropout(standardize(semantic, mask)).to(dtype)  # (B, S, dim)
        if self.visual_rhythm:
            x = x + self.scene_embedding(scene_cut) + self.pseudo_linear(pseudo_beats[..., None].to(dtype))
        if self.motion_linear is not None:
            x = x + self.motion_linear(motion[..., None].to(dtype))
        if self.grid_linear is not None:
            x = x + self.grid_linear(grid.to(dtype))
        x = torch.cat([self.class_embedding(class_label)[:, None], x], dim=1)  # (B, 1 + S, dim)
        if mask is not None:
            mask = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)  # (B, 1 + S)
        return self.transformer(x, mask)[:, 1:]  # (B, S, r)


def direct_rhythm(predicted: Tensor, wanted: Tensor, accents: Tensor, mask: Tensor) -> Tensor:
    """Predicted rhythm (B, S · r, d) with the wanted value in each second (B, S) that has one, and raised at accents.

    The value of a second is the largest mean of its rows; all rows of a second move alike. accents (B, S · r), 0 to 1:
    how far a row is raised to the largest value within mask (B, S).
    """
    rate = predicted.shape[1] // mask.shape[1]
    seconds = predicted.float().mean(dim=2).unflatten(1, (-1, rate)).amax(dim=2)  # (B, S)
    change = torch.where(wanted.isnan(), 0, wanted - seconds)
    top = (seconds + change).masked_fill(~mask, -math.inf).amax(dim=1, keepdim=True)  # (B, 1)
    directed = predicted + change.repeat_interleave(rate, dim=1)[..., None].to(predicted.dtype)
    missing = (top - directed.float().mean(dim=2)).clamp(min=0) * accents  # (B, S · r)
    return directed + missing[..., None].to(predicted.dtype)


def standardize(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """z-score of each clip (B, S, d) over all its values, in float32: unbiased, with 1e-6 added to the deviation.

    mask (B, S) bool: statistics are of the valid seconds only (corrected), and the others become 0.
    """
    x = features.float()
    weight = torch.ones_like(x) if mask is None else mask[..., None].expand_as(x).to(x)
    count = weight.sum((1, 2), keepdim=True)
    centred = (x - (x * weight).sum((1, 2), keepdim=True) / count.clamp(min=1)) * weight
    variance = centred.square().sum((1, 2), keepdim=True) / (count - 1).clamp(min=1)
    return centred / (variance.clamp(min=1e-24).sqrt() + 1e-6)  # the clamp keeps the gradient finite for silence


def _stream(
    features: Tensor | None, mask: Tensor, seconds: Tensor, timeless: list[Tensor], rate: float = 1.0
) -> Stream:
    """Tokens (B, S, C), `rate` a second, then the timeless tokens. None (a model without rhythm): only the latter."""
    if features is None:
        mask, seconds = mask[:, :0], seconds[:0]
    return Stream(
        tokens=torch.cat([*([] if features is None else [features]), *timeless], dim=1),  # (B, S + n, C)
        mask=torch.cat([mask, mask.new_ones(len(mask), len(timeless))], dim=1),  # (B, S + n)
        times=torch.cat([seconds, seconds.new_full((len(timeless),), math.nan)]),  # (S + n,)
        rate=rate,
    )


def _zero_padding(batch: Batch) -> Batch:
    """The batch with zeros in all padded seconds of every field."""

    def clean(features: Tensor | None, mask: Tensor | None = None) -> Tensor | None:
        if features is None:
            return None
        padded = ~(batch.mask if mask is None else mask)  # (B, S) or (B, R)
        return features.masked_fill(padded if features.ndim == 2 else padded[..., None], 0)

    rows = batch.mask.repeat_interleave(batch.rows_per_second, dim=1)  # (B, R)
    return replace(
        batch,
        semantic=clean(batch.semantic),
        color=clean(batch.color, batch.color_mask),
        scene_cut=clean(batch.scene_cut, rows),
        pseudo_beats=clean(batch.pseudo_beats, rows),
        motion=clean(batch.motion, rows),
        shots=clean(batch.shots, rows),
        rhythm=clean(batch.rhythm, rows if batch.rhythm_mask is None else batch.rhythm_mask),
    )
