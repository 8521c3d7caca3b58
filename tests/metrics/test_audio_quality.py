"""Signal quality of audio with known defects."""

import numpy as np
import pytest
from helpers.eval_toys import RATE, music, noise
from scipy.signal import butter, sosfilt

from diff_v2m.metrics import audio_quality
from inference.audio import COPY_DB


def test_silence_is_all_silent_and_has_no_level():
    found = audio_quality.health(np.zeros((2, RATE)), RATE)
    assert (found.duration, found.silence, found.clipping, found.broken) == (1, 1, 0, 0)
    assert (found.true_peak, found.lufs, found.bandwidth, found.noisiness) == (None,) * 4


def test_a_gap_is_counted_and_a_quiet_passage_is_not():
    tune = music(0, 4.0)
    tune[RATE : 2 * RATE] = 0
    assert audio_quality.silent_share(tune[None], RATE) == pytest.approx(0.25, abs=0.03)
    assert audio_quality.silent_share(0.1 * noise(0)[None], RATE) == 0


def test_clipping_is_runs_at_full_scale_and_not_single_peaks():
    sine = np.sin(2 * np.pi * 100 * np.arange(RATE) / RATE)
    assert audio_quality.clipped_share(sine[None] * 0.99) == 0
    clipped = np.clip(sine * 2, -1, 1)
    assert audio_quality.clipped_share(clipped[None]) == pytest.approx(2 / 3, abs=0.02)  # |2 sin| > 1
    peaks = np.zeros((1, 100))
    peaks[0, ::2] = 1.0
    assert audio_quality.clipped_share(peaks) == 0


def test_level_of_a_known_sine():
    sine = 0.5 * np.sin(2 * np.pi * 997 * np.arange(2 * 48000) / 48000)
    found = audio_quality.health(sine[None], 48000)
    assert found.true_peak == pytest.approx(-6.02, abs=0.05)
    assert found.lufs == pytest.approx(-9.03, abs=0.1)  # BS.1770: 997 Hz at full scale, one channel, is −3.01 LUFS


@pytest.mark.parametrize("weights", [[1, 1, 1, 0, 1.41, 1.41], [1, 1, 1, 0, 1, 1, 1.41, 1.41], [1] * 9])
def test_loudness_of_surround_leaves_the_low_effects_out(weights):
    """5.1, 7.1, and nine channels, which have no names. The sine is on one channel at a time."""
    sine = 0.5 * np.sin(2 * np.pi * 997 * np.arange(2 * 48000) / 48000)
    for weight, channel in zip(weights, np.eye(len(weights)), strict=True):
        found = audio_quality.health(sine * channel[:, None], 48000)
        assert found.lufs == (pytest.approx(-9.03 + 10 * np.log10(weight), abs=0.1) if weight else None)


def test_bandwidth_sees_where_a_filter_cut():
    white = noise(0, rate=44100)
    assert audio_quality.bandwidth(white, 44100) > 21000
    low = sosfilt(butter(20, 5000, fs=44100, output="sos"), white)
    assert audio_quality.bandwidth(low, 44100) == pytest.approx(6900, rel=0.15)


def test_noise_of_any_colour_is_noise_and_notes_are_not():
    brown = np.cumsum(noise(0)) - np.cumsum(noise(0)).mean()
    assert audio_quality.noisiness(noise(0), RATE) == pytest.approx(0.53, abs=0.06)
    assert audio_quality.noisiness(brown, RATE) > 0.35
    assert audio_quality.noisiness(music(0), RATE) < 0.2


def test_samples_that_are_no_numbers_are_counted_and_nothing_is_said_of_the_rest():
    broken = music(0)[None].copy()
    broken[0, :640] = np.nan
    broken[0, 640] = np.inf
    found = audio_quality.health(broken, RATE)
    assert found.broken == pytest.approx(641 / broken.size)
    assert found.lufs is None and 0 <= found.silence < 0.3


def test_a_copy_is_found_whatever_its_gain_and_another_tune_is_not():
    from inference.encoders.mel import MelEncoder

    def levels(sound):
        return MelEncoder().embed(sound).frames[:, : MelEncoder.bands]

    tunes = {"a": levels(music(0)), "b": levels(music(1)), "a again": levels(0.5 * music(0)[: 3 * RATE])}
    found = audio_quality.nearest(tunes, tunes)
    assert found["a"][0] == "a again" and found["a"][1] < COPY_DB
    assert found["b"][1] > COPY_DB
    assert audio_quality.nearest({"a": tunes["a"]}, {"a": tunes["a"]}) == {}
