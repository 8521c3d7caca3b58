"""Waveform → rhythm target: what the rhythm predictor learns to see in the picture, one row a second.

Four kinds, named by the dataset JSON's `rhythm_type`:

    odf     onset detection function, the strongest onset of each second        (S, 1)
    mel     mel-spectrogram in dB, averaged                                     (S, 16)
    tempo   tempogram (local autocorrelation of the onset strength), averaged   (S, 16)
    beat    scene cuts + pseudo beats: read off the picture, no audio           (S, 1)

`rhythm_target` is the corrected road: one clip at a time, row s is the second [s, s + 1), the caller has trimmed the
audio to the window. The functions called `released_*`, and `odf(as_released=True)`, are the published arithmetic, kept
so that numbers can be compared; training does not use them. Which array of the published reference is made by what
(folder g_dataset; `y` = channel mean, all at 44.1 kHz):

    onset_strength             onset_strength(y, sr)
    odf_z, peaks               odf_z, odf_peaks of the above
    odf_per_sec                odf(y, sr, as_released=True)
    mel_first4, _every100      mel(y, sr)[:4], [::100]
    tempo_first4, _every500    tempogram(y, sr)[:4], [::500]
    *_resized, *_mask          released_resize([frames of each clip of the batch], RHYTHM_DIMS[kind])
    *_normalised               released_normalize(resized)

Frame sizes are defined at 44.1 kHz (hop 512 samples = 11.6 ms). At another rate the hop is the same time rounded to
whole samples (16 kHz: 186) and the analysis window the same multiple of it, so that the resolution in time, which the
target is about, stays put. Times are computed from the rounded hop: nothing drifts.

Everything here is torch and scipy, not librosa: its first onset call compiles for up to a minute on a slow machine, in
every fresh environment and data worker.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torchaudio.functional as audio_functional
from scipy.signal import find_peaks
from torch import Tensor
from torch.nn import functional

from diff_v2m.common.errors import InputError, ignore_warnings
from diff_v2m.config import MAX_SECONDS, RHYTHM_DIMS

RHYTHM_VERSION = 1  # raised whenever the same sound would give another target; targets kept on disk are then refused

EPS = 1e-6  # added to every standard deviation, as released
PROMINENCE = 0.05  # of an onset peak, in standard deviations of the onset strength
TEMPO_FRAMES = 384  # lags of the tempogram, in frames of hop 128
N_FFT, HOP, TEMPO_HOP, MELS = 2048, 512, 128, 128  # at 44.1 kHz


def rhythm_target(
    kind: str,
    waveform: Tensor | None,
    sample_rate: int,
    *,
    scene_cut: Tensor | None = None,
    pseudo_beats: Tensor | None = None,
) -> Tensor:
    """The unnormalised target of one clip: (S, r) f32, S = ceil(duration), r = RHYTHM_DIMS[kind].

    waveform (n,) mono in [-1, 1] for odf, mel, tempo; scene_cut and pseudo_beats (S,) for beat.
    """
    if kind == "beat":
        return (torch.as_tensor(scene_cut).float() + torch.as_tensor(pseudo_beats).float())[:, None]
    if kind == "odf":
        return odf(waveform, sample_rate)
    if kind == "mel":
        return to_rows(mel(waveform, sample_rate), len(waveform), sample_rate, hop=scaled_hop(HOP, sample_rate))
    if kind == "tempo":
        hop = scaled_hop(TEMPO_HOP, sample_rate)
        return to_rows(tempogram(waveform, sample_rate), len(waveform), sample_rate, hop=hop)
    raise InputError(f"rhythm_type: unknown kind {kind!r}, expected one of {', '.join(RHYTHM_DIMS)}")


def to_mono(audio: Tensor) -> Tensor:
    """(ch, n) → (n,): the channel mean, as released.

    Corrected: where the channels cancel (anti-phase stereo: the mean has less than a hundredth of their power), the
    loudest channel, since music that is heard must have a rhythm.
    """
    mean = audio.mean(dim=0)
    power = audio.square().mean(dim=1)
    if mean.square().mean() < 0.01 * power.mean():
        return audio[power.argmax()]
    return mean


# ---------------------------------------------------------------------------------------------------- onsets


def onset_strength(waveform: Tensor, sample_rate: int, *, base_hop: int = HOP) -> Tensor:
    """(n,) → (frames,) f32 ≥ 0: rise of the log-mel spectrum, averaged over bands (librosa's definition).

    128 Slaney mel bands of the power spectrum, dB with a floor 80 below the loudest, difference to the frame before,
    half-wave rectified, mean. A window sees an onset half a window early; the left padding puts it back in time, so
    that frame i stands for i · hop / sample_rate.
    """
    hop = scaled_hop(base_hop, sample_rate)
    n_fft = hop * (N_FFT // base_hop)
    power = _mel_power(waveform, sample_rate, n_fft, hop, scale="slaney", pad_mode="constant")  # (128, frames)
    level = 10 * torch.log10(power.clamp(min=1e-10))
    level = torch.maximum(level, level.max() - 80)
    rise = (level[:, 1:] - level[:, :-1]).clamp(min=0).mean(dim=0)
    return functional.pad(rise, (1 + N_FFT // (2 * base_hop), 0))[: level.shape[1]]


def odf_z(strength: Tensor) -> Tensor:
    """(frames,) → (frames,): z-score over the clip, population standard deviation."""
    return (strength - strength.mean()) / (strength.std(correction=0) + EPS)


def odf_peaks(z: Tensor) -> np.ndarray:
    """Frame numbers of the local maxima that stand out by at least PROMINENCE standard deviations."""
    return find_peaks(z.numpy(), prominence=PROMINENCE)[0]


def odf(waveform: Tensor, sample_rate: int, *, as_released: bool = False) -> Tensor:
    """Mono (n,) → (S, 1) f32: the height of the strongest onset of each second in standard deviations, else 0.

    Corrected: a peak at time t belongs to row floor(t), and no row is ever dropped.
    as_released: it goes to row round(t), so row i covers i ± 0.5 s and the last half second is lost; and of more than
    30 rows the FIRST is dropped, which shifts all others by a second (reference array `odf_per_sec`).
    """
    z = odf_z(onset_strength(waveform, sample_rate))
    rows = np.zeros(_seconds(len(waveform), sample_rate), dtype=np.float32)
    peaks = odf_peaks(z)
    times = peaks * scaled_hop(HOP, sample_rate) / sample_rate
    index = (np.rint(times) if as_released else np.floor(times)).astype(int)
    inside = index < len(rows)  # rint: the last half second has no row
    np.maximum.at(rows, index[inside], z.numpy()[peaks[inside]])
    if as_released and len(rows) > MAX_SECONDS:
        rows = rows[1:]
    return torch.from_numpy(rows)[:, None]


# ---------------------------------------------------------------------------------- spectra, frame by frame


def mel(waveform: Tensor, sample_rate: int) -> Tensor:
    """Mono (n,) → (frames, 128) f32: mel power spectrum (HTK scale) in dB, floor −100 dB, one frame a hop."""
    hop = scaled_hop(HOP, sample_rate)
    power = _mel_power(waveform, sample_rate, hop * (N_FFT // HOP), hop, scale="htk", pad_mode="reflect")
    return 10 * torch.log10(power.clamp(min=1e-10)).T


def tempogram(waveform: Tensor, sample_rate: int) -> Tensor:
    """Mono (n,) → (frames, 384) f32: autocorrelation of the onset strength around each frame, lag 0 first.

    librosa's definition: hop 128, Hann window over 384 frames, ramps to zero beyond both ends, each frame divided by
    its largest value (frames without any onset stay zero).
    """
    strength = onset_strength(waveform, sample_rate, base_hop=TEMPO_HOP)
    ramp = torch.linspace(0, 1, TEMPO_FRAMES // 2 + 1)[:-1]
    padded = torch.cat([ramp * strength[0], strength, ramp.flip(0) * strength[-1]])
    frames = padded.unfold(0, TEMPO_FRAMES, 1)[: len(strength)] * torch.hann_window(TEMPO_FRAMES)
    spectrum = torch.fft.rfft(frames, n=2 * TEMPO_FRAMES)
    correlation = torch.fft.irfft(spectrum.abs().square(), n=2 * TEMPO_FRAMES)[:, :TEMPO_FRAMES]
    peak = correlation.abs().amax(dim=1, keepdim=True)
    return correlation / torch.where(peak > torch.finfo(peak.dtype).tiny, peak, torch.ones_like(peak))


def to_rows(frames: Tensor, samples: int, sample_rate: int, *, hop: int, dims: int = 16) -> Tensor:
    """(frames, ch) → (S, dims): mean over the frames whose time lies in [s, s + 1) and over blocks of channels.

    Corrected: as released, the block length followed from the longest clip of the batch and was never quite a second;
    here a clip's rows depend on the clip alone.
    """
    count = _seconds(samples, sample_rate)
    columns = frames.shape[1] // dims
    blocks = frames[:, : columns * dims].unflatten(1, (dims, columns)).mean(dim=2)  # (frames, dims)
    index = (torch.arange(len(blocks)) * hop // sample_rate).clamp(max=count - 1)
    rows = torch.zeros(count, dims).index_add_(0, index, blocks)
    hits = torch.bincount(index, minlength=count)
    rows = rows / hits.clamp(min=1)[:, None]
    # A last second shorter than a hop may own no frame: it sounds like the frame before it.
    return torch.where(hits[:, None] > 0, rows, blocks[-1])


# ----------------------------------------------------------------------------------- the published reduction


def released_resize(clips: Sequence[Tensor], dims: int, *, rows: int = MAX_SECONDS) -> tuple[Tensor, Tensor]:
    """As released: frames of a whole batch, each (frames, ch), → values (B, 30, dims), mask (B, 30) f32.

    Clips are zero-padded to the longest (at least 30 frames), then block means with block sizes longest // 30 and
    ch // dims, remainders cut off; so a clip's rows depend on its neighbours in the batch. Reference arrays
    `*_resized`, `*_mask`. Raises ValueError where the published code crashes (31 to 59 odf rows, for instance).
    """
    longest = max(rows, *(len(clip) for clip in clips))
    step, columns = longest // rows, clips[0].shape[1] // dims
    if longest // step > rows:
        raise ValueError(f"{longest} frames make {longest // step} blocks of {step}, not {rows}: as released, a crash")
    values, mask = torch.zeros(len(clips), rows, dims), torch.zeros(len(clips), rows)
    for i, clip in enumerate(clips):
        padded = functional.pad(clip, (0, 0, 0, longest - len(clip)))[: rows * step, : dims * columns]
        values[i] = padded.reshape(rows, step, dims, columns).mean(dim=(1, 3))
        mask[i, : len(clip) // step] = 1
    return values, mask


def released_normalize(values: Tensor) -> Tensor:
    """As released: (B, 30, dims) → the same, z-scored over each item including its zero padding (`*_normalised`)."""
    mean, std = values.mean(dim=(1, 2), keepdim=True), values.std(dim=(1, 2), keepdim=True)
    return (values - mean) / (std + EPS)


# --------------------------------------------------------------------------------------------------- helpers


def scaled_hop(base_hop: int, sample_rate: int) -> int:
    """A hop given in samples at 44.1 kHz → the same time in whole samples at `sample_rate`."""
    return max(1, round(base_hop * sample_rate / 44100))


def _seconds(samples: int, sample_rate: int) -> int:
    """ceil(duration): rows that a clip of so many samples has."""
    return -(-samples // sample_rate)


def _mel_power(waveform: Tensor, sample_rate: int, n_fft: int, hop: int, *, scale: str, pad_mode: str) -> Tensor:
    """(n,) → (128, frames): power spectrum in mel bands, frame i centred on sample i · hop."""
    waveform = functional.pad(waveform, (0, max(0, n_fft - len(waveform))))  # too short to reflect: silence follows
    spectrum = torch.stft(
        waveform, n_fft, hop, window=torch.hann_window(n_fft), center=True, pad_mode=pad_mode, return_complex=True
    )
    return _mel_bands(sample_rate, n_fft, scale).T @ spectrum.abs().square()


@lru_cache(maxsize=8)
def _mel_bands(sample_rate: int, n_fft: int, scale: str) -> Tensor:
    """(n_fft // 2 + 1, 128) triangular bands; the Slaney ones have unit area, as in librosa."""
    with ignore_warnings():  # the lowest HTK bands fall between two bins: known, and as released
        return audio_functional.melscale_fbanks(
            n_fft // 2 + 1,
            0.0,
            sample_rate / 2,
            MELS,
            sample_rate,
            norm="slaney" if scale == "slaney" else None,
            mel_scale=scale,
        )
