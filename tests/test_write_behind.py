"""Writing behind: everything is done and reported in order, at most so much under way, and nothing left running."""

import threading

import pytest

from diff_v2m.scoring.write_behind import write_behind


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_ends_are_reported_in_order_by_the_caller(threads):
    ended = []

    def on_end(item, error):
        assert threading.current_thread() is threading.main_thread()
        ended.append((item, type(error)))

    with write_behind(lambda number: 6 // number, on_end, threads) as take:
        for number in (1, 2, 0, 3):
            take(number)
    assert ended == [(1, type(None)), (2, type(None)), (0, ZeroDivisionError), (3, type(None))]


def test_the_caller_goes_on_meanwhile_but_not_too_far():
    go_on, begun, ended = threading.Event(), [], []

    def work(number):
        begun.append(number)
        assert go_on.wait(10)

    with write_behind(work, lambda item, error: ended.append((item, error)), 1) as take:
        take(0), take(1)
        assert ended == [], "nobody waited"
        threading.Timer(0.2, go_on.set).start()
        take(2)
        assert go_on.is_set() and ended[0] == (0, None), "two are under way, and the third waited for the first"
    assert begun == [0, 1, 2] and ended == [(0, None), (1, None), (2, None)]


def test_who_leaves_by_an_exception_leaves_nothing_running():
    begun, before = [], threading.active_count()
    started = threading.Event()

    def work(number):
        begun.append(number)
        started.set()

    with pytest.raises(KeyboardInterrupt), write_behind(work, lambda item, error: None, 1) as take:
        take(0)
        assert started.wait(10)
        raise KeyboardInterrupt
    assert begun == [0] and threading.active_count() == before
