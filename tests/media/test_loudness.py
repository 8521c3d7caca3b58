"""Loudness: −16 LUFS and −1 dBTP on signals from silence to clicks, measured here with independent code."""

import json
import tracemalloc
from dataclasses import asdict

import numpy as np
import pyloudnorm
import pytest
from scipy.signal import resample_poly

from diff_v2m.media.loudness import CEILING_DBTP, TARGET_LUFS, Amplified, level, limited, normalize
from diff_v2m.media.metering import LoudnessMeter, true_peak

RATE = 16000


def tone(seconds=4.0, amplitude=0.2, channels=1, frequency=440.0):
    t = np.arange(round(seconds * RATE)) / RATE
    return np.repeat(amplitude * np.sin(2 * np.pi * frequency * t)[None], channels, 0).astype(np.float32)


def drums(seconds=6.0, amplitude=0.9):
    """Decaying noise bursts twice a second: a crest factor no plain gain can bring to −16 LUFS under −1 dBTP."""
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * RATE)) / RATE
    hits = rng.standard_normal(len(t)) * np.exp(-(t % 0.5) * 12)
    return (amplitude * hits / np.abs(hits).max())[None].astype(np.float32)


def lufs(audio):
    return pyloudnorm.Meter(RATE).integrated_loudness(audio.T.astype(np.float64))


def dbtp(audio):
    return 20 * np.log10(np.abs(resample_poly(audio.astype(np.float64), 4, 1, axis=1)).max())


@pytest.mark.parametrize("amplitude", [0.01, 0.2, 1.5])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_steady_signal_reaches_the_target_by_gain_alone(amplitude, channels):
    audio = tone(amplitude=amplitude, channels=channels)
    result, report = normalize(audio, RATE, "lufs")
    assert lufs(result) == pytest.approx(TARGET_LUFS, abs=0.1)
    assert dbtp(result) <= CEILING_DBTP + 1e-3
    assert report.limited_db == 0
    assert np.abs(np.corrcoef(result[0], audio[0])[0, 1] - 1) < 1e-6


def test_spiky_music_reaches_the_target_under_the_ceiling():
    audio = drums()
    plain_gain = audio * 10 ** ((TARGET_LUFS - lufs(audio)) / 20)
    assert dbtp(plain_gain) > CEILING_DBTP + 1, "the signal must need the limiter for this test to mean anything"
    result, report = normalize(audio, RATE, "lufs")
    assert lufs(result) == pytest.approx(TARGET_LUFS, abs=0.2)
    assert dbtp(result) <= CEILING_DBTP + 1e-3
    assert report.limited_db > 0


def test_clicks_stay_under_the_ceiling_and_are_not_crushed():
    clicks = np.zeros((2, 5 * RATE), dtype=np.float32)
    clicks[:, ::RATE] = 0.5
    result, report = normalize(clicks, RATE, "lufs")
    assert dbtp(result) <= CEILING_DBTP + 1e-3
    assert report.limited_db <= 12.01
    assert np.isfinite(result).all() and result.any()


@pytest.mark.parametrize("mode", ["none", "peak", "lufs"])
@pytest.mark.parametrize("samples", [0, 1, 2, RATE // 10, 3 * RATE])
def test_silence_stays_silence(mode, samples):
    result, report = normalize(np.zeros((2, samples), np.float32), RATE, mode)
    assert result.shape == (2, samples) and not result.any()
    assert json.loads(json.dumps(asdict(report), allow_nan=False))["lufs_after"] is None


def test_noise_under_the_gate_is_not_made_loud():
    hiss = 1e-5 * np.random.default_rng(0).standard_normal((1, 2 * RATE)).astype(np.float32)
    assert np.abs(normalize(hiss, RATE, "lufs")[0]).max() < 1e-3
    assert np.abs(normalize(hiss, RATE, "peak")[0]).max() < 1e-2


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.39, 0.41])
def test_clips_shorter_than_a_gating_block(seconds):
    result, report = normalize(tone(seconds, amplitude=0.05), RATE, "lufs")
    assert dbtp(result) <= CEILING_DBTP + 1e-3
    assert report.lufs_after == pytest.approx(TARGET_LUFS, abs=0.3)


