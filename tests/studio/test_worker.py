"""Job folders and the worker: what it makes of each task, in which order, and what survives its death."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
from helpers import toys
from helpers.toy_scores import save_toy_score_model
from helpers.videos import ffmpeg

from diff_v2m.common.errors import InputError
from diff_v2m.generation.feature_cache import FeatureCache
from diff_v2m.studio.folders import Jobs, clean_name
from diff_v2m.studio.levels import estimate, read_sound
from diff_v2m.studio.tasks import compose_task, mix_settings, mix_task, redo_task
from diff_v2m.studio.work import Studio
from diff_v2m.studio.worker import Watch, Worker

pytestmark = pytest.mark.slow

SECONDS = 6


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return toys.save_toy_model(tmp_path_factory.mktemp("toy") / "model.safetensors")


@pytest.fixture(scope="module")
def studio(weights, tmp_path_factory):
    return Studio(weights, "cpu", cache=FeatureCache(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Six seconds with cuts, and speech as their sound."""
    folder = tmp_path_factory.mktemp("film")
    silent = toys.write_video(folder / "silent.mp4", SECONDS)
    speech = toys.ROOT / "tests/helpers/speech.flac"
    ffmpeg("-i", silent, "-i", speech, "-t", SECONDS, "-c:v", "copy", "-c:a", "aac", folder / "film.mp4")
    return folder / "film.mp4"


def add(jobs, video, name=None):
    copy = jobs.path / "uploaded"
    jobs.path.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(video.read_bytes())
    return jobs.add(copy, name or video.name)


def work(jobs, studio):
    worker = Worker(jobs, studio)
    while todo := jobs.open_tasks():
        worker.do(todo[0])


@pytest.fixture(scope="module")
def jobs(tmp_path_factory, studio, film):
    """One video with two takes of a sheet, a take redone from the first, and a mix."""
    jobs = Jobs(tmp_path_factory.mktemp("studio"))
    job = add(jobs, film)
    work(jobs, studio)
    sheet = job.sheet.read_text().replace("kind,value,name\n", "kind,value,name\n2.5,hit,1,door\n", 1)
    job.add_task(compose_task({"takes": 2, "steps": 3, "seed": 7}), sheet)
    work(jobs, studio)
    job.add_task(redo_task(job, 1, [[1, 3]], {"steps": 3, "seed": 9}))
    job.add_task(mix_task(job, 1, {"video_sound": "duck", "under": 15}))
    work(jobs, studio)
    return jobs


def only(jobs):
    (job,) = jobs
    return job


def test_every_task_is_done(jobs):
    job = only(jobs)
    assert [(task.kind, task.state["state"]) for task in job.tasks()] == [
        (kind, "done") for kind in ("analyse", "compose", "redo", "mix")
    ]
    assert [take["number"] for take in job.takes()] == [1, 2, 3]
    assert not list(job.path.rglob("*.part*"))
    assert " film: 1 of 1 hits missed: 2.50 s" in (job.path / "log.txt").read_text()


def test_the_timeline_is_that_of_the_video(jobs):
    job = only(jobs)
    timeline = job.timeline
    assert timeline["duration"] == pytest.approx(SECONDS, abs=0.1)
    assert len(timeline["rhythm"]) == len(timeline["palette"]) == SECONDS
    assert np.allclose(timeline["cuts"], [2, 4], atol=0.2)
    assert sum(share for _, share in timeline["palette"][0]) == pytest.approx(1, abs=0.01)
    assert timeline["has_sound"] and len(read_sound(job.path / "sound.npz")["speech"])


def test_takes_follow_the_sheet_and_have_scores(jobs):
    first, second, redone = only(jobs).takes()
    assert (first["seed"], second["seed"]) == (7, 8)
    for take in (first, second, redone):
        assert np.isfinite(take["score"]["total"])
        assert [hit["wanted"] for hit in take["hits"]] == [2.5]
        assert {f"film.{kind}" for kind in ("mp4", "wav", "png", "json", "cues.csv")} <= set(take["files"])


def test_a_take_tells_key_and_tempo_of_its_score_and_the_precision(tmp_path, film):
    studio = Studio(save_toy_score_model(tmp_path / "model.safetensors"), "cpu", dtype="bf16")
    jobs = Jobs(tmp_path / "studio")
    job = add(jobs, film)
    job.add_task(compose_task({"steps": 2}))
    work(jobs, studio)
    (take,) = job.takes()
    record = json.loads((job.take(1) / "film.json").read_text())
    assert record["request"]["dtype"] == "bf16"
    assert take["facts"] == {"key": record["score"]["key"], "tempo": record["score"]["tempo"]}


