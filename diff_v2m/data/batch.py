"""`Batch`: a mini-batch of clips, which data loading makes and the model receives.

Shapes: B clips, S seconds (padded to the window, usually 30), N latent frames, r rows a second (1 as released; see
`rows_per_second`). Index s describes the second [s, s + 1). Seconds beyond a clip's end are zero, and False in `mask`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass
class Batch:
    """Features of B clips. Audio or latents and the rhythm target are there in training only."""

    semantic: Tensor  # (B, S, 512) float32: CLIP embeddings
    color: Tensor | None  # (B, S, 3072) float32: RGB-uv histograms, each second sums to 1
    scene_cut: Tensor  # (B, S · r) int64: 1 if the row contains a cut
    pseudo_beats: Tensor  # (B, S · r) float32: peaks of the frame difference, 0..1
    mask: Tensor  # (B, S) bool: True within the clip
    class_label: Tensor  # (B,) int64: kind of video, 0..2
    seconds_start: Tensor  # (B,) float32: where the window starts in the clip
    seconds_total: Tensor  # (B,) float32: length of the clip
    names: list[str]  # one per clip
    rhythm: Tensor | None = None  # (B, S · r, dim) float32: target, from the clip's own soundtrack, not standardised
    rhythm_mask: Tensor | None = None  # (B, S · r) bool; None: like `mask`
    audio: Tensor | None = None  # (B, channels, samples) float32, or frames of scores (B, rows, N)
    latents: Tensor | None = None  # (B, 64, N) float32: precomputed latents instead of audio
    autoencoder: str | None = None  # fingerprint of the one that made `latents`
    skipped: int = 0  # unreadable clips that are missing from the batch
    padding: bool = False  # see `padding_batch`
    color_mask: Tensor | None = None  # (B, S) bool, where colour is shorter; None: like `mask`
    motion: Tensor | None = None  # (B, S · r) float32: level of motion, 0..1; None at one row a second
    shots: Tensor | None = None  # (B, S · r, 12) float32: features of the shot, see `shot_rows`; None likewise
    wanted_rhythm: Tensor | None = None  # (B, S) float32: instead of the predicted one; NaN: as predicted
    accents: Tensor | None = None  # (B, S · r) float32: how much the rhythm of a row is raised, 0..1
    grid: Tensor | None = None  # (B, N, 13) float32: beat, bar and mode at each latent frame; see `grid_rows`

    def __len__(self) -> int:
        """B, the number of clips in the tensors."""
        return len(self.semantic)

    @property
    def rows_per_second(self) -> int:
        """r, of cuts, pseudo beats, motion and rhythm."""
        return self.scene_cut.shape[1] // self.mask.shape[1]

    def padding_batch(self) -> Batch:
        """The same clips with zero weight.

        A process without clips uses it, because every process must run each step.
        """
        return replace(self, padding=True)

    def to(self, device: torch.device | str) -> Batch:
        """The batch with every tensor on `device`. Copies to a GPU are asynchronous."""
        ahead = torch.device(device).type == "cuda"  # a copy to the CPU must block, or it is read too early
        return self._each(lambda tensor: tensor.to(device, non_blocking=ahead))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from which copies to a GPU overlap with computation."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(v) for name, v in values.items() if isinstance(v, Tensor)})
