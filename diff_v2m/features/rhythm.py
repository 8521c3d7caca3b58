"""Waveform → rhythm target of the rhythm predictor, per second.

Four kinds, named by the dataset JSON's `rhythm_type`:

    odf     onset detection function: the strongest onset of each second        (S, 1)
    mel     mel-spectrogram in dB, averaged                                     (S, 16)
    tempo   tempogram (local autocorrelation of the onset strength), averaged   (S, 16)
    beat    scene cuts + pseudo beats of the video, without audio               (S, 1)

Corrected: one clip at a time, index s is the second [s, s + 1). The caller has trimmed the audio to the window. As
released, targets depended on the longest clip of the batch.

Frame sizes are defined at 44.1 kHz (hop 512 samples = 11.6 ms). At another sample rate the hop has the same duration
rounded to whole samples (16 kHz: 186), and the window is the same multiple of it, so the time resolution stays. Times
are computed from the rounded hop and do not drift.

Written in torch and scipy: the first onset call of librosa compiles for up to a minute in every data worker.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diff_v2m.common.errors import InputError, ignore_warnings
from diff_v2m.config import RHYTHM_DIMS

RHYTHM_VERSION = 1  # raise it whenever the same audio gives another target: stored targets are then refused

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
    rows_per_second: int = 1,
) -> Tensor:
    """The unnormalised target of one clip: (S, r) f32, S = ceil(duration), r = RHYTHM_DIMS[kind].

    waveform (n,) mono in [-1, 1] for odf, mel, tempo; scene_cut and pseudo_beats (S,) for beat. odf and beat may have
    more rows a second: (S · rows_per_second, 1).
    """
    if kind == "beat":
        return (torch.as_tensor(scene_cut).float() + torch.as_tensor(pseudo_beats).float())[:, None]
    if kind == "odf":
        return odf(waveform, sample_rate, rows_per_second)
    if kind == "mel":
        hop = scaled_hop(HOP, sample_rate)
        return average_seconds(mel(waveform, sample_rate), len(waveform), sample_rate, hop=hop)
    if kind == "tempo":
        hop = scaled_hop(TEMPO_HOP, sample_rate)
        return average_seconds(tempogram(waveform, sample_rate), len(waveform), sample_rate, hop=hop)
    raise InputError(f"rhythm_type: unknown kind {kind!r}, expected one of {', '.join(RHYTHM_DIMS)}")


def to_mono(audio: Tensor) -> Tensor:
    """(ch, n) → (n,): the channel mean, as released.

    Corrected: the loudest channel where the channels cancel (the mean has less than a hundredth of their power), since
    audible music has a rhythm.
    """
    mean = audio.mean(dim=0)
    power = audio.square().mean(dim=1)
    if mean.square().mean() < 0.01 * power.mean():
        return audio[power.argmax()]
    return mean


# ---------------------------------------------------------------------------------------------------- onsets


def onset_strength(waveform: Tensor, sample_rate: int, *, base_hop: int = HOP) -> Tensor:
    """(n,) → (frames,) f32 ≥ 0: rise of the log-mel spectrum, averaged over bands (librosa's definition).

    128 Slaney mel bands of the power spectrum, dB with a floor 80 below the loudest, difference to the previous frame,
    half-wave rectified, mean. A window contains an onset half a window early; the left padding shifts it back, so frame
    i is at i · hop / sample_rate.
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


def odf_peaks(z: Tensor, prominence: float = PROMINENCE) -> np.ndarray:
    """Frame numbers of the local maxima that stand out by at least so many standard deviations."""
    from scipy.signal import find_peaks  # takes a second to import

    return find_peaks(z.numpy(), prominence=prominence)[0]


def odf(waveform: Tensor, sample_rate: int, rows_per_second: int = 1) -> Tensor:
    """Mono (n,) → (S, 1) f32: height of the strongest onset of each second in standard deviations, 0 if there is none.

    With more rows a second: (S · rows_per_second, 1), the strongest onset of each row.

    Corrected: a peak at time t belongs to the second floor(t), and no second is dropped. As released, the last half
    second of a clip had no onsets, and a clip of more than 30 seconds lost its first.
    """
    z = odf_z(onset_strength(waveform, sample_rate))
    curve = np.zeros(_seconds(len(waveform), sample_rate) * rows_per_second, dtype=np.float32)
    peaks = odf_peaks(z)
    row = np.floor(peaks * scaled_hop(HOP, sample_rate) * rows_per_second / sample_rate).astype(int)
    inside = row < len(curve)
    np.maximum.at(curve, row[inside], z.numpy()[peaks[inside]])
    return torch.from_numpy(curve)[:, None]


# ---------------------------------------------------------------------------------- spectra, frame by frame


def mel(waveform: Tensor, sample_rate: int) -> Tensor:
    """Mono (n,) → (frames, 128) f32: mel power spectrum (HTK scale) in dB, floor −100 dB, one frame per hop."""
    hop = scaled_hop(HOP, sample_rate)
    power = _mel_power(waveform, sample_rate, hop * (N_FFT // HOP), hop, scale="htk", pad_mode="reflect")
    return 10 * torch.log10(power.clamp(min=1e-10)).T


def tempogram(waveform: Tensor, sample_rate: int) -> Tensor:
    """Mono (n,) → (frames, 384) f32: autocorrelation of the onset strength around each frame, lag 0 first.

    librosa's definition: hop 128, Hann window over 384 frames, ramps to zero beyond both ends, each frame divided by
    its largest value. Frames without an onset stay zero.
    """
    strength = onset_strength(waveform, sample_rate, base_hop=TEMPO_HOP)
    ramp = torch.linspace(0, 1, TEMPO_FRAMES // 2 + 1)[:-1]
    padded = torch.cat([ramp * strength[0], strength, ramp.flip(0) * strength[-1]])
    frames = padded.unfold(0, TEMPO_FRAMES, 1)[: len(strength)] * torch.hann_window(TEMPO_FRAMES)
    spectrum = torch.fft.rfft(frames, n=2 * TEMPO_FRAMES)
    correlation = torch.fft.irfft(spectrum.abs().square(), n=2 * TEMPO_FRAMES)[:, :TEMPO_FRAMES]
    peak = correlation.abs().amax(dim=1, keepdim=True)
    return correlation / torch.where(peak > torch.finfo(peak.dtype).tiny, peak, torch.ones_like(peak))


def average_seconds(frames: Tensor, samples: int, sample_rate: int, *, hop: int, dims: int = 16) -> Tensor:
    """(frames, ch) → (S, dims): mean over the frames within [s, s + 1) and over blocks of channels.

    Corrected: the result depends on the clip alone. As released, the block length came from the longest clip of the
    batch and was never exactly a second.
    """
    count = _seconds(samples, sample_rate)
    columns = frames.shape[1] // dims
    blocks = frames[:, : columns * dims].unflatten(1, (dims, columns)).mean(dim=2)  # (frames, dims)
    second = (torch.arange(len(blocks)) * hop // sample_rate).clamp(max=count - 1)
    sums = torch.zeros(count, dims).index_add_(0, second, blocks)
    hits = torch.bincount(second, minlength=count)
    means = sums / hits.clamp(min=1)[:, None]
    # A last second shorter than a hop may have no frame: it repeats the last frame.
    return torch.where(hits[:, None] > 0, means, blocks[-1])


# --------------------------------------------------------------------------------------------------- helpers


def scaled_hop(base_hop: int, sample_rate: int) -> int:
    """A hop in samples at 44.1 kHz → the same duration in whole samples at `sample_rate`."""
    return max(1, round(base_hop * sample_rate / 44100))


def _seconds(samples: int, sample_rate: int) -> int:
    """S = ceil(duration) of a clip with so many samples."""
    return -(-samples // sample_rate)


def _mel_power(waveform: Tensor, sample_rate: int, n_fft: int, hop: int, *, scale: str, pad_mode: str) -> Tensor:
    """(n,) → (128, frames): power spectrum in mel bands, frame i centred on sample i · hop."""
    waveform = functional.pad(
        waveform, (0, max(0, n_fft - len(waveform)))
    )  # reflection needs a whole window: pad with silence
    spectrum = torch.stft(
        waveform, n_fft, hop, window=torch.hann_window(n_fft), center=True, pad_mode=pad_mode, return_complex=True
    )
    return _mel_bands(sample_rate, n_fft, scale).T @ spectrum.abs().square()


@lru_cache(maxsize=8)
def _mel_bands(sample_rate: int, n_fft: int, scale: str) -> Tensor:
    """(n_fft // 2 + 1, 128) triangular bands; the Slaney ones have unit area, as in librosa."""
    import torchaudio.functional as audio_functional

    with ignore_warnings():  # the lowest HTK bands lie between two bins, as released
        return audio_functional.melscale_fbanks(
            n_fft // 2 + 1,
            0.0,
            sample_rate / 2,
            MELS,
            sample_rate,
            norm="slaney" if scale == "slaney" else None,
            mel_scale=scale,
        )