def test_music_without_notes_has_no_facts(jobs):
    assert only(jobs).takes()[0]["facts"] == {}


def test_a_redone_span_leaves_the_rest_and_its_base(jobs):
    job = only(jobs)
    (old, rate), (new, _) = (soundfile.read(job.take(number) / "film.wav") for number in (1, 3))
    changed = np.flatnonzero(old != new) / rate
    assert changed.min() >= 1 and changed.max() <= 3
    assert job.takes()[2]["of"] == 1 and job.takes()[2]["redo"] == [[1.0, 3.0]]


def test_the_estimate_of_a_mix_is_near_the_mix(jobs):
    job = only(jobs)
    mixed = job.takes()[0]["mix"]
    powers = np.load(job.take(1) / ".powers.npy")
    settings = mix_settings({"video_sound": "duck", "under": 15})
    guess = estimate(read_sound(job.path / "sound.npz"), powers, SECONDS, settings)
    assert guess["anchor"] == mixed["anchor"] == "speech"
    assert guess["mix_lufs"] == pytest.approx(mixed["mix_lufs"], abs=1.5)
    assert guess["music_under"] == pytest.approx(mixed["music_under"], abs=1.5)
    louder = estimate(read_sound(job.path / "sound.npz"), powers, SECONDS, mix_settings({"under": 3}))
    assert louder["music_lufs"] > guess["music_lufs"] + 2


def test_tasks_are_done_in_the_order_of_asking_and_a_bad_one_stops_nobody(tmp_path, studio, film):
    jobs = Jobs(tmp_path / "studio")
    first, second = add(jobs, film, "a.mp4"), add(jobs, film, "b.mp4")
    later = second.add_task(compose_task({"steps": 2}))
    bad = first.add_task(compose_task({"steps": 2}), "time,kind\n1,nonsense\n")
    order = [(task.job.name, task.kind) for task in jobs.open_tasks()]
    assert order == [("a", "analyse"), ("b", "analyse"), ("b", "compose"), ("a", "compose")]
    work(jobs, studio)
    states = {task.job.name: task.state for job in jobs for task in job.tasks() if task.kind == "compose"}
    assert states["b"]["state"] == "done" and later.number == 2
    assert states["a"]["state"] == "failed" and "line 2: unknown kind 'nonsense'" in states["a"]["error"]
    assert str(tmp_path) not in states["a"]["error"] and bad.number == 2


def test_a_cancelled_task_stops_and_a_repeated_one_keeps_its_takes(tmp_path, studio, film, monkeypatch):
    jobs = Jobs(tmp_path / "studio")
    job = add(jobs, film)
    work(jobs, studio)
    task = job.add_task(compose_task({"takes": 2, "steps": 2, "seed": 5}))
    with monkeypatch.context() as patch:
        finish = studio._finish
        patch.setattr(studio, "_finish", lambda *rest: (finish(*rest), task.cancel()))
        Worker(jobs, studio).do(task)
    assert job.tasks()[1].state["state"] == "cancelled"
    assert [take["seed"] for take in job.takes()] == [5]
    first = (job.take(1) / "film.wav").stat().st_mtime_ns
    (job.path / "tasks/0002.cancel").unlink()
    task.write_state(state="running", starts=1)  # as a worker leaves it that was killed
    work(jobs, studio)
    assert [(take["number"], take["seed"]) for take in job.takes()] == [(1, 5), (2, 6)]
    assert (job.take(1) / "film.wav").stat().st_mtime_ns == first


@contextmanager
def process(jobs, weights):
    command = [sys.executable, "-m", "diff_v2m.studio.worker", jobs.path, "--weights", weights, "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(toys.ROOT)}
    running = subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, cwd=toys.ROOT, env=environment)
    try:
        yield running
    finally:
        running.stdin.close()  # as if the server ended
        assert running.wait(60) is not None


def until(condition, seconds=240):
    stop = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < stop, "waited too long"
        time.sleep(0.05)


def test_a_killed_worker_is_followed_by_one_that_resumes(tmp_path, weights, film):
    jobs = Jobs(tmp_path / "studio")
    job = add(jobs, film)
    job.add_task(compose_task({"steps": 2, "takes": 8}))
    waiting = job.add_task(compose_task({}))
    waiting.cancel()

    def states():
        return [task.state["state"] for task in job.tasks()]

    with process(jobs, weights) as first:
        until(lambda: states()[1] == "running")
        first.kill()
    assert states() == ["done", "running", "cancelled"]  # nobody is left to say otherwise
    with process(jobs, weights):
        until(lambda: states() == ["done", "done", "cancelled"])
    assert len(job.takes()) == 8


