"""What the generator is told: batch → `Conditions`.

Every conditioner takes batched tensors and gives tokens (B, T, C); padding was done in collate. `Conditioners` runs
them all, predicts the rhythm from the picture and assembles the streams.

Shape legend: B batch, S seconds (rows), T tokens, C context width, r rhythm values a second (1 or 16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diff_v2m.common.errors import InputError
from diff_v2m.config import (
    CLASSES,
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


class Stream(NamedTuple):
    """Tokens of one kind, and when each of them applies."""

    tokens: Tensor  # (B, T, C)
    mask: Tensor  # (B, T) bool
    times: Tensor  # (T,) float32: seconds from the window's start; NaN: belongs to no time


@dataclass(frozen=True)
class Conditions:
    """Everything the generator is told about B clips. Computed once, used at every sampling step."""

    semantic: Stream
    rhythm: Stream  # the predicted rhythm, unless `with_rhythm` chose otherwise
    color: Stream | None
    global_cond: Tensor  # (B, number of global ids · C)
    predicted_rhythm: Tensor  # (B, S, r) float32, as the predictor gives it: for the rhythm loss and for pictures
    true_rhythm: Tensor | None = None  # (B, S, r) float32, standardised: the predictor's target
    true_rhythm_mask: Tensor | None = None  # (B, S) bool
    true_rhythm_stream: Stream | None = None

    def with_rhythm(self, use_true: Tensor) -> Conditions:
        """The same conditions, with the true instead of the predicted rhythm where `use_true` (B,) says so."""
        if self.true_rhythm_stream is None:
            raise ValueError("with_rhythm needs a batch that has rhythm targets, and a model with a rhythm stream")
        true, predicted = self.true_rhythm_stream, self.rhythm
        use_true = use_true.to(predicted.mask.device)
        return replace(
            self,
            rhythm=predicted._replace(
                tokens=torch.where(use_true[:, None, None], true.tokens, predicted.tokens),
                mask=torch.where(use_true[:, None], true.mask, predicted.mask),
            ),
        )


class Conditioners(nn.Module):
    """Batch → Conditions. Only conditioners that an id list refers to are built."""

    def __init__(self, config: LatentDiffusionConfig):
        super().__init__()
        conditioning, diffusion = config.conditioning, config.diffusion
        self.mask_padding = conditioning.mask_padding
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
            c = entry.config
            match entry.type:
                case "semantic":
                    module = SemanticConditioner(c, width, unused)
                case "rhythm":
                    module = RowConditioner(c.dim, c.hidden_dim, width, unused)
                case "color":
                    module = ColorConditioner(c, width, unused)
                case "int":
                    module = IntConditioner(c, width)
                case "number":
                    module = NumberConditioner(c, width)
            self.conditioners[entry.id] = module

    def forward(self, batch: Batch) -> Conditions:
        if self.mask_padding:
            batch = _without_padding(batch)
        valid = batch.mask if self.mask_padding else None  # None, as released: padding counts like picture
        seconds = torch.arange(batch.mask.shape[1], device=batch.mask.device) + 0.5
        values = {
            "class": batch.class_label,
            "seconds_start": batch.seconds_start,
            "seconds_total": batch.seconds_total,
        }
        scalars = {id: self.conditioners[id](values[id]) for id in {*self.scalar_ids, *self.global_ids}}  # (B, 1, C)
        timeless = [scalars[id] for id in self.scalar_ids]

        semantic = self.conditioners["semantic"]
        predicted = semantic.extractor(  # (B, S, r)
            batch.semantic, batch.scene_cut, batch.pseudo_beats, batch.class_label, valid
        )
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.rhythm_gradient):
            rhythm = self._rhythm_rows(standardize(predicted, valid) if self.restandardize_rhythm else predicted)
        true, true_mask, true_stream = self._true_rhythm(batch, seconds, timeless)
        return Conditions(
            semantic=_stream(semantic(batch.semantic), batch.mask, seconds, timeless),
            rhythm=_stream(rhythm, batch.mask, seconds, timeless),
            color=self._color(batch, seconds),
            global_cond=torch.cat([scalars[id] for id in self.global_ids], dim=1).flatten(1),
            predicted_rhythm=predicted.float(),
            true_rhythm=true,
            true_rhythm_mask=true_mask,
            true_rhythm_stream=true_stream,
        )

    def _rhythm_rows(self, rows: Tensor) -> Tensor | None:
        return self.conditioners["rhythm"](rows) if self.uses_rhythm else None

    def _true_rhythm(
        self, batch: Batch, seconds: Tensor, timeless: list[Tensor]
    ) -> tuple[Tensor | None, Tensor | None, Stream | None]:
        """The standardised target, its mask, and the stream it makes; all None without a soundtrack."""
        if batch.rhythm is None:
            return None, None, None
        mask = batch.mask if batch.rhythm_mask is None else batch.rhythm_mask
        target = standardize(batch.rhythm, mask if self.mask_padding else None)
        return target, mask, _stream(self._rhythm_rows(target), mask, seconds, timeless)

    def _color(self, batch: Batch, seconds: Tensor) -> Stream | None:
        if not self.uses_color:
            return None
        if batch.color is None:
            raise InputError(
                f"{', '.join(batch.names)}: no colour features, but the model listens to colour; "
                "give the dataset JSON a 'video_color' folder"
            )
        mask = batch.mask if batch.color_mask is None else batch.color_mask
        return _stream(self.conditioners["color"](batch.color), mask, seconds, [])


class RowConditioner(nn.Module):
    """Rows of features (B, S, dim) → tokens (B, S, C) through two linear layers without anything between, as released.

    proj_out is a third one that nothing calls; it exists so that released weights load (`unused_projections`).
    """

    def __init__(self, dim: int, hidden_dim: int, width: int, unused_projections: bool):
        super().__init__()
        if unused_projections:
            self.proj_out = nn.Linear(dim, width)
        self.proj_out1 = nn.Linear(dim, hidden_dim)
        self.proj_out2 = nn.Linear(hidden_dim, width)

    def forward(self, rows: Tensor) -> Tensor:
        return self.proj_out2(self.proj_out1(rows.to(self.proj_out2.weight.dtype)))


class SemanticConditioner(RowConditioner):
    """What is seen, second by second; owns the rhythm predictor (`extractor`), which reads the same rows."""

    def __init__(self, config: SemanticConfig, width: int, unused_projections: bool):
        super().__init__(config.dim, config.hidden_dim, width, unused_projections)
        if config.dim == config.hidden_dim:
            self.proj_out1 = nn.Identity()
        self.extractor = RhythmPredictor(config.dim, RHYTHM_DIMS[config.rhythm_type], config.extractor)


class ColorConditioner(RowConditioner):
    """Colour histograms. They sum to 1 over 3072 bins, so the released layer sees numbers near zero; `hellinger`
    (corrected) takes the square root and scales by √dim, which gives every row unit mean square."""

    def __init__(self, config: ColorConfig, width: int, unused_projections: bool):
        super().__init__(config.dim, config.hidden_dim, width, unused_projections)
        self.hellinger = config.hellinger

    def forward(self, rows: Tensor) -> Tensor:
        if self.hellinger:
            rows = (rows.clamp(min=0) * rows.shape[-1]).sqrt()
        return super().forward(rows)


class IntConditioner(nn.Module):
    """A whole number (B,), clamped to its range → one token (B, 1, C)."""

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
    """The rhythm that the picture suggests: rows (B, S, dim), cuts, pseudo beats and the kind of video → (B, S, r).

    Each row is standardised semantics + an embedding of "a cut falls here" + an embedding of the strength of motion;
    a token for the kind of video goes in front and is dropped at the end. Without `visual_rhythm` (an ablation) it has
    semantics and class alone to go by.
    """

    def __init__(self, dim: int, rhythm_dim: int, config: ExtractorConfig):
        super().__init__()
        self.visual_rhythm = config.visual_rhythm
        self.dropout = nn.Dropout(config.dropout)
        self.class_embedding = nn.Embedding(CLASSES, dim)
        if config.visual_rhythm:
            self.scene_embedding = nn.Embedding(2, dim)
            self.pseudo_linear = nn.Sequential(nn.Linear(1, 128), nn.ReLU(), nn.Linear(128, dim))
        self.transformer = Encoder(dim, config.dim, rhythm_dim, config.depth, config.num_heads)

    def forward(
        self, rows: Tensor, scene_cut: Tensor, pseudo_beats: Tensor, class_label: Tensor, mask: Tensor | None
    ) -> Tensor:
        """mask (B, S): padded rows count for nothing; None, as released: they count like any other."""
        dtype = self.class_embedding.weight.dtype
        x = self.dropout(standardize(rows, mask)).to(dtype)  # (B, S, dim)
        if self.visual_rhythm:
            x = x + self.scene_embedding(scene_cut) + self.pseudo_linear(pseudo_beats[..., None].to(dtype))
        x = torch.cat([self.class_embedding(class_label)[:, None], x], dim=1)  # (B, 1 + S, dim)
        if mask is not None:
            mask = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)
        return self.transformer(x, mask)[:, 1:]  # (B, S, r)


def standardize(rows: Tensor, mask: Tensor | None = None) -> Tensor:
    """z-score of each item (B, S, d) over all its values, in float32, unbiased, with 1e-6 added to the deviation.

    With a mask (B, S) the statistics are of valid rows only (corrected) and the other rows become 0.
    """
    rows = rows.float()
    weight = torch.ones_like(rows) if mask is None else mask[..., None].expand_as(rows).to(rows)
    count = weight.sum((1, 2), keepdim=True)
    centred = (rows - (rows * weight).sum((1, 2), keepdim=True) / count.clamp(min=1)) * weight
    variance = centred.square().sum((1, 2), keepdim=True) / (count - 1).clamp(min=1)
    return centred / (variance.clamp(min=1e-24).sqrt() + 1e-6)  # the clamp keeps the gradient finite for silence


def _stream(rows: Tensor | None, mask: Tensor, seconds: Tensor, timeless: list[Tensor]) -> Stream:
    """Rows (B, S, C), then the timeless tokens. Without rows (a model without rhythm) only those."""
    if rows is None:
        mask, seconds = mask[:, :0], seconds[:0]
    tokens = ([] if rows is None else [rows]) + timeless
    return Stream(
        tokens=torch.cat(tokens, dim=1),  # (B, S + n, C)
        mask=torch.cat([mask, mask.new_ones(len(mask), len(timeless))], dim=1),
        times=torch.cat([seconds, seconds.new_full((len(timeless),), math.nan)]),
    )


def _without_padding(batch: Batch) -> Batch:
    """The batch with zeros in every padded row, whatever was there."""

    def clean(rows: Tensor | None, mask: Tensor | None) -> Tensor | None:
        if rows is None:
            return None
        mask = batch.mask if mask is None else mask
        return rows.masked_fill(~(mask if rows.ndim == 2 else mask[..., None]), 0)

    return replace(
        batch,
        semantic=clean(batch.semantic, None),
        color=clean(batch.color, batch.color_mask),
        scene_cut=clean(batch.scene_cut, None),
        pseudo_beats=clean(batch.pseudo_beats, None),
        rhythm=clean(batch.rhythm, batch.rhythm_mask),
    )
