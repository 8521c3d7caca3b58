"""Reading ahead and writing behind: order, bounds, errors, and no thread left running."""

import gc
import threading
import weakref
from functools import partial

import pytest

from diff_v2m.generation.background import Writer, executor, meanwhile, read_ahead


def divide(number):
    return 6 // number


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_results_keep_their_order_and_errors_their_place(count):
    with executor(min(count, 1)) as pool:
        seen = [
            (item, type(future.exception()) if future.exception() else future.result())
            for item, future in read_ahead(pool, divide, [1, 2, 0, 3], count)
        ]
    assert seen == [(1, 6), (2, 3), (0, ZeroDivisionError), (3, 2)]


def test_the_next_items_are_read_meanwhile_and_no_more():
    started = {number: threading.Event() for number in range(6)}
    with executor(1) as pool:
        for item, future in read_ahead(pool, lambda number: started[number].set(), range(6), 2):
            future.result()
            for ahead in range(item, min(item + 3, 6)):
                assert started[ahead].wait(10)
            assert not any(started[later].is_set() for later in range(item + 3, 6))


def test_work_runs_during_the_block_and_its_error_leaves_it():
    inside = threading.Event()
    with meanwhile(inside.wait, 10):
        inside.set()
    with pytest.raises(ZeroDivisionError), meanwhile(divide, 0):
        pass
    with pytest.raises(KeyError), meanwhile(divide, 1):
        raise KeyError


def test_inline_reading_does_nothing_before_it_is_wanted():
    done = []
    with executor(0) as pool:
        for item, _ in read_ahead(pool, done.append, range(3), 0):
            assert done == list(range(item + 1))


def test_inline_work_lets_an_interrupt_through():
    def interrupt():
        raise KeyboardInterrupt

    with executor(0) as pool, pytest.raises(KeyboardInterrupt):
        pool.submit(interrupt)


def test_stopping_early_leaves_nothing_running():
    done, before = [], threading.active_count()
    with executor(1) as pool:
        for _ in read_ahead(pool, done.append, range(100), 2):
            break
    assert len(done) <= 3 and threading.active_count() == before


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_ends_are_reported_on_the_callers_thread(threads):
    ended = {}

    def on_end(name, error):
        assert threading.current_thread() is threading.main_thread()
        ended[name] = type(error)

    with Writer(threads, 2, on_end) as writer:
        for number in (1, 2, 0, 3):
            writer.submit(number, partial(divide, number), 1)
    assert ended == {1: type(None), 2: type(None), 0: ZeroDivisionError, 3: type(None)}


def test_pending_work_is_bounded():
    go_on, ended = threading.Event(), []

    def work():
        assert go_on.wait(10)

    with Writer(1, 10, lambda name, error: ended.append((name, error))) as writer:
        writer.submit("large", work, 25)
        assert ended == [], "an item above the capacity is accepted alone"
        threading.Timer(0.2, go_on.set).start()
        writer.submit("small", work, 4)
        assert go_on.is_set() and ended == [("large", None)], "there was no room beside it"
        go_on.clear()
        writer.submit("as small", work, 4)
        assert not go_on.is_set() and len(ended) == 1
        go_on.set()
    assert sorted(ended[1:]) == [("as small", None), ("small", None)]


def test_finished_work_behind_a_slow_one_is_reported_and_freed():
    go_on, ended = threading.Event(), []

    class Music:
        pass

    music = Music()
    seen = weakref.ref(music)
    with Writer(2, 99, lambda name, error: ended.append(name)) as writer:
        writer.submit("slow", partial(go_on.wait, 10), 1)
        writer.submit("quick", partial(lambda music: None, music), 1)
        del music
        for _ in range(200):
            if seen() is None:
                break
            gc.collect()
            go_on.wait(0.01)
        assert seen() is None, "it is still held"
        writer.submit("next", lambda: None, 1)
        assert ended[0] == "quick"
        go_on.set()
    assert sorted(ended) == ["next", "quick", "slow"]


def test_an_exception_drops_work_that_has_not_begun():
    begun, ended, before = [], [], threading.active_count()
    started, go_on = threading.Event(), threading.Event()

    def work(number):
        begun.append(number)
        started.set()
        assert go_on.wait(10)

    with pytest.raises(KeyboardInterrupt), Writer(1, 9, lambda *end: ended.append(end)) as writer:
        writer.submit(0, partial(work, 0), 1)
        writer.submit(1, partial(work, 1), 1)
        assert started.wait(10)
        timer = threading.Timer(0.2, go_on.set)
        timer.start()
        raise KeyboardInterrupt
    timer.join()
    assert begun == [0] and ended == [(0, None)] and threading.active_count() == before
