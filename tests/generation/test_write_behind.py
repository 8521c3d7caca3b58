"""Writing behind: everything is done and reported, at most so much under way, and nothing left running."""

import gc
import threading
import weakref
from functools import partial

import pytest

from diff_v2m.generation.write_behind import write_behind


def divide(number):
    assert 6 // number


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_ends_are_reported_by_the_caller(threads):
    ended = {}

    def on_end(name, error):
        assert threading.current_thread() is threading.main_thread()
        ended[name] = type(error)

    with write_behind(on_end, threads, most=2) as do:
        for number in (1, 2, 0, 3):
            do(number, partial(divide, number), 1)
    assert ended == {1: type(None), 2: type(None), 0: ZeroDivisionError, 3: type(None)}


def test_the_caller_goes_on_meanwhile_but_not_too_far():
    go_on, ended = threading.Event(), []

    def work():
        assert go_on.wait(10)

    with write_behind(lambda name, error: ended.append((name, error)), 1, most=10) as do:
        do("large", work, 25)
        assert ended == [], "what is larger than all room is done too, alone"
        threading.Timer(0.2, go_on.set).start()
        do("small", work, 4)
        assert go_on.is_set() and ended == [("large", None)], "there was no room beside it"
        go_on.clear()
        do("as small", work, 4)
        assert not go_on.is_set() and len(ended) == 1
        go_on.set()
    assert sorted(ended[1:]) == [("as small", None), ("small", None)]


def test_what_is_finished_behind_a_slow_one_is_reported_and_let_go():
    go_on, ended = threading.Event(), []

    class Music:
        pass

    music = Music()
    seen = weakref.ref(music)
    with write_behind(lambda name, error: ended.append(name), 2, most=99) as do:
        do("slow", partial(go_on.wait, 10), 1)
        do("quick", partial(lambda music: None, music), 1)
        del music
        for _ in range(200):
            if seen() is None:
                break
            gc.collect()
            go_on.wait(0.01)
        assert seen() is None, "it is still held"
        do("next", lambda: None, 1)
        assert ended[0] == "quick"
        go_on.set()
    assert sorted(ended) == ["next", "quick", "slow"]


def test_who_leaves_by_an_exception_leaves_nothing_running():
    begun, ended, before = [], [], threading.active_count()
    started, go_on = threading.Event(), threading.Event()

    def work(number):
        begun.append(number)
        started.set()
        assert go_on.wait(10)

    with pytest.raises(KeyboardInterrupt), write_behind(lambda *end: ended.append(end), 1, most=9) as do:
        do(0, partial(work, 0), 1)
        do(1, partial(work, 1), 1)
        assert started.wait(10)
        threading.Timer(0.2, go_on.set).start()
        raise KeyboardInterrupt
    assert begun == [0] and ended == [(0, None)] and threading.active_count() == before
