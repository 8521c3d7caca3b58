"""Hits on music: attacks found, chosen, warped without a change of pitch or length; accents where no attack reaches."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.scores import note_array, small_score

from diff_v2m.generation.landing import choose, find_attacks, land
from diff_v2m.model.music import Music
from diff_v2m.model.score_autoencoder import ScoreMusic
from diff_v2m.model.warp import LIMIT, TimeWarp, reach, stretched
from diff_v2m.score.editing import accented, attacks, silenced, warped
from diff_v2m.score.score import Voice
from diff_v2m.score.synth import SAMPLE_RATE

RATE = 16000
NO_CUTS = np.zeros(0)


def strikes(times, seconds=20.0, hertz=330.0):
    """(1, n) a soft steady tone and a burst of noise at each time."""
    seconds = np.arange(round(seconds * RATE)) / RATE
    audio = 0.05 * np.sin(2 * np.pi * hertz * seconds)
    rng = np.random.default_rng(0)
    for time in times:
        at = round(time * RATE)
        burst = rng.standard_normal(1600) * np.exp(-np.arange(1600) / 300)
        audio[at : at + 1600] += 0.3 * burst[: len(audio) - at]
    return audio[None].astype(np.float32)


def hits_at(*times):
    return np.array([(time, 1.0) for time in times])


def test_attacks_are_found_within_a_few_milliseconds():
    times = np.arange(0.5, 61.0, 0.73)
    found, strengths = find_attacks(strikes(times, 62.0), RATE)
    assert len(found) == len(times) and len(strengths) == len(times)
    assert np.abs(found - times).max() < 0.012
    assert len(find_attacks(np.zeros((2, RATE), np.float32), RATE)[0]) == 0


def test_a_warp_moves_moments_gradually_and_keeps_ends():
    warp = TimeWarp.through([0.0, 5.1, 12.0], [0.0, 5.0, 12.2], 20.0)
    np.testing.assert_allclose(warp.forward(np.array([0, 5.1, 12.0, 20.0])), [0, 5.0, 12.2, 20.0], atol=1e-9)
    times = np.linspace(0, 20, 999)
    np.testing.assert_allclose(warp.backward(warp.forward(times)), times, atol=1e-9)
    assert (np.diff(warp.forward(times)) > 0).all()
    slopes = np.diff(warp.source) / np.diff(warp.target)
    assert np.abs(np.diff(slopes)).max() < 0.02  # no jump of the tempo
    assert abs(slopes[np.searchsorted(warp.target, 5.0)] - 1) < 0.01  # none at the moment itself
    assert warp.stretch(0, 20) == pytest.approx(np.abs(slopes - 1).max() * np.sign(warp.stretch(0, 20)))


def test_warped_audio_keeps_length_pitch_and_level():
    times = np.arange(0.5, 19.5, 0.5)
    audio = strikes(times)
    warp = TimeWarp.through([0.0, 10.0], [0.0, 10.3], 20.0)
    moved = stretched(audio, RATE, warp, times)
    assert moved.shape == audio.shape and moved.dtype == np.float32
    found, _ = find_attacks(moved, RATE)
    assert np.abs(found - warp.forward(times)).max() < 0.015
    for music in (audio, moved):
        spectrum = np.abs(np.fft.rfft(music[0] * np.hanning(music.shape[1])))
        assert np.argmax(spectrum) * RATE / music.shape[1] == pytest.approx(330.0, abs=1.0)
    assert np.sqrt(np.mean(moved**2)) == pytest.approx(np.sqrt(np.mean(audio**2)), rel=0.05)
    np.testing.assert_array_equal(moved, stretched(audio, RATE, warp, times))  # the same each time
    late = stretched(audio, RATE, TimeWarp.through([-0.2, 10.0], [0.0, 10.0], 20.0), times)
    assert np.abs(late[:, : round(0.19 * RATE)]).max() < 0.01


def test_no_tempo_changes_by_more_than_the_limit():
    rng = np.random.default_rng(0)
    times = np.arange(0.25, 30, 0.25)
    for _ in range(20):
        hits = np.sort(rng.uniform(1, 29, 4))
        source, target = choose(hits, NO_CUTS, times, np.ones(len(times)), 30.0)
        warp = TimeWarp.through(source, target, 30.0)
        assert abs(warp.stretch(0, 30)) <= LIMIT + 1e-9
        assert source == sorted(source) and target == sorted(target)


def test_hits_land_by_warping_where_attacks_are_in_reach():
    music = Music(strikes(np.arange(0.5, 20, 0.5)))
    moved, hits = land(music, RATE, hits_at(6.03, 13.96), NO_CUTS, ["door", ""])
    assert [hit.landed for hit in hits] == [True, True] and not any(hit.added for hit in hits)
    assert hits[0].name == "door" and 0 < abs(hits[0].stretch) <= LIMIT
    found, _ = find_attacks(moved.audio, RATE)
    for hit in hits:
        assert np.abs(found - hit.wanted).min() <= 0.02  # nearer than the strikes were
        assert hit.achieved == pytest.approx(hit.wanted, abs=0.02)


def test_a_hit_out_of_reach_gets_an_accent_of_its_own():
    music = Music(strikes(np.arange(1.0, 20, 2.0)))
    moved, (hit,) = land(music, RATE, hits_at(10.0), NO_CUTS)
    assert hit.added and hit.landed and hit.stretch == 0
    assert moved.audio.shape == music.audio.shape
    _, (silent,) = land(Music(np.zeros((1, 20 * RATE), np.float32)), RATE, hits_at(10.0), NO_CUTS)
    assert silent.achieved is None and not silent.landed  # there is nothing to accent it with


def test_fixed_moments_and_accents_at_cuts_stay():
    times = np.arange(0.5, 20, 0.5)
    source, target = choose(np.array([10.1]), NO_CUTS, times, np.ones(len(times)), 20.0, fixed=[7.0])
    assert 7.0 in target and TimeWarp.through(source, target, 20.0).forward(7.0) == pytest.approx(7.0)
    source, target = choose(np.array([10.02]), np.array([4.0, 16.0]), times, np.ones(len(times)), 20.0)
    np.testing.assert_allclose(TimeWarp.through(source, target, 20.0).forward(np.array([4.0, 16.0])), [4, 16])


def test_an_attack_at_a_cut_near_a_hit_stays():
    times = np.arange(0.5, 20, 0.5)
    _, target = choose(np.array([10.03]), np.array([9.3]), np.sort([*times, 9.3]), np.ones(len(times) + 1), 20.0)
    assert 9.3 in target


def test_the_reach_grows_with_the_time_between():
    assert reach(10.0) == pytest.approx(LIMIT * 9.75)
    assert reach(0.4) == pytest.approx(LIMIT * 0.3)


def test_notes_are_moved_and_struck_exactly():
    score = small_score(12.0)
    moved, hits = land(ScoreMusic(score), SAMPLE_RATE, hits_at(4.23, 9.1), NO_CUTS)
    assert [hit.landed for hit in hits] == [True, True]
    starts, _ = attacks(moved.score)
    for hit in hits:
        assert np.abs(starts - hit.wanted).min() <= 0.0101
    np.testing.assert_allclose(sum(moved.stems().values()), moved.audio, atol=2.5e-7)
    assert moved.score.duration == score.duration and moved.audio.shape[1] == 12 * SAMPLE_RATE


def test_an_accent_on_an_accent_is_louder_has_a_crash_and_is_not_doubled():
    score, time = small_score(12.0), np.array([4.23])
    once, twice = accented(score, time), accented(accented(score, time), time)

    def struck(score):
        (drums,) = (voice.notes for voice in score.voices if voice.name == "drums")
        there = drums[np.abs(drums["start"] - time) < 1e-9]
        return len(drums), dict(zip(there["pitch"].tolist(), there["velocity"].tolist(), strict=True))

    before = len(score.voices[0].notes)
    assert struck(once) == (before + 1, {36: 95, 42: 110})  # a hi-hat is near
    assert struck(twice) == (before + 2, {36: 127, 42: 127, 49: 127})


def test_an_accent_moves_near_notes_and_leaves_no_double_attack():
    before = small_score(12.0)
    after = accented(before, np.array([4.23]))
    assert np.abs(attacks(before)[0] - 4.2).min() < 1e-9
    starts, _ = attacks(after)
    assert starts[np.abs(starts - 4.23) < 0.1].tolist() == [4.23]
    for old, new in zip(before.voices, after.voices, strict=True):
        notes = new.notes[np.isclose(new.notes["start"], 4.23) & (new.notes["pitch"] != 36)]
        moved = old.notes[np.isclose(old.notes["start"], 4.2)]
        if len(moved):
            np.testing.assert_allclose(notes["start"] + notes["duration"], moved["start"] + moved["duration"])
            assert (notes["velocity"] > moved["velocity"]).all()


def test_a_held_note_that_a_near_one_follows_is_not_struck_twice():
    chords = note_array([(0.0, 2.03, 57, 70), (2.03, 2.0, 57, 70)])
    score = replace(small_score(6.0), voices=(Voice("harmony", 4, chords),))
    notes = accented(score, np.array([1.0, 2.0])).voices[0].notes
    np.testing.assert_allclose(notes["start"], [0, 1, 2])
    np.testing.assert_allclose(notes["duration"], [1, 1, 2.03])


def test_warped_notes_keep_their_place_in_the_bar():
    score = small_score(12.0)
    warp = TimeWarp.through([0.0, 6.0], [0.0, 6.1], 12.0)
    moved = warped(score, warp.forward)
    for before, after in zip(score.voices, moved.voices, strict=True):
        positions = score.grid.position(before.notes["start"]), moved.grid.position(after.notes["start"])
        np.testing.assert_allclose(*positions, atol=0.02)


def test_notes_of_a_silence_are_removed():
    score = silenced(small_score(12.0), [(4.0, 6.0)])
    for voice in score.voices:
        starts, stops = voice.notes["start"], voice.notes["start"] + voice.notes["duration"]
        assert not ((starts < 6.0) & (stops > 4.0 + 1e-9)).any()
        assert (starts >= 6.0).any()  # what sounds longer than the silence sounds again after it
