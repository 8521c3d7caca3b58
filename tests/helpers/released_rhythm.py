"""Rhythm targets as released, for comparison with the reference arrays in tests/reference/g_dataset.

Which array each function makes (`y` = channel mean, all at 44.1 kHz; functions without a prefix are of
diff_v2m.features.rhythm):

    onset_strength             onset_strength(y, sr)
    odf_z, peaks               odf_z, odf_peaks of the above
    odf_per_sec                released_odf(y, sr)
    mel_first4, _every100      mel(y, sr)[:4], [::100]
    tempo_first4, _every500    tempogram(y, sr)[:4], [::500]
    *_resized, *_mask          released_resize([frames of each clip of the batch], RHYTHM_DIMS[kind])
    *_normalised               released_normalize(resized)
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diff_v2m.config import MAX_SECONDS
from diff_v2m.features.rhythm import EPS, HOP, odf_peaks, odf_z, onset_strength, scaled_hop


def released_odf(waveform: Tensor, sample_rate: int) -> Tensor:
    """Mono (n,) → (S, 1). A peak at time t belongs to the second round(t), so the last half second is lost.

    Of more than 30 seconds the first is dropped, which shifts all others by a second.
    """
    z = odf_z(onset_strength(waveform, sample_rate))
    curve = np.zeros(math.ceil(len(waveform) / sample_rate), dtype=np.float32)
    peaks = odf_peaks(z)
    second = np.rint(peaks * scaled_hop(HOP, sample_rate) / sample_rate).astype(int)
    inside = second < len(curve)
    np.maximum.at(curve, second[inside], z.numpy()[peaks[inside]])
    return torch.from_numpy(curve[1:] if len(curve) > MAX_SECONDS else curve)[:, None]


def released_resize(clips: Sequence[Tensor], dims: int, *, seconds: int = MAX_SECONDS) -> tuple[Tensor, Tensor]:
    """Frames of a whole batch, each (frames, ch) → values (B, 30, dims), mask (B, 30) f32.

    Clips are zero-padded to the longest (at least 30 frames), then averaged in blocks of longest // 30 frames and
    ch // dims channels, remainders cut off. A clip's values depend on its neighbours in the batch. Raises ValueError
    where the published code crashes (31 to 59 odf frames, for instance).
    """
    longest = max(seconds, *(len(clip) for clip in clips))
    step, columns = longest // seconds, clips[0].shape[1] // dims
    if longest // step > seconds:
        raise ValueError(
            f"{longest} frames make {longest // step} blocks of {step}, not {seconds}: a crash as released"
        )
    values, mask = torch.zeros(len(clips), seconds, dims), torch.zeros(len(clips), seconds)
    for i, clip in enumerate(clips):
        padded = functional.pad(clip, (0, 0, 0, longest - len(clip)))[: seconds * step, : dims * columns]
        values[i] = padded.reshape(seconds, step, dims, columns).mean(dim=(1, 3))
        mask[i, : len(clip) // step] = 1
    return values, mask


def released_normalize(values: Tensor) -> Tensor:
    """(B, 30, dims) → the same, z-scored over each item including its zero padding."""
    mean, std = values.mean(dim=(1, 2), keepdim=True), values.std(dim=(1, 2), keepdim=True)
    return (values - mean) / (std + EPS)
