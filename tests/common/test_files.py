"""Hashes of large files are remembered, and long stages of a run leave a bar or a line."""

import logging
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from diff_v2m.common import files, progress
from diff_v2m.common.files import content_hash
from diff_v2m.common.locks import one_at_a_time


@pytest.fixture
def reads(monkeypatch, tmp_path):
    """Paths that are read in full; every file counts as large, and the user's cache is empty."""
    paths, read = [], files._read_hash
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "REMEMBERED", 1)
    monkeypatch.setattr(files, "_read_hash", lambda path, size: paths.append(path.name) or read(path, size))
    return paths


def new_process():
    files._hash.cache_clear()


def test_a_large_file_is_hashed_once_for_all_runs(reads, tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"weights")
    hashes = []
    for _ in range(3):
        new_process()
        hashes.append(content_hash(path))
    assert reads == ["model.ckpt"] and len(set(hashes)) == 1


def test_a_changed_file_is_hashed_again(reads, tmp_path):
    path, other = tmp_path / "model.ckpt", tmp_path / "other.ckpt"
    path.write_bytes(b"weights")
    before = content_hash(path)
    stat = path.stat()
    path.write_bytes(b"WEIGHTS")  # as long, and given the old time: only the time of the change differs
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    new_process()
    assert content_hash(path) != before
    other.write_bytes(b"other")
    os.replace(other, path)
    new_process()
    assert content_hash(path) not in (before, None) and len(reads) == 3


def test_tasks_that_start_together_read_a_large_file_once(reads, tmp_path):
    """Another process hashes the same file meanwhile, and writes down what it found."""
    path, folder = tmp_path / "model.ckpt", tmp_path / "cache" / "diff_v2m" / "hashes"
    path.write_bytes(b"weights")
    digest = content_hash(path)
    (memory,) = folder.glob("*.json")
    found = memory.read_bytes()
    memory.unlink()
    new_process()
    reads.clear()
    with ThreadPoolExecutor(1) as pool:
        with one_at_a_time(folder):
            waiting = pool.submit(content_hash, path)
            time.sleep(0.2)
            assert not waiting.done()
            memory.write_bytes(found)
        assert waiting.result(timeout=10) == digest and not reads


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"file": 3, "sha256": "x"}'])
def test_a_damaged_memory_is_replaced(reads, tmp_path, damage):
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"weights")
    first = content_hash(path)
    (memory,) = (tmp_path / "cache").rglob("*.json")
    memory.write_bytes(damage)
    for _ in range(2):
        new_process()
        assert content_hash(path) == first
    assert len(reads) == 2


def test_without_a_cache_folder_it_is_hashed_every_time(reads, tmp_path, monkeypatch):
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"weights")
    (tmp_path / "cache").write_text("a file where the folder would be")
    for folder in (tmp_path / "cache", None):
        monkeypatch.setattr(files, "user_cache", lambda name, folder=folder: folder and folder / name)
        new_process()
        content_hash(path)
    assert len(reads) == 2


@pytest.mark.parametrize("terminal", [True, False])
def test_a_long_stage_is_a_bar_on_a_terminal_and_one_line_elsewhere(monkeypatch, caplog, capsys, terminal):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(progress, "SHORTEST", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with caplog.at_level(logging.INFO), progress.stage("decoding", 10, "frame", mininterval=0) as bar:
        for _ in range(10):
            bar.update()
    lines = [record.message for record in caplog.records]
    shown = capsys.readouterr().err
    assert (lines, "decoding: 100%" in shown) == (([], True) if terminal else (["decoding: 0 s"], False))


def test_a_short_stage_is_silent(caplog):
    with caplog.at_level(logging.INFO), progress.stage("hashing", 1, "B") as bar:
        bar.update()
    assert not caplog.records
