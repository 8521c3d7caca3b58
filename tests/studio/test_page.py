"""The page in a real browser, with a real server and worker: from the upload to the mix, and what goes wrong."""

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request

import httpx
import pytest
from gradio_client.exceptions import AppError
from helpers import browser, toys
from helpers.videos import ffmpeg

from diff_v2m.studio.actions import Actions
from diff_v2m.studio.folders import Jobs

pytestmark = [pytest.mark.slow, pytest.mark.skipif(browser.MISSING is not None, reason=str(browser.MISSING))]

SECONDS = 6
PATIENCE = 25  # seconds, of one wait in the browser
MARKS = "[...document.querySelectorAll('.dv-hit')]"
TAKES = "document.querySelectorAll('.dv-take').length"
CHOSEN = "document.querySelector('[aria-label=\"Format of the export\"]')"
UPLOADS = "document.querySelector('[aria-label=Uploads]')"
UNUSUAL = ("<img src=x onerror=console.error(7)>.mp4", "été #1 & 50%3F.mp4")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Weights, videos and job folders."""
    place = tmp_path_factory.mktemp("studio")
    toys.save_toy_model(place / "model.safetensors", student_steps=3)  # it refuses other steps than its own
    silent = toys.write_video(place / "silent.mp4", SECONDS)
    speech = toys.ROOT / "tests/helpers/speech.flac"
    ffmpeg("-i", silent, "-i", speech, "-t", SECONDS, "-c:v", "copy", "-c:a", "aac", place / "film.mp4")
    for name in UNUSUAL:
        (place / name).write_bytes((place / "film.mp4").read_bytes())
    (place / "broken.mp4").write_bytes(b"no video " * 1000)
    with open(place / "huge.mp4", "wb") as file:
        file.truncate(3 << 20)
    return place


class Server:
    """A studio in a process of its own, which can crash and start again at the same address."""

    def __init__(self, place):
        self.place, self.port = place, 0

    def start(self):
        command = [sys.executable, "-m", "diff_v2m", "studio", "--jobs", self.place / "jobs", "--port", self.port]
        command += ["--ckpt-path", self.place / "model.safetensors", "--device", "cpu", "--max-upload", 2]
        environment = {**os.environ, "PYTHONPATH": str(toys.ROOT), "XDG_CACHE_HOME": str(self.place / "cache")}
        self.process = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True, env=environment)
        line = next(line for line in self.process.stderr if "http" in line)
        self.address = re.search(r"http://\S+(?=,)", line)[0]
        self.port = self.address.rsplit(":", 1)[1]
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def crash(self):
        """The worker ends by itself."""
        self.process.kill()
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(place):
    server = Server(place)
    server.start()
    yield server
    server.crash()


@pytest.fixture(scope="module")
def page(tmp_path_factory, server):
    """Opened at the studio, which is read for the first time."""
    with browser.browser(tmp_path_factory.mktemp("profile")) as page:
        page.open(server.address)
        wait(page, "document.querySelector('.studio .dv-queue')")
        yield page


def wait(page, condition, times=6):
    """On a busy machine longer than a script may run."""
    for _ in range(times - 1):
        try:
            page.until(f"!!({condition})", PATIENCE)
            return
        except AssertionError:
            continue
    page.until(f"!!({condition})", PATIENCE)


def errors(page):
    """What the console said of this page; Gradio warns of an event source that it closes."""
    return [said for said in page.complaints() if said["level"] == "SEVERE" or "/studio/" in said["message"]]


def press(page, label, within=".dv-work"):
    buttons = "[...document.querySelectorAll(arguments[0] + ' button')]"
    page.run(f"{buttons}.find((one) => one.textContent === arguments[1]).click()", within, label)


def upload(page, *paths):
    page.upload("#upload input[type=file]", "\n".join(map(str, paths)))


def select(page, start, stop):
    page.run(
        "const [from, until] = document.querySelectorAll('.dv-group input[type=number]');"
        "[from.value, until.value] = arguments; until.dispatchEvent(new Event('change'))",
        start,
        stop,
    )


def job(place):
    return list(Jobs(place / "jobs"))[-1]


def cues(place, kind):
    return [line for line in job(place).sheet.read_text().splitlines() if f",{kind}," in line]


def until(condition, seconds=200):
    stop = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < stop, "waited too long"
        time.sleep(0.1)


def test_what_is_no_video_or_too_large_is_refused_clearly(page, place):
    upload(page, place / "huge.mp4", place / "broken.mp4")
    wait(page, f"/huge.mp4 has 3 MB; .* up to 2 MB .* --max-upload 3/.test({UPLOADS}.textContent)")
    wait(page, f"/broken.mp4: not a video/.test({UPLOADS}.textContent)")
    press(page, "Dismiss", "[aria-label=Uploads]")
    assert list(Jobs(place / "jobs")) == []
    assert not errors(page)


def test_videos_that_come_at_once_all_queue_in_their_order(page, place):
    for name in UNUSUAL:
        upload(page, place / name)
    until(lambda: len(list(Jobs(place / "jobs"))) == 2)
    assert [one.name for one in Jobs(place / "jobs")] == ["_img src=x onerror=console.error(7)_", "été #1 & 50%3F"]
    wait(page, "document.querySelectorAll('.dv-open').length === 2 && !document.querySelector('.dv-queue progress')")
    wait(page, "performance.getEntriesByType('resource').some((one) => /thumbnails/.test(one.name))")
    page.run("window.confirm = () => true")
    Jobs(place / "jobs").remove(list(Jobs(place / "jobs"))[0].id)  # the page shows the other
    press(page, "Remove…")
    wait(page, "!document.querySelector('.dv-open')")
    assert not errors(page)


def test_from_the_upload_to_takes(page, place):
    upload(page, place / "film.mp4")
    wait(page, "document.querySelector('.dv-open strong')?.textContent === 'film'")
    wait(page, "document.querySelector('.dv-board .dv-inner')?.style.width && !document.querySelector('.dv-task')", 12)
    assert page.run("return document.querySelector('.dv-rhythm').getAttribute('aria-valuetext')").startswith(
        "second 0:"
    )
    press(page, "+ Hit")
    wait(page, f"{MARKS}.length === 1")
    box = page.run(
        f"{MARKS}[0].scrollIntoView({{block: 'center'}}); const b = {MARKS}[0].getBoundingClientRect();"
        "return [b.x + b.width / 2, b.y + b.height / 2, document.querySelector('.dv-inner').clientWidth]"
    )
    redraw = "document.addEventListener('pointerdown', () => document.body.classList.add('other'), { once: true })"
    page.run(redraw)  # while the mark is held, as when the window's size changes
    page.drag(box[0] + 1, box[1], box[2] / 2)
    until(lambda: cues(place, "hit") and abs(float(cues(place, "hit")[0].split(",")[0]) - 3) < 0.2)
    rhythm = page.run(
        "const b = document.querySelector('.dv-rhythm').getBoundingClientRect(); return [b.x, b.y, b.width, b.height]"
    )
    before = cues(place, "rhythm")
    page.drag(rhythm[0] + rhythm[2] * 0.25, rhythm[1] + rhythm[3] * 0.2, rhythm[2] / 3)
    until(lambda: sum(old != new for old, new in zip(before, cues(place, "rhythm"), strict=True)) in (2, 3, 4))
    wait(page, "document.querySelectorAll('[aria-label=Compose] input')[2].placeholder === '3'")  # the student's steps
    page.run("document.querySelector('[aria-label=Compose] input').value = 2")
    press(page, "Compose", "form")
    wait(page, "document.querySelector('.dv-task')")
    page.open(page.run("return location.href"))  # a reload cancels nothing, and the page comes back as it was
    wait(page, f"{TAKES} === 2", 12)
    assert page.run(f"return {MARKS}.length") == 1
    assert page.run("return document.querySelectorAll('.dv-best').length") == 1
    assert not errors(page)


def test_spans_are_set_and_what_is_refused_leaves_the_sheet_shown(page, place, tmp_path):
    def spans():
        return page.run(
            "return [...document.querySelectorAll('.dv-span')].map((one) => one.getAttribute('aria-label'))"
        )

    select(page, 1, 2)
    press(page, "Mood")
    select(page, 1.5, 3)
    press(page, "Silence")
    until(lambda: cues(place, "mood") == ["1.0-2.0,mood,navy gold,"] and cues(place, "silence"))
    select(page, 4, 5)
    page.run("document.querySelector('input[type=text]').value = 'blurple'")
    press(page, "Mood")
    wait(page, "/'blurple': expected names of colours/.test(document.querySelector('.dv-message').textContent)")
    wait(page, "document.querySelectorAll('.dv-span').length === 2")
    kept = spans()
    page.downloads(tmp_path)
    page.run(f"{CHOSEN}.value = 'cmx3600'")
    press(page, "Export")
    until(lambda: (tmp_path / "film.edl").exists())
    press(page, "Undo all edits")
    wait(page, "!document.querySelector('.dv-span')")
    page.upload("[aria-label='Import cues']", tmp_path / "film.edl")
    wait(page, "document.querySelectorAll('.dv-span').length === 2")
    assert spans() == kept
    for _ in kept:
        page.run("document.querySelector('.dv-span').focus()")
        page.press("Delete")
    wait(page, "!document.querySelector('.dv-span')")
    assert not errors(page)


def test_a_span_is_composed_again_by_keyboard(page, place):
    page.run("document.querySelector('.dv-rhythm').focus()")
    page.press("Escape", "Right", "Up", "Up")
    page.press("Tab")  # the hit
    assert page.run("return document.activeElement.className").startswith("dv-hit")
    before = cues(place, "hit")
    page.press("Left", "Left")
    until(lambda: cues(place, "hit") != before)
    page.press("h")  # at the playhead
    wait(page, f"{MARKS}.length === 2")
    page.run("document.activeElement.blur(); document.querySelector('.dv-hit').focus()")
    page.press("Delete")
    wait(page, f"{MARKS}.length === 1")
    page.run("document.querySelector('.dv-group input[type=number]').focus()")
    page.press("1", "Tab", "3", "Tab", "Tab", "Tab", "Tab")
    wait(page, "document.activeElement.textContent === 'Compose this span again' && !document.activeElement.disabled")
    page.press("Enter")
    wait(page, f"{TAKES} === 3", 12)
    assert job(place).takes()[2]["redo"] == [[1.0, 3.0]]
    assert not errors(page)


def test_takes_are_compared_and_mixed(page, place):
    page.run(
        "document.querySelector('[data-take=\"1\"] input[name=dv-A]').click();"
        "document.querySelector('[data-take=\"3\"] input[name=dv-B]').click()"
    )
    wait(page, "document.querySelector('.dv-choices input[value=B]')?.checked")
    page.run("document.querySelector('.dv-play').click()")
    wait(page, "parseFloat(document.querySelector('.dv-level').textContent.replace('−', '-')) < 0")
    page.run("document.querySelector('.dv-play').click()")
    figures = "document.querySelector('.dv-loudness').textContent"
    wait(page, f"/LUFS/.test({figures})")
    before = page.run(f"return {figures}")
    page.run(
        "const s = document.querySelectorAll('.dv-slider input')[1]; s.value = 25; s.dispatchEvent(new Event('input'))"
    )
    wait(page, f"{figures} !== {json.dumps(before)}")
    press(page, "Make the mix")
    wait(page, "document.querySelector('[aria-label=Mix] a')?.textContent === 'mp4'", 12)
    with urllib.request.urlopen(page.run("return document.querySelector('[aria-label=Mix] a').href")) as answer:
        assert answer.read()[4:8] == b"ftyp"
    with urllib.request.urlopen(page.run("return document.querySelector('a.dv-button').href")) as answer:
        assert answer.read(2) == b"PK"
    assert not errors(page)


def test_tabs_share_their_edits_and_nothing_comes_from_elsewhere(page, place, server):
    first = page.tabs()[0]
    page.new_tab()
    page.open(server.address)
    wait(page, f"{TAKES} === 3")
    press(page, "+ Hit")
    page.turn_to(first)
    wait(page, f"{MARKS}.length === 2")
    actions = Actions(Jobs(place / "jobs"), lambda: True)  # a third, whose edit this page has not seen yet
    rows = actions.ask({"do": "state", "id": job(place).id})["job"]["cues"]["rows"]
    select(page, 4, 5)
    actions.ask({"do": "save_cues", "id": job(place).id, "cues": [*rows, {"time": 5.5, "kind": "hit", "value": 1}]})
    press(page, "Silence")
    wait(page, f"{MARKS}.length === 3")
    until(lambda: len(cues(place, "hit")) == 3 and len(cues(place, "silence")) == 1)
    names = page.run("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert [name for name in names if not name.startswith((server.address, "blob:", "data:"))] == []
    assert not errors(page)


def test_the_example_of_the_http_api(page, place, server, monkeypatch):
    text = (toys.ROOT / "docs" / "studio.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    example = example.replace("http://127.0.0.1:7860", server.address)
    (place / "video.mp4").write_bytes((place / "silent.mp4").read_bytes())
    monkeypatch.chdir(place)
    names = {}
    exec(compile(example, "docs/studio.md", "exec"), names)
    with urllib.request.urlopen(names["url"]) as answer:
        assert answer.read()[4:8] == b"ftyp"
    with pytest.raises(AppError, match="no job"):
        names["ask"]("compose", id="../..", settings={})
    call = f"{server.address}/gradio_api/call/add"
    for source in (str(place / "film.mp4"), "https://example.org/film.mp4"):  # a path, an address: no uploads
        data = {"data": [{"path": source, "meta": {"_type": "gradio.FileData"}}]}
        event = httpx.post(call, json=data, timeout=60).json()["event_id"]
        assert "event: error" in httpx.get(f"{call}/{event}", timeout=60).text
    with open(place / "huge.mp4", "rb") as file:
        assert httpx.post(f"{server.address}/gradio_api/upload", files={"files": file}, timeout=60).status_code == 413
    assert len(list(Jobs(place / "jobs"))) == 2
    names["ask"]("remove", id=names["job"])


def test_it_fits_a_telephone_and_follows_the_dark(page):
    page.resize(500, 900)
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    page.run("document.body.classList.add('dark')")
    color = "getComputedStyle(document.querySelector(name))[key].match(/\\d+/g)"
    sums = f"(name, key) => {color}.slice(0, 3).reduce((sum, part) => sum + Number(part), 0)"
    wait(page, f"(({sums})('.dv-take', 'backgroundColor') < 150) && (({sums})('.studio h2', 'color') > 450)", 2)
    page.resize(1280, 900)


def test_cancel_ends_the_work_and_a_crash_of_the_server_does_not(page, place, server):
    page.run("document.querySelector('[aria-label=Compose] input').value = 16")
    press(page, "Compose", "form")
    wait(page, "/take \\d+ of 16/.test(document.querySelector('.dv-status').textContent)")
    press(page, "Cancel")
    wait(page, "document.querySelector('.dv-status').textContent === 'cancelled'")
    takes = len(job(place).takes())
    page.run("document.querySelector('[aria-label=Compose] input').value = 4")
    press(page, "Compose", "form")
    until(lambda: job(place).tasks()[-1].state["state"] == "running")
    server.crash()
    wait(page, "!document.querySelector('.dv-lost').hidden")
    server.start()
    wait(page, f"document.querySelector('.dv-lost').hidden && {TAKES} === {takes + 4}", 12)
