"""Reading ahead: the same results in the same order, at most so many ahead, and nothing left running."""

import threading

import pytest

from diff_v2m.generation.read_ahead import read_ahead


def divide(number):
    return 6 // number


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_results_keep_their_order_and_errors_their_place(count):
    seen = []
    for item, result in read_ahead(divide, [1, 2, 0, 3], count):
        try:
            seen.append((item, result()))
        except ZeroDivisionError:
            seen.append((item, "error"))
    assert seen == [(1, 6), (2, 3), (0, "error"), (3, 2)]


def test_the_next_ones_are_worked_on_meanwhile_and_no_more():
    started = {number: threading.Event() for number in range(6)}
    for item, result in read_ahead(lambda number: started[number].set(), range(6), 2):
        result()
        for ahead in range(item, min(item + 3, 6)):
            assert started[ahead].wait(10)
        assert not any(started[later].is_set() for later in range(item + 3, 6))


def test_without_reading_ahead_nothing_is_done_before_it_is_wanted():
    done = []
    for item, result in read_ahead(done.append, range(3), 0):
        assert done == list(range(item))
        result()


def test_who_stops_early_leaves_nothing_behind():
    done, before = [], threading.active_count()
    for _ in read_ahead(done.append, range(100), 2):
        break
    assert len(done) <= 3 and threading.active_count() == before
