"""Mix the sound of a video with music, in blocks.

`prepare` decodes the sound once into a file, brings the music to its rate and channels, and measures both. `finish`
sets the levels. From then on everything is computed where it is read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diff_v2m.media import SoundStream
from diff_v2m.media.loudness import CEILING_DBTP, Gain, json_number, level_to, limited
from diff_v2m.media.metering import Waveform, blocks, channel_weights, gated_loudness, measured
from diff_v2m.media.writing import PCM_24_STEPS, pcm_24
from diff_v2m.mix.detection import sound_spans, speech_spans
from diff_v2m.mix.ducking import HOLD, LOOK_AHEAD, RELEASE, SLOPE
from diff_v2m.mix.levels import Anchors, Balance, Measured, balance
from diff_v2m.mix.settings import MixSettings
from diff_v2m.mix.spans import Span, seconds_of
from diff_v2m.mix.stored import StoredSound

log = logging.getLogger(__name__)

DIP_HERTZ, DIP_Q = math.sqrt(2000 * 4000), math.sqrt(2000 * 4000) / (4000 - 2000)
CEILING = CEILING_DBTP - 1.0  # dBTP; AAC moves peaks by up to that much

Curve = Callable[[int, int], np.ndarray]  # ratios for the samples [start, stop)


@dataclass(frozen=True)
class Prepared:
    """Both parts at one rate, with the same channels and length, and what was measured of them."""

    original: StoredSound | None  # None: the video has no sound
    music: StoredSound
    band: StoredSound | None  # 2 to 4 kHz of the music; None: it is not dipped
    sample_rate: int
    channels: tuple[str, ...]  # names as in ffmpeg's layouts
    measured: Measured


@dataclass(frozen=True)
class Mix:
    """The mix and what it is made of: in every sample of 24-bit files, `original` and `music` add up to `mix`."""

    original: Waveform | None  # None: the video has no sound
    music: Waveform
    mix: Waveform
    sample_rate: int
    channels: tuple[str, ...]  # names as in ffmpeg's layouts
    measured: Measured
    balance: Balance
    settings: MixSettings
    figures: dict[str, Any]  # for the manifest: LUFS, dBTP, LU, seconds; None is silence

    @property
    def parts(self) -> dict[str, Waveform]:
        """Name → waveform of what there is."""
        parts = {"music": self.music, "original": self.original, "mix": self.mix}
        return {name: part for name, part in parts.items() if part is not None}

    def about(self) -> dict[str, Any]:
        """What the manifest says of the mix. Times in seconds; the gain is in dB, with straight lines between."""
        curve, spans = self.balance.music, self.measured.spans
        return {
            **self.figures,
            "sample_rate": self.sample_rate,
            "channels": list(self.channels),
            "spans": [[round(span.start, 3), round(span.stop, 3)] for span in spans],
            "music_gain": {
                "look_ahead": LOOK_AHEAD,
                "hold": HOLD,
                "release": RELEASE,
                "slope": SLOPE,
                "times": [round(time, 2) for time in curve.times],
                "decibels": [round(gain, 3) for gain in curve.decibels],
            },
        }

    def caption(self) -> str:
        """The mix in one line."""
        loudness = self.figures["anchor_lufs"]
        what = {"speech": "speech at", "sound": "sound at", "programme": "mix at"}[self.figures["anchor"]]
        level = "silence" if loudness is None else f"{what} {loudness:.1f} LUFS"
        return f"{level}, {self.figures['span_share']:.0%} {self.settings.duck_under}".replace("-", "−")


def prepare(
    sound: SoundStream | None,
    music: Waveform,
    music_rate: int,
    duration: float,
    settings: MixSettings,
    folder: Path,
) -> Prepared:
    """Store and measure both parts of a mix of `duration` seconds.

    music: (1 or 2 channels, samples). The mix has the rate of the sound, unless the music's is higher, and the sound's
    channels; the music goes to its front left and right. folder: for temporary files, which stay until it is removed.
    Raises InputError.
    """
    rate = max(sound.sample_rate, music_rate) if sound else music_rate
    names = sound.channels if sound else ("FC",) if music.shape[0] == 1 else ("FL", "FR")
    size, weights = (len(names), round(duration * rate)), channel_weights(names)
    original = StoredSound.write(folder / "original.f32", *size, sound.blocks(rate)) if sound else None
    placed = (_placed(block, names) for block in _resampled(music, music_rate, rate))
    laid_out = StoredSound.write(folder / "music.f32", *size, placed)
    band = StoredSound.write(folder / "band.f32", *size, _band(laid_out, rate)) if settings.dip else None

    powers = dipped = measured(laid_out, rate, weights).powers
    if band is not None:
        share = 10 ** (-settings.dip / 20) - 1
        terms = [(laid_out, _ones), (band, lambda start, stop: np.full(stop - start, share))]
        dipped = measured(_Sum(terms), rate, weights).powers
    own, spans = np.zeros(len(powers)), []
    if original is not None:
        own = measured(original, rate, weights).powers
        if sound.others and not own.any():
            log.warning(
                "%s: the sound track that players choose is silent, further tracks (%d) are not used. To choose one: "
                "ffmpeg -i VIDEO -map 0 -c copy -disposition:a 0 -disposition:a:1 default OUTPUT",
                sound.tracks.path,
                sound.others,
            )
        if settings.duck_under == "sound":
            spans = sound_spans(own)
        else:
            spans = speech_spans(_listened_to(original, names), rate, gated_loudness(own))
    whole = [Span(span.start, min(span.stop, duration)) for span in spans if span.start < duration]
    return Prepared(original, laid_out, band, rate, names, Measured(own, powers, dipped, tuple(whole), duration))


def finish(clips: Sequence[Prepared], settings: MixSettings) -> list[Mix]:
    """The mixes at their levels. Several clips are an album: they get the same gains, as if they were one."""
    anchors = Anchors.of([clip.measured for clip in clips])
    balances = [balance(clip.measured, settings, anchors) for clip in clips]
    sums = [
        _Sum([*_original(clip, chosen), *_music(clip, chosen)]) for clip, chosen in zip(clips, balances, strict=True)
    ]
    weights = [channel_weights(clip.channels) for clip in clips]
    by_spans = balances[0].anchor == settings.duck_under and any(clip.measured.spans for clip in clips)
    inside = np.concatenate([clip.measured.inside for clip in clips]) if by_spans else None

    def anchor(powers: np.ndarray, gain_db: float = 0.0) -> float:
        return gated_loudness(powers * 10 ** (gain_db / 10), inside)

    if len(clips) == 1:
        gains = [
            level_to(
                sums[0],
                clips[0].sample_rate,
                settings.target,
                measure=lambda meter, gain_db: anchor(meter.powers, gain_db),
                weights=weights[0],
                ceiling_dbtp=CEILING,
            )
        ]
    else:
        rates = [clip.sample_rate for clip in clips]
        powers = [measured(*each).powers for each in zip(sums, rates, weights, strict=True)]
        missing = settings.target - anchor(np.concatenate(powers))
        trim = missing if math.isfinite(missing) else 0.0
        gains = [limited(mix, rate, trim, own, CEILING) for mix, rate, own in zip(sums, rates, weights, strict=True)]
    return [_mix(*each, settings) for each in zip(clips, balances, gains, strict=True)]


def _mix(clip: Prepared, chosen: Balance, levelled: tuple[Gain, float], settings: MixSettings) -> Mix:
    gain, peak = levelled
    music = _Rounded(_Sum(_music(clip, chosen), gain))
    original = _Rounded(_Sum(_original(clip, chosen), gain)) if clip.original else None
    mix = music if original is None else _Sum([(original, _ones), (music, _ones)])

    heard, rate, weights = clip.measured, clip.sample_rate, channel_weights(clip.channels)
    inside = heard.inside if heard.spans else None
    silence = np.zeros(len(heard.music))
    powers = {
        "mix": measured(mix, rate, weights).powers,
        "music": measured(music, rate, weights).powers,
        "original": silence if original is None else measured(original, rate, weights).powers,
    }
    under = gated_loudness(powers["original"], inside) - gated_loudness(powers["music"], inside)
    figures = {
        "anchor": chosen.anchor,
        "target_lufs": settings.target,
        "anchor_lufs": gated_loudness(powers["mix"], inside if chosen.anchor == settings.duck_under else None),
        **{f"{name}_lufs": gated_loudness(values) for name, values in powers.items()},
        "true_peak": peak,
        "music_under": under,
        "original_lufs_before": gated_loudness(heard.original),
        "music_lufs_before": gated_loudness(heard.music),
        "span_share": seconds_of(heard.spans) / heard.duration,
    }
    known = {name: json_number(value) if isinstance(value, float) else value for name, value in figures.items()}
    return Mix(original, music, mix, rate, clip.channels, heard, chosen, settings, known)


def _original(clip: Prepared, chosen: Balance) -> list[tuple[Waveform, Curve]]:
    ratio = 10 ** (chosen.original_db / 20)
    return [(clip.original, lambda start, stop: np.full(stop - start, ratio))] if clip.original else []


def _music(clip: Prepared, chosen: Balance) -> list[tuple[Waveform, Curve]]:
    rate = clip.sample_rate

    def gain(start: int, stop: int) -> np.ndarray:
        return chosen.music(start, stop, rate)

    def of_band(start: int, stop: int) -> np.ndarray:
        return gain(start, stop) * (chosen.dip(start, stop, rate) - 1)

    return [(clip.music, gain), *([(clip.band, of_band)] if clip.band else [])]


def _ones(start: int, stop: int) -> np.ndarray:
    return np.ones(stop - start)


class _Sum:
    """Sounds of equal shape × their gains, added up where they are read: a `Waveform`."""

    def __init__(self, terms: Sequence[tuple[Waveform, Curve]], gain: Curve = _ones):
        self._terms, self._gain, self.shape = terms, gain, terms[0][0].shape

    def __getitem__(self, where: tuple[slice, slice]) -> np.ndarray:
        channels, samples = where
        start, stop, _ = samples.indices(self.shape[1])
        stop = max(start, stop)
        whole = sum(sound[:, start:stop] * gain(start, stop) for sound, gain in self._terms)
        return (whole * self._gain(start, stop))[channels].astype(np.float32)


class _Rounded:
    """A sound at the steps of a 24-bit wav: a `Waveform`."""

    def __init__(self, sound: Waveform):
        self._sound, self.shape = sound, sound.shape

    def __getitem__(self, where: tuple[slice, slice]) -> np.ndarray:
        return (pcm_24(self._sound[where]) / PCM_24_STEPS).astype(np.float32)


# ---------------------------------------------------------------------------------------------------- both parts


def _resampled(audio: Waveform, rate: int, target: int) -> Iterator[np.ndarray]:
    import soxr

    if rate == target:
        yield from blocks(audio)
        return
    channels = audio.shape[0]
    resampler = soxr.ResampleStream(rate, target, channels, dtype="float32")
    for block in blocks(audio):
        yield resampler.resample_chunk(np.ascontiguousarray(block.T)).T
    yield resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True).T


def _placed(music: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Mono or stereo music in front left and right of a layout; its mean where the layout has no such channels."""
    result = np.zeros((len(names), music.shape[1]), np.float32)
    if {"FL", "FR"} <= set(names):
        result[[names.index("FL"), names.index("FR")]] = music
    else:
        result[0] = music.mean(axis=0)
    return result


def _band(music: Waveform, sample_rate: int) -> Iterator[np.ndarray]:
    """2 to 4 kHz of the music: what a peaking equaliser takes away, at 0 dB in the middle of the band."""
    from scipy.signal import iirpeak, lfilter

    numerator, denominator = iirpeak(DIP_HERTZ, DIP_Q, sample_rate)
    state = np.zeros((music.shape[0], 2))
    for block in blocks(music):
        filtered, state = lfilter(numerator, denominator, block, axis=1, zi=state)
        yield filtered


def _listened_to(sound: Waveform, names: Sequence[str]) -> Iterator[np.ndarray]:
    """What the detector gets: the mean of the channels; of surround, where speech is in the centre, that too."""
    sides = [number for number, name in enumerate(names) if name != "FC" and not name.startswith("LFE")]
    for block in blocks(sound):
        if "FC" in names and len(sides) > 1:
            yield np.stack([block[names.index("FC")], block[sides].mean(axis=0)])
        else:
            yield block.mean(axis=0, keepdims=True)
