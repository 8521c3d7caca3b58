"""Beats against events, and controls such as silence and noise."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.eval_toys import RATE, clicks, music, noise, noise_like, video_with_cuts
from helpers.videos import ffmpeg

from diff_v2m.common.errors import InputError
from diff_v2m.features.events import picture_events
from diff_v2m.metrics import audio_quality, rhythm
from inference.rhythm import TOLERANCES, predicted_rhythm

EXAMPLE = Path(__file__).parents[2] / "examples" / "earth.mp4"
SECONDS = 8.0
GRID = np.arange(0.5, SECONDS, 0.5)  # 120 beats a minute


@pytest.fixture(scope="module")
def click_track():
    return rhythm.analyse(clicks(GRID, SECONDS), RATE)


def test_f1_of_known_offsets():
    events = np.array([1.0, 2.0, 3.0, 4.0])
    beats = np.array([1.05, 2.09, 3.2, 5.0, 6.0])
    near, wide = rhythm.sync(events, beats, 0.07), rhythm.sync(events, beats, 0.10)
    assert (near.hit_rate, near.coverage) == (0.25, 0.2)
    assert (wide.hit_rate, wide.coverage) == (0.5, 0.4)
    assert wide.f1 == pytest.approx(2 * 0.5 * 0.4 / 0.9)
    assert rhythm.sync(events, np.array([0.99, 1.01]), 0.1).hit_rate == 0.25  # two beats are not two hits
    assert rhythm.sync(events, beats[:0], 0.1) == rhythm.Sync(0, 0, 0)
    assert rhythm.sync(events[:0], beats, 0.1) is None


@pytest.mark.slow
def test_beats_tempo_and_pulse_of_a_click_track(click_track):
    assert rhythm.same_tempo(click_track.tempo, 120) is True
    inner = GRID[(GRID > 1) & (GRID < SECONDS - 1)]
    assert rhythm.sync(inner, click_track.beats, 0.07).hit_rate == 1
    assert click_track.pulse > 0.7
    assert rhythm.analyse(noise(0, SECONDS), RATE).pulse < 0.3


def real_footage_with_cuts(path, cuts):
    """The example video; every other segment between cuts is inverted."""
    negative = "+".join(f"between(t,{a - 0.01},{b - 0.01})" for a, b in zip(cuts[::2], [*cuts[1::2], 99], strict=False))
    ffmpeg("-t", SECONDS, "-i", EXAMPLE, "-an", "-vf", f"negate=enable='{negative}'", path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [lambda path, cuts: video_with_cuts(path, cuts, SECONDS), real_footage_with_cuts],
    ids=["flat colours", "real footage"],
)
def test_a_shifted_soundtrack_scores_worse_on_the_cuts_of_a_video(tmp_path, make):
    cuts = [1.0, 2.0, 3.5, 5.0, 6.5]
    video = picture_events(make(tmp_path / "video.mp4", cuts))
    np.testing.assert_allclose(video.cuts, cuts, atol=0.04)  # a frame
    right = rhythm.analyse(clicks(GRID, SECONDS), RATE).beats
    late = rhythm.analyse(clicks(GRID + 0.22, SECONDS), RATE).beats
    for tolerance in TOLERANCES:
        good, bad = (rhythm.sync(video.cuts, beats, tolerance) for beats in (right, late))
        lucky = rhythm.chance(video.cuts, right, SECONDS, tolerance, seed=0)
        assert good.hit_rate > 0.7 and bad.hit_rate < 0.3
        assert good.f1 > lucky.f1 + 0.1 > bad.f1
    # Chance is what geometry says: a beat every half second, hit within ± 0.1 s.
    assert lucky.hit_rate == pytest.approx(0.4, abs=0.15)


def test_chance_depends_on_the_seed_alone():
    events, beats = np.array([1.0, 2.5]), GRID
    assert rhythm.chance(events, beats, 8, 0.1, seed=4) == rhythm.chance(events, beats, 8, 0.1, seed=4)
    assert rhythm.chance(events[:0], beats, 8, 0.1, seed=4) is None


def test_correlation_gives_nothing_for_silence_and_is_undefined_without_a_target():
    assert rhythm.correlation(np.arange(5.0), np.arange(5.0) * 3 - 1) == pytest.approx(1)
    assert rhythm.correlation(np.arange(5.0), np.arange(7.0)) == pytest.approx(1)
    assert rhythm.correlation(np.zeros(5), np.arange(5.0)) == 0
    assert rhythm.correlation(np.arange(5.0), np.ones(5)) is None
    assert rhythm.correlation(np.arange(1.0), np.arange(1.0)) is None
    wave = np.sin(np.arange(40) / 3)
    assert abs(rhythm.correlation(wave, np.roll(wave, 5))) < 0.2  # a quarter of a period


def test_a_plot_shows_no_correlation_of_silence_or_of_two_seconds():
    assert rhythm.correlation(np.zeros(5), np.arange(5.0), constant=None) is None
    assert rhythm.correlation(np.arange(2.0), np.arange(2.0), shortest=3) is None


@pytest.mark.slow
def test_silence_has_no_beat_no_tempo_and_no_pulse():
    silent = rhythm.analyse(np.zeros(round(3 * RATE), np.float32), RATE)
    assert (len(silent.beats), silent.tempo, silent.pulse) == (0, 0, 0)
    assert not silent.odf.any()


@pytest.mark.slow
def test_noise_with_the_envelope_of_music_has_its_rhythm_but_not_its_notes():
    tune = music(0, SECONDS)
    disguised = noise_like(tune)
    wanted = rhythm.analyse(tune, RATE)
    assert rhythm.analyse(disguised, RATE).pulse > 0.5  # so rhythm alone would be fooled
    assert rhythm.same_tempo(rhythm.analyse(disguised, RATE).tempo, wanted.tempo)
    assert audio_quality.noisiness(tune, RATE) < 0.2
    assert audio_quality.noisiness(disguised, RATE) > 0.4


def test_tempo_allows_octaves_and_nothing_else():
    assert all(rhythm.same_tempo(tempo, 120) for tempo in (60, 118, 240, 360, 40))
    assert not any(rhythm.same_tempo(tempo, 120) for tempo in (0, 90, 130))
    assert rhythm.same_tempo(120, 0) is None


def test_the_predicted_rhythm_is_read_from_the_json_that_lies_beside_the_music(tmp_path):
    wav = tmp_path / "a.wav"
    assert predicted_rhythm(wav) is None
    wav.with_suffix(".json").write_text(json.dumps({"generator": "diff-v2m 1", "predicted_rhythm": [0.5, -1]}))
    np.testing.assert_array_equal(predicted_rhythm(wav), [0.5, -1])
    wav.with_suffix(".json").write_text('{"camera": 1}')
    assert predicted_rhythm(wav) is None
    for text in ("{", '{"predicted_rhythm": "x"}', '{"predicted_rhythm": [[1]]}', '{"predicted_rhythm": [NaN]}'):
        wav.with_suffix(".json").write_text(text)
        with pytest.raises(InputError, match="a.json"):
            predicted_rhythm(wav)
