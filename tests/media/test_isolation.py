"""Decoding in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.videos import numbered, numbers, read_frames, write_video

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import ROOT
from diff_v2m.media import isolation
from diff_v2m.media.isolation import isolated

PATH = Path("/videos/bad.mp4")


def children() -> list[str]:
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()


def test_items_and_errors_arrive():
    assert [item.tolist() for item in isolated(PATH, lambda: iter([np.arange(3), np.zeros(2)]))] == [[0, 1, 2], [0, 0]]

    def broken():
        yield 1
        raise InputError("bad.mp4: truncated")

    items = isolated(PATH, broken)
    assert next(items) == 1
    with pytest.raises(InputError, match="truncated"):
        next(items)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGXCPU])
def test_a_decoder_that_dies_spoils_one_video(signum):
    def dies():
        yield 1
        os.kill(os.getpid(), signum)
        yield 2

    items = isolated(PATH, dies)
    assert next(items) == 1
    with pytest.raises(InputError, match=rf"bad\.mp4: its decoder died \(signal {signum.value}\)"):
        next(items)


def test_a_decoder_that_hangs_or_eats_memory_is_ended(monkeypatch):
    monkeypatch.setattr(isolation, "SILENCE", 0.2)
    before = children()
    with pytest.raises(InputError, match="its decoder hangs"):
        list(isolated(PATH, lambda: iter([time.sleep(60)])))
    monkeypatch.setattr(isolation, "SILENCE", 60)
    monkeypatch.setattr(isolation, "MEMORY_BYTES", 64 << 20)
    with pytest.raises(MemoryError):
        list(isolated(PATH, lambda: iter([np.ones(1 << 28).sum()])))
    assert children() == before


def test_no_process_is_left_when_reading_stops(tmp_path):
    path, before = write_video(tmp_path / "a.mp4", numbered(50)), children()
    views = media.iter_views(path, [media.View(chunk=1)])
    next(views)
    assert len(children()) == len(before) + 1
    views.close()
    assert children() == before
    assert numbers(read_frames(path, None)[1]) == list(range(50))


def test_a_crash_while_a_video_is_read_names_it(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", numbered(50))
    media.probe(path)
    monkeypatch.setattr(media.video, "rgb", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(InputError, match=r"a\.mp4: its decoder died"):
        list(media.iter_views(path, [media.View()]))


def test_a_decoder_in_a_fork_imports_nothing(tmp_path):
    """An import that another thread had begun at the fork would never end in it."""
    video = write_video(tmp_path / "a.mp4", numbered(12))
    program = f"""
import sys
from pathlib import Path
from diff_v2m import media
from diff_v2m.media import container, isolation
path, before = Path({str(video)!r}), set(sys.modules)

def imported():
    with container.open_container(path) as opened:
        next(opened.decode(video=0)).to_ndarray(format="rgb24")
    return sorted(set(sys.modules) - before)

found = isolation.isolated_call(path, imported)
assert not found, found
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
