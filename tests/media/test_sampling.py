"""sample_frames: random access with decord in a process of its own, equal to what iter_views reads with PyAV."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers.videos import ffmpeg, write_video

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.media import sampling

COUNT = 75  # frames, 3 s


def moving_noise(width: int, height: int) -> np.ndarray:
    """(COUNT, height, width, 3) uint8, detailed: a wrong frame or another filter changes every frame."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (height // 4 + 1, width // 4 + COUNT, 3), dtype=np.uint8)
    frames = [picture[:, n : n + width // 4 + 1].repeat(4, axis=0).repeat(4, axis=1) for n in range(COUNT)]
    return np.stack(frames)[:, :height, :width]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    plain = write_video(folder / "plain.mp4", moving_noise(160, 96), 25, "-g", 12, "-bf", 2)
    write_video(folder / "odd.mp4", moving_noise(131, 97), 25, "-pix_fmt", "yuv444p")
    write_video(folder / "tiny.mp4", moving_noise(48, 26))
    pause = "setpts=round(if(lt(N\\,40)\\,N\\,40+(N-40)*3)/25/TB)"
    write_video(folder / "variable rate.mkv", moving_noise(160, 96), 25, "-vf", pause, "-fps_mode", "vfr", "-g", 12)
    ffmpeg("-display_rotation", 90, "-i", plain, "-c", "copy", folder / "rotated.mp4")
    ffmpeg("-ss", 0.6, "-i", plain, "-c", "copy", folder / "edit list.mp4")
    ffmpeg("-i", plain, "-c", "copy", folder / "stream.ts")
    ffmpeg("-i", plain, "-c:v", "libaom-av1", "-cpu-used", 8, folder / "av1.mp4")
    ffmpeg("-i", plain, "-c:v", "libvpx", "-deadline", "realtime", folder / "vp8.webm")
    ffmpeg("-i", plain, "-c:v", "mpeg4", "-bf", 2, folder / "b frames.avi")
    ffmpeg("-i", plain, "-c:v", "libx264", "-flags", "+ilme+ildct", folder / "interlaced.mkv")
    ffmpeg("-i", plain, "-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", folder / "10 bit.mkv")
    return folder


def by_pyav(path, times, size=None) -> np.ndarray:
    return np.concatenate([frames for _, _, frames in media.iter_views(path, [media.View(times, size)])])


def times_of(path) -> np.ndarray:
    """Repeated, between frames, on a frame, at both ends."""
    duration = media.probe(path).duration
    return np.array([0, 0.33, 0.36, 0.36, 0.71, 0.5 * duration, 0.8 * duration, duration])


@pytest.mark.parametrize("name", ["plain.mp4", "odd.mp4", "variable rate.mkv", "rotated.mp4", "vp8.webm"])
def test_decord_reads_what_pyav_reads(videos, name, monkeypatch, caplog):
    path = videos / name
    expected = by_pyav(path, times_of(path))
    monkeypatch.setattr(sampling, "iter_views", lambda *_: pytest.fail("read with PyAV"))
    frames = media.sample_frames(path, times_of(path))
    assert frames.dtype == np.uint8 and np.array_equal(frames, expected)


@pytest.mark.parametrize("size", [64, 1000])
@pytest.mark.parametrize("name", ["plain.mp4", "rotated.mp4"])
def test_size(videos, name, size):
    path = videos / name
    assert np.array_equal(media.sample_frames(path, times_of(path), size), by_pyav(path, times_of(path), size))


@pytest.mark.parametrize(
    "name", ["tiny.mp4", "edit list.mp4", "stream.ts", "av1.mp4", "b frames.avi", "interlaced.mkv", "10 bit.mkv"]
)
def test_pyav_reads_what_decord_does_not(videos, name):
    path = videos / name
    assert np.array_equal(media.sample_frames(path, times_of(path)), by_pyav(path, times_of(path)))


def test_without_decord_pyav_reads(videos, monkeypatch):
    monkeypatch.setattr(sampling.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sampling, "_worker", lambda _: pytest.fail("there is no decord"))
    path = videos / "plain.mp4"
    assert np.array_equal(media.sample_frames(path, times_of(path)), by_pyav(path, times_of(path)))


def worker() -> subprocess.Popen:
    return sampling._worker(os.getpid()).process


def test_a_worker_that_dies_is_replaced(videos, caplog):
    path = videos / "plain.mp4"
    expected = media.sample_frames(path, times_of(path))
    first = worker()
    media.sample_frames(videos / "odd.mp4", times_of(path))
    assert worker() is first, "one process serves many calls"
    os.kill(first.pid, signal.SIGKILL)
    with caplog.at_level(logging.INFO, logger="diff_v2m"):
        assert np.array_equal(media.sample_frames(path, times_of(path)), expected)
        assert [record.getMessage() for record in caplog.records] == [
            f"{path}: read with PyAV, because decord ended without an answer"
        ]
        caplog.clear()
        assert np.array_equal(media.sample_frames(path, times_of(path)), expected)
        assert not caplog.records and worker().pid != first.pid


def test_a_worker_that_hangs_is_ended(videos, monkeypatch, caplog):
    path = videos / "plain.mp4"
    expected = media.sample_frames(path, times_of(path))
    stopped = worker()
    os.kill(stopped.pid, signal.SIGSTOP)
    monkeypatch.setattr(sampling, "TIME_LIMIT", 0.2)
    with caplog.at_level(logging.INFO, logger="diff_v2m"):
        assert np.array_equal(media.sample_frames(path, times_of(path)), expected)
    assert "ended without an answer" in caplog.text and stopped.poll() == -signal.SIGKILL


def test_the_worker_ends_with_its_process(videos):
    code = """if True:
        import os, sys
        from diff_v2m import media
        from diff_v2m.media import sampling
        media.sample_frames(sys.argv[1], [0.5])
        print(sampling._worker(os.getpid()).process.pid)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, videos / "plain.mp4"], capture_output=True, text=True, check=True
    )
    assert not done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_forked_process_has_a_worker_of_its_own(videos):
    path = videos / "plain.mp4"
    expected = media.sample_frames(path, times_of(path))
    mine = worker().pid

    def child(queue):
        queue.put((np.array_equal(media.sample_frames(path, times_of(path)), expected), worker().pid))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,), daemon=True)
    process.start()
    equal, theirs = queue.get(timeout=60)
    process.join(60)
    assert equal and theirs != mine
    assert np.array_equal(media.sample_frames(path, times_of(path)), expected) and worker().pid == mine


def test_a_damaged_file_is_an_input_error(videos, tmp_path):
    data = bytearray((videos / "plain.mp4").read_bytes())
    begin = data.index(b"mdat") + 4
    end = data.index(b"moov")
    data[begin:end] = bytes(255 - byte for byte in data[begin:end])
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged\.mp4: .*nothing in its video stream can be decoded") as error:
        media.sample_frames(path, np.zeros(1))
    assert "\n" not in str(error.value)
