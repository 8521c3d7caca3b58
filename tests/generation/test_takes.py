"""Scores of takes: each part rises with what it measures."""

import dataclasses

import numpy as np
import pytest

from diff_v2m.generation.takes import Takes, TakeScore, score_take

RATE, SECONDS = 16000, 12
CUTS = np.array([2.0, 5.0, 9.0])


def clicks(times, level=0.5):
    """A low tone with decaying bursts at some times, (1, n)."""
    audio = 0.02 * np.sin(2 * np.pi * 220 * np.arange(SECONDS * RATE) / RATE)
    burst = level * np.exp(-np.arange(RATE // 4) / 800) * np.sin(2 * np.pi * 880 * np.arange(RATE // 4) / RATE)
    for time in times:
        first = round(time * RATE)
        part = audio[first : first + len(burst)]
        part += burst[: len(part)]
    return audio[None].astype(np.float32)


def test_onsets_at_cuts_hits_and_where_the_rhythm_is_wanted():
    rhythm = np.isin(np.arange(SECONDS), CUTS.astype(int)).astype(float)
    on, off = (score_take(clicks(times), RATE, rhythm, CUTS, CUTS) for times in (CUTS, CUTS + 1.5))
    assert on.rhythm > 0.8 > 0 > off.rhythm
    assert on.cuts > 0.9 > 0.2 > off.cuts
    assert on.hits > 0.8 > 0.1 > off.hits
    assert on.total > off.total + 2


def test_bad_health_costs():
    good = score_take(clicks(CUTS), RATE, np.arange(SECONDS))
    half = clicks(CUTS)
    half[:, SECONDS * RATE // 2 :] = 0
    noise = np.random.default_rng(0).standard_normal((1, SECONDS * RATE)).astype(np.float32)
    assert score_take(half, RATE, np.arange(SECONDS)).silence > 0.4 > good.silence
    assert score_take(np.clip(3 * noise, -1, 1), RATE, np.arange(SECONDS)).clipping > 0.1 > good.clipping
    assert score_take(noise, RATE, np.arange(SECONDS)).noise > 0.4 > good.noise
    base = TakeScore(0.5, 0.5, None, 0.0, 0.0, 0.1)
    for change in ({"silence": 0.1}, {"clipping": 0.1}, {"noise": 0.5}, {"rhythm": 0.2}, {"cuts": None}):
        assert dataclasses.replace(base, **change).total < base.total


def test_undefined_parts():
    score = score_take(np.zeros((1, 3 * RATE), np.float32), RATE, np.arange(3.0))
    assert (score.cuts, score.hits, score.noise, score.silence) == (None, None, None, 1.0)
    assert score.about()["cuts"] is None and score.total == pytest.approx((score.rhythm or 0) - 1)


def test_a_long_take_is_analysed_in_chunks_without_seams():
    long = np.concatenate([clicks(CUTS)] * 6, axis=1)
    steady = score_take(long, RATE, np.arange(72), np.array([60.0]))
    assert steady.cuts < 0.5, "the border of two chunks is no onset"


def test_the_table_and_the_caption():
    takes = Takes(2, (TakeScore(0.1, None, None, 0, 0, 0.1), TakeScore(0.6, 0.2, None, 0, 0, None)))
    first, *rows = takes.table({2}).splitlines()
    assert first.split() == ["take", "total", "rhythm", "cuts", "hits", "silence", "clipping", "noise"]
    assert rows[0].startswith("*    2") and "–" in rows[1]
    assert takes.caption() == "take 2 of 2, score 0.80 (mean 0.45)"
