"""The gain of music under speech: down in time, level under every word, and never faster than 6 dB a second."""

import numpy as np
import pytest

from diff_v2m.mix.ducking import HOLD, LOOK_AHEAD, SLOPE, GainCurve, duck, regions_of
from diff_v2m.mix.spans import Span


def curve_of(spans, levels, top=0.0, duration=60.0):
    own = dict(zip(spans, levels, strict=True))
    regions = regions_of(spans, lambda speech: float(np.mean([own[span] for span in speech])))
    return duck(regions, top, duration), regions


def at(curve, seconds):
    return np.interp(seconds, curve.times, curve.decibels)


def steepest(curve):
    return np.abs(np.diff(curve.decibels) / np.diff(curve.times)).max()


def test_the_gain_is_down_before_the_first_word_and_stays_down_after_the_last():
    curve, _ = curve_of([Span(10, 12)], [-12])
    inside = np.linspace(10 - LOOK_AHEAD, 12 + HOLD, 50)
    np.testing.assert_allclose(at(curve, inside), -12, atol=1e-6)
    assert at(curve, 7.6) == at(curve, 14.6) == 0
    assert -12 < at(curve, 8.7) < 0 and -12 < at(curve, 13.5) < 0


def test_a_small_step_up_takes_the_whole_release():
    curve, _ = curve_of([Span(10, 12)], [-3])
    np.testing.assert_allclose(at(curve, 12.5 + np.array([0, 0.5, 1.02])), [-3, -1.5, 0], atol=0.1)


@pytest.mark.parametrize(("pause", "rises"), [(0.7, 0), (1.9, 0), (4.8, 9), (10, 12)])
def test_short_pauses_are_no_reason_to_rise(pause, rises):
    curve, _ = curve_of([Span(10, 12), Span(12 + pause, 20 + pause)], [-12, -12])
    highest = max(at(curve, np.arange(12, 12 + pause, 0.01)))
    assert highest == pytest.approx(-12 + rises, abs=0.3)
    if rises > 0:  # it stays up, so that no pumping is heard
        assert np.count_nonzero(at(curve, np.arange(0, 60, 0.01))[1200:-2000] > highest - 0.1) >= 95


def test_speech_too_close_for_the_step_shares_one_gain():
    curve, regions = curve_of([Span(10, 12), Span(13.3, 15), Span(25, 26)], [-4, -16, -8])
    assert [region.level for region in regions] == [-10, -8]
    np.testing.assert_allclose(at(curve, np.linspace(10, 15, 20)), -10, atol=1e-6)


@pytest.mark.parametrize("seed", range(30))
def test_no_word_sees_the_gain_move(seed):
    rng = np.random.default_rng(seed)
    spans, levels, end = [], [], 0.0
    while end < 50:
        start = end + rng.exponential(2)
        end = start + 0.1 + rng.exponential(2)
        spans.append(Span(start, end))
        levels.append(rng.normal(-14, 6))
    curve, regions = curve_of(spans, levels, top=-2.0, duration=end + 3)
    assert steepest(curve) <= SLOPE + 1e-6
    for region in regions:
        moving = at(curve, np.linspace(region.start, region.stop, 40))
        np.testing.assert_allclose(moving, min(region.level, -2.0), atol=1e-6)


def test_without_speech_the_gain_is_level():
    curve, _ = curve_of([], [], top=-5.0)
    assert curve.decibels == (-5.0, -5.0)


def test_a_curve_is_the_same_in_blocks_of_any_size():
    curve = GainCurve((0.0, 1.0, 3.0), (0.0, -6.0, -12.0))
    whole = curve(0, 4000, 1000)
    assert whole[[0, 1000, 2000, 3500]] == pytest.approx(10 ** (np.array([0, -6, -9, -12]) / 20))
    np.testing.assert_array_equal(np.concatenate([curve(0, 1234, 1000), curve(1234, 4000, 1000)]), whole)