def test_true_peak_sees_between_the_samples_and_across_chunks(monkeypatch):
    # a quarter-rate sine sampled 45° off its crests: every sample is 0.707, the wave itself reaches 1
    audio = np.sin(2 * np.pi * np.arange(5000) / 4 + np.pi / 4)[None].astype(np.float32)
    assert np.abs(audio).max() < 0.71
    whole = true_peak(audio)
    assert whole == pytest.approx(dbtp(audio), abs=1e-4) and whole > -0.5
    monkeypatch.setattr("diff_v2m.media.metering.BLOCK", 784)
    assert true_peak(audio) == pytest.approx(whole, abs=1e-5)


def test_limiter_leaves_what_is_far_from_a_peak_alone():
    audio = tone(2.0, amplitude=0.3)
    audio[:, RATE : RATE + 40] *= 6
    gain, _ = limited(audio, RATE, 0.0)
    result = np.asarray(Amplified(audio, gain))
    assert dbtp(result) <= CEILING_DBTP + 1e-3
    far = np.r_[0 : RATE - 700, RATE + 740 : 2 * RATE]
    np.testing.assert_allclose(result[:, far], audio[:, far], rtol=2e-3, atol=1e-4)


def test_peak_mode_and_none_mode():
    result, _ = normalize(tone(amplitude=0.1), RATE, "peak")
    assert dbtp(result) == pytest.approx(CEILING_DBTP, abs=0.01)
    quiet = tone(amplitude=0.1)
    np.testing.assert_array_equal(normalize(quiet, RATE, "none")[0], quiet)
    assert dbtp(normalize(tone(amplitude=1.5), RATE, "none")[0]) <= 0


def test_wrong_mode_and_broken_audio_are_refused():
    with pytest.raises(ValueError, match="loud"):
        normalize(tone(), RATE, "loud")
    with pytest.raises(ValueError, match="NaN"):
        normalize(np.full((1, 100), np.nan), RATE, "lufs")


@pytest.mark.parametrize("rate", [11025, 16000, 44100])
@pytest.mark.parametrize("seconds", [0.2, 0.4, 0.449, 0.451, 3.14159])
def test_the_meter_is_pyloudnorms_however_the_audio_arrives(rate, seconds):
    rng = np.random.default_rng(1)
    samples = round(seconds * rate)
    swell = np.linspace(1e-4, 0.5, samples)  # parts of it fall under either gate
    audio = (rng.standard_normal((2, samples)) * swell).astype(np.float32)
    block = min(0.4, samples / rate)
    expected = pyloudnorm.Meter(rate, block_size=block).integrated_loudness(audio.T.astype(np.float64))
    for _ in range(3):
        meter = LoudnessMeter(rate, 2)
        edges = np.sort(rng.integers(0, samples, 5))
        for part in np.split(audio, edges, axis=1):
            meter.add(part)
        assert meter.loudness() == pytest.approx(expected, abs=1e-3)
    assert meter.loudness(6.0) == pytest.approx(expected + 6.0, abs=0.1)  # the absolute gate stays


def test_the_result_is_the_same_in_blocks_of_any_size(monkeypatch):
    audio = np.concatenate([drums(), tone(2.0)], axis=1)
    whole, report = normalize(audio, RATE)
    assert report.limited_db > 0
    levelled, _ = level(audio, RATE)
    parts = [levelled[:, start : start + 1237] for start in range(0, audio.shape[1], 1237)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    monkeypatch.setattr("diff_v2m.media.metering.BLOCK", 16 * 100)
    again, other = normalize(audio, RATE)
    np.testing.assert_allclose(again, whole, atol=1e-6)
    assert other.gain_db == pytest.approx(report.gain_db, abs=1e-3)


def test_levelling_holds_a_fraction_of_the_audio(monkeypatch):
    monkeypatch.setattr("diff_v2m.media.metering.BLOCK", 1 << 14)
    audio = np.tile(drums(), (2, 20))
    level(audio[:, :RATE], RATE)  # imports
    tracemalloc.start()
    _, report = level(audio, RATE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.limited_db > 0 and peak < audio.nbytes / 2
