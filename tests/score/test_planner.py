"""The planner: cuts on beats."""

import numpy as np
import pytest

from diff_v2m.score.planner import FASTEST, MAX_DRIFT, MOODS, SLOWEST, continued, on_grid, plan, plan_grid


def random_cuts(rng, duration=30.0):
    cuts = np.cumsum(rng.uniform(1.5, 8.0, 30))
    return cuts[cuts < duration - 1]


def test_cuts_on_a_grid_find_that_grid():
    beat = 60 / 112
    cuts = beat * np.array([8, 16, 28, 40])
    grid = plan_grid(30.0, cuts, 112, 4)
    assert grid.tempo == pytest.approx(112, rel=0.01)
    assert np.abs(grid.bars[:, None] - cuts).min(0).max() < 1e-6
    assert grid.bars[0] == 0


def test_most_cuts_are_met_and_the_tempo_is_steady():
    rng, hits, starts = np.random.default_rng(1), [], 0
    for seed in range(60):
        planned = plan(30.0, random_cuts(rng), seed, motion=float(rng.uniform()))
        hits += planned.hits.tolist()
        grid = planned.grid
        lengths = np.diff(grid.beats)
        assert lengths.max() / lengths.min() <= (1 + 1.1 * MAX_DRIFT) / (1 - 1.1 * MAX_DRIFT)
        assert SLOWEST * 0.95 <= grid.tempo <= FASTEST * 1.05
        assert grid.beats[0] == pytest.approx(0) and grid.beats[-1] >= 30 - 1e-9
        starts += grid.first_downbeat == 0
    assert np.mean(hits) >= 0.93
    assert starts >= 40  # most pieces start on a downbeat


def test_no_cuts_and_many_cuts():
    free = plan(12.0, np.array([]), 3, tempo=90, beats_per_bar=3)
    assert free.grid.tempo == pytest.approx(90, rel=0.01) and free.grid.beats_per_bar == 3
    assert len(free.hits) == 0
    montage = plan(10.0, np.arange(0.3, 9.9, 0.3), 3)
    assert montage.hits.mean() > 0.5


def test_seed_mood_and_motion():
    cuts = np.array([4.0, 9.0])
    first, again = plan(20.0, cuts, 7, mood="modal"), plan(20.0, cuts, 7, mood="modal")
    assert first.key == again.key and first.grid.beats.tolist() == again.grid.beats.tolist()
    assert len({plan(20.0, cuts, seed).key.tonic for seed in range(60)}) == 12
    for mood, modes in MOODS.items():
        assert {plan(20.0, cuts, seed, mood=mood).key.mode for seed in range(12)} == set(modes)
    calm, busy = (np.mean([plan(20.0, cuts, s, motion=m).grid.tempo for s in range(30)]) for m in (0, 1))
    assert calm + 40 < busy


def test_cuts_outside_the_video_do_not_count():
    inside, outside = np.array([5.0]), np.array([-1.0, 0.0, 5.0, 20.0, 25.0])
    first, second = plan(20.0, inside, 1), plan(20.0, outside, 1)
    assert first.grid.beats.tolist() == second.grid.beats.tolist() and len(second.hits) == 1


def test_on_grid_takes_eighths():
    grid = plan_grid(10.0, np.array([]), 120, 4)
    beat = float(np.diff(grid.beats)[0])
    assert on_grid(grid, np.array([beat, 1.5 * beat, 1.25 * beat, beat + 0.02])).tolist() == [True, True, False, True]


def test_beats_meet_heavier_times_first():
    rng = np.random.default_rng(0)
    met = {1.0: 0, 3.0: 0}
    for seed in range(10):
        cuts, hits = np.sort(rng.uniform(1, 59, 14)), np.sort(rng.uniform(1, 59, 4))
        times = np.union1d(cuts, hits)
        for weight in met:
            weights = np.where(np.isin(times, hits), weight, 1.0)
            met[weight] += int(on_grid(plan(60.0, times, seed, weights=weights).grid, hits).sum())
    assert met[3.0] > met[1.0] and met[3.0] >= 0.8 * 40


@pytest.mark.parametrize("metre", [3, 4])
def test_a_grid_goes_on_and_meets_the_cuts_after_it(metre):
    rng, met, cuts_met = np.random.default_rng(2), [], []
    for seed in range(10):
        cuts = random_cuts(rng, 60.0)
        before = plan(30.0, cuts[cuts < 30], seed, beats_per_bar=metre).grid
        start = before.bars[before.bars < 24][-1]
        grid = continued(before, start, 60.0, cuts)
        kept = before.beats <= start
        np.testing.assert_array_equal(grid.beats[: kept.sum()], before.beats[kept])
        assert np.isclose(grid.bars, start).any() and grid.beats[-1] >= 60 - 1e-9 and grid.beats_per_bar == metre
        lengths = np.diff(grid.beats)[kept.sum() - 2 :]
        assert lengths.max() / lengths.min() <= (1 + MAX_DRIFT) ** 4
        met += on_grid(grid, cuts[cuts > start]).tolist()
        cuts_met += on_grid(before.covering(0, 60), cuts[cuts > start]).tolist()
    assert np.mean(met) >= 0.85 > np.mean(cuts_met)


def test_a_grid_goes_on_within_a_bar():
    before = plan_grid(10.0, np.array([]), 120, 4)
    start = float(before.bars[1] + 2 * np.diff(before.beats)[0])
    grid = continued(before, start, 30.0, np.array([start + 10.1]))
    assert on_grid(grid, np.array([start + 10.1])).all() and float(grid.position(start)) % 4 == pytest.approx(2)