def test_progress_tells_the_share_of_all_takes_and_the_time_left(tmp_path, film, monkeypatch):
    job = add(Jobs(tmp_path / "studio"), film)
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch = Watch(job.add_task(compose_task({"takes": 2})), {"state": "running", "share": 0.0})
    watch.begin(0, 2)
    now += 1.0
    watch("features of film", 6, 6)  # the steps are counted, not what comes before and after them
    assert job.tasks()[1].state["share"] == 0
    for step in range(1, 6):
        now += 1.0
        watch("composing film: 10 steps", step, 10)
    state = job.tasks()[1].state
    assert (state["share"], state["left"]) == (0.25, pytest.approx(15.0))


def test_a_task_that_ends_workers_is_given_up(tmp_path, studio, film):
    jobs = Jobs(tmp_path / "studio")
    job = add(jobs, film)
    job.tasks()[0].write_state(state="running", starts=2)
    Worker(jobs, studio).do(job.tasks()[0])
    assert job.tasks()[0].state["state"] == "failed" and "interrupted twice" in job.tasks()[0].state["error"]


def test_a_job_that_was_removed_meanwhile_is_skipped(tmp_path, studio, film, caplog):
    jobs = Jobs(tmp_path / "studio")
    removed, kept = add(jobs, film, "a.mp4"), add(jobs, film, "b.mp4")
    first, second = jobs.open_tasks()
    jobs.remove(removed.id)
    with caplog.at_level("INFO"):
        Worker(jobs, studio).do(first)
        Worker(jobs, studio).do(second)
    assert f"{removed.id} was removed: its task is skipped" in caplog.text
    assert kept.tasks()[0].state["state"] == "done"
    assert list(jobs) == [kept] and not removed.path.exists()


# ------------------------------------------------------------------------------------------------- from outside


def test_what_is_no_video_leaves_no_folder(tmp_path):
    jobs = Jobs(tmp_path / "studio")
    upload = tmp_path / "upload"
    upload.write_text("not a video")
    with pytest.raises(InputError, match=r"^holiday\.mp4: ") as error:
        jobs.add(upload, "/etc/../holiday.mp4")
    assert str(tmp_path) not in str(error.value)
    assert list(jobs.path.iterdir()) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"steps": 2.5},
        {"seed": -1},
        {"seed": True},
        {"takes": 99},
        {"sampler": "../x"},
        {"guidance_scale": float("nan")},
        {"output_dir": "/"},
        ["steps"],
    ],
)
def test_settings_from_outside_are_checked(settings):
    with pytest.raises(InputError):
        compose_task(settings)


def test_only_files_of_the_job_are_served(jobs, tmp_path):
    job = only(jobs)
    assert job.served("takes/001/film.mp4").read_bytes() == (job.take(1) / "film.mp4").read_bytes()
    assert job.served("takes/001/mix/film.mp4") and job.served("thumbnails.jpg")
    os.symlink(tmp_path, job.path / "takes/001/link")
    (tmp_path / "secret.txt").write_text("")
    os.symlink(tmp_path / "secret.txt", job.path / "takes/001/secret.txt")
    for name in (
        "../x",
        "takes/001/../../job.json",
        "job.json",
        "tasks/0001.json",
        "takes/001/.take.json",
        "takes/001/link",
        "/etc/passwd",
    ):
        assert job.served(name) is None
    assert job.served("takes/001/secret.txt") is None
    os.unlink(job.path / "takes/001/link")
    os.unlink(job.path / "takes/001/secret.txt")
    for id in ("..", "", job.id + "/..", None, "20260101-000000-00000000"):
        with pytest.raises(InputError):
            jobs[id]


def test_names_of_uploads_become_names_of_files():
    assert clean_name("C:\\films\\holiday.mp4") == "holiday.mp4"
    assert clean_name("../../etc/pass\nwd:?.mp4") == "pass_wd_.mp4"
    assert len(clean_name("日" * 300 + ".mp4").encode()) <= 130
    assert clean_name("...") == clean_name("/") == "video" and clean_name("a/.mp4") == "mp4"
    assert json.dumps(clean_name("日本 🎬.mp4"), ensure_ascii=False) == '"日本 🎬.mp4"'
