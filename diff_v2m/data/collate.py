"""Items → Batch, padded to the 30-second window."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diff_v2m.common.errors import InputError
from diff_v2m.config import MAX_SECONDS
from diff_v2m.data.batch import Batch
from diff_v2m.data.crops import Item
from diff_v2m.features.video_features import VideoFeatures


def collate(items: Sequence[Item], seconds: int = MAX_SECONDS) -> Batch:
    """Items → Batch; features are padded with zeros to so many seconds.

    Broken items are skipped, not replaced. If all are broken, the first one makes a padding batch.
    Raises InputError if only some clips have colour, rhythm, audio or latents, or if latents are of different
    autoencoders.
    """
    whole = [item for item in items if not item.broken]
    present = whole or items[:1]
    rate = present[0].rows_per_second
    rows = [item.features.rows(rate) for item in present]
    rhythm = _padded([item.rhythm for item in present], present, "rhythm target", seconds, rate)
    mask = torch.zeros(len(present), seconds, dtype=torch.bool)
    for row, item in zip(mask, present, strict=True):
        row[: len(item.features.semantic)] = True
    makers = {item.autoencoder for item in present}
    if len(makers) > 1:
        raise InputError(f"latents of {len(makers)} autoencoders in one batch ({present[0].name}, …): encode again")
    return Batch(
        semantic=_padded([item.features.semantic for item in present], present, "semantics", seconds),
        color=_padded([item.features.color for item in present], present, "colour", seconds),
        scene_cut=_padded([row.scene_cut for row in rows], present, "scene cuts", seconds, rate),
        pseudo_beats=_padded([row.pseudo_beats for row in rows], present, "pseudo beats", seconds, rate),
        mask=mask,
        class_label=torch.tensor([item.class_label for item in present]),
        seconds_start=torch.tensor([float(item.seconds_start) for item in present]),
        seconds_total=torch.tensor([float(item.seconds_total) for item in present]),
        names=[item.name for item in present],
        skipped=len(items) - len(present),
        padding=not whole,
        rhythm=rhythm,
        rhythm_mask=None if rhythm is None else mask.repeat_interleave(rate, dim=1),
        audio=_stacked([item.audio for item in present], present, "audio"),
        latents=_stacked([item.latents for item in present], present, "latents"),
        autoencoder=makers.pop(),
        motion=_padded([row.motion for row in rows], present, "motion", seconds, rate),
        shots=_padded([row.shots for row in rows], present, "shots", seconds, rate),
        grid=_stacked([item.grid for item in present], present, "beat grid"),
        **_direction([item.features for item in present], mask, rate),
    )


def _direction(features: Sequence[VideoFeatures], mask: Tensor, rate: int) -> dict[str, Tensor]:
    """`wanted_rhythm` and `accents` of a Batch, if a clip has any; mask (B, S)."""
    if all(clip.wanted_rhythm is None and clip.accents is None for clip in features):
        return {}
    wanted = torch.full(mask.shape, math.nan)
    accents = torch.zeros(len(features), mask.shape[1] * rate)
    for row, clip in enumerate(features):
        if clip.wanted_rhythm is not None:
            wanted[row, : len(clip)] = torch.from_numpy(clip.wanted_rhythm)
        accents[row, : len(clip) * rate] = torch.from_numpy(clip.accent_rows(rate))
    return {"wanted_rhythm": wanted, "accents": accents}


def feature_batch(
    features: Sequence[VideoFeatures],
    names: Sequence[str],
    class_labels: Sequence[int],
    seconds_total: Sequence[float] | None = None,
    seconds_start: Sequence[float] | None = None,
    *,
    rows_per_second: int = 1,
    grids: Sequence[Tensor] | None = None,
) -> Batch:
    """Batch for generation: no audio, no rhythm. Each of `features` is one window, usually of at most 30 seconds.

    seconds_total: length of the whole clip (default: of the window, rounded up); seconds_start: where the window
    begins in it (default 0). rows_per_second: of cuts and motion. grids: rows of the beat grid, each (N, 13).
    """
    seconds_total = seconds_total or [math.ceil(window.duration - 1e-6) for window in features]
    seconds_start = seconds_start or [0] * len(features)
    columns = zip(names, features, class_labels, seconds_start, seconds_total, strict=True)
    items = [Item(*values, rows_per_second=rows_per_second) for values in columns]
    for item, grid in zip(items, grids or [None] * len(items), strict=True):
        item.grid = grid
    return collate(items, max(MAX_SECONDS, *(len(window) for window in features)))


def _padded(
    streams: Sequence[np.ndarray | Tensor | None], items: Sequence[Item], what: str, seconds: int, rate: int = 1
) -> Tensor | None:
    """(B, seconds · rate, …), zeros after the last row of each; None if no clip has the stream."""
    if not _all_or_none(streams, items, what):
        return None
    first = torch.as_tensor(streams[0])
    padded = torch.zeros(len(streams), seconds * rate, *first.shape[1:], dtype=first.dtype)
    for target, stream in zip(padded, streams, strict=True):
        if len(stream) > seconds * rate:
            raise ValueError(f"{len(stream) // rate} seconds of {what} in one window of {seconds}: cut it first")
        target[: len(stream)] = torch.as_tensor(stream)
    return padded


def _stacked(tensors: Sequence[Tensor | None], items: Sequence[Item], what: str) -> Tensor | None:
    return torch.stack(list(tensors)) if _all_or_none(tensors, items, what) else None


def _all_or_none(values: Sequence, items: Sequence[Item], what: str) -> bool:
    missing = [item.name for item, value in zip(items, values, strict=True) if value is None]
    if missing and len(missing) < len(items):
        raise InputError(f"clip {missing[0]} has no {what}, others in its batch do: give all clips of a run the same")
    return not missing
