"""The page of a report: its content, and playing, sorting and keys in a real browser."""

import json
import logging
import re
import shutil

import numpy as np
import pytest
from helpers import browser
from helpers.eval_toys import clicks, music, noise, video_with_cuts, write
from helpers.videos import ffmpeg

from inference import evaluate
from inference.report import page, paper, svg

pytestmark = pytest.mark.slow

SECONDS = 3.0
CUTS = [1.0, 2.0]
ODD = "<img src=x onerror=alert(1)>&\"' #1 100%?"
NAMES = ("bare", "holiday", ODD, "rain")  # bare: without a video; holiday: with the mp4 that infer.py writes


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging, "basicConfig", lambda **_: None)  # pytest has its own
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    for k, name in enumerate(NAMES):
        tune = music(k, SECONDS) + clicks(CUTS, SECONDS)
        write(root / "made" / f"{name}.wav", 0.7 * tune + k * noise(k, SECONDS))
        write(root / "real" / f"{name}.wav", tune)
        if name != "bare":
            video_with_cuts(root / "videos" / f"{name}.mp4", CUTS, SECONDS)
    plan = {"generator": "diff-v2m 1", "predicted_rhythm": [0.0, 2.0, 1.0]}
    (root / "made" / "holiday.json").write_text(json.dumps(plan))
    ffmpeg(
        "-i",
        root / "videos" / "holiday.mp4",
        "-i",
        root / "made" / "holiday.wav",
        "-c:v",
        "copy",
        "-c:a",
        "aac",
        root / "made" / "holiday.mp4",
    )
    (root / "made" / "torn.wav").write_bytes(b"RIFF not a wav")
    return root


def evaluated(root, output, *arguments):
    arguments = [
        "--generated",
        root / "made",
        "--reference",
        root / "real",
        "--videos",
        root / "videos",
        "--metrics",
        "fad",
        "rhythm",
        "audio",
        "--output",
        output,
        "--cache",
        root / "cache",
        "--bootstrap",
        "5",
        "--weights-dir",
        root / "none",
        *arguments,
    ]
    return evaluate.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def report(root):
    assert evaluated(root, root / "report") == 1  # for the torn clip
    return root / "report"


@pytest.fixture(scope="module")
def opened(report, tmp_path_factory):
    if browser.MISSING:
        pytest.skip(browser.MISSING)
    with browser.browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


# ------------------------------------------------------------------------------------------------------ content


def test_the_page_is_made_of_the_report_alone(report, tmp_path):
    stored = json.loads((report / "report.json").read_text())
    assert page.html(stored) == (report / "index.html").read_text()


def test_nothing_on_the_page_is_fetched_from_a_network_and_every_file_it_shows_is_there(report):
    from urllib.parse import unquote

    text = (report / "index.html").read_text()
    assert not re.search(r"https?://|//cdn|@import|url\(", text)
    assert "default-src 'none'" in text
    sources = [unquote(source) for source in re.findall(r'<(?:img|audio|video)[^>]* src="([^"]+)"', text)]
    assert len(sources) >= 4 * len(NAMES) and all((report / source).is_file() for source in sources)


def test_the_papers_numbers_stand_apart_and_are_said_not_to_be_comparable(report):
    text = (report / "index.html").read_text()
    row = next(row for row in re.findall(r"<tr>.*?</tr>", text, re.S) if "FAD (VGGish)</th>" in row)
    assert "not computed" in row and '<td class="theirs">1.52</td>' in row
    assert "They are not comparable with this report" in text
    assert paper.published("fad_mel") is None  # no published number is of that measure


def test_pictures_show_the_sound_from_low_to_high_and_the_colours_of_the_video(report):
    from PIL import Image

    known = json.loads((report / "report.json").read_text())["clips"]["rain"]["page"]
    assert known["seconds"] == pytest.approx(SECONDS, abs=0.01) and not known["own_sound"]
    strip = np.asarray(Image.open(report / known["palette"]))[5].astype(int)
    assert abs(strip[0] - [200, 40, 40]).max() < 12 and abs(strip[3] - [30, 60, 220]).max() < 12
    mel = np.asarray(Image.open(report / json_of(report, "bare")["mel"]).convert("L")).astype(float)
    assert mel[96:].mean() > 1.5 * mel[:32].mean()  # notes lie low


def json_of(report, clip):
    return json.loads((report / "report.json").read_text())["clips"][clip]["page"]


def test_a_video_with_the_music_in_it_is_preferred_and_a_clip_without_video_has_its_sound(report):
    assert json_of(report, "holiday")["own_sound"] and json_of(report, "holiday")["video"].endswith("made/holiday.mp4")
    assert json_of(report, "rain")["video"].endswith("videos/rain.mp4")
    bare = json_of(report, "bare")
    assert bare["video"] is None and bare["palette"] is None and bare["audio"] and bare["mel"]
    assert json_of(report, "torn")["mel"] is None
    assert "Skipped: " in (report / "index.html").read_text()


def test_with_copied_media_the_folder_can_be_taken_elsewhere(root, tmp_path):
    evaluated(root, tmp_path / "report", "--copy-media")
    moved = shutil.move(tmp_path / "report", tmp_path / "elsewhere")
    for clip in json.loads((moved / "report.json").read_text())["clips"].values():
        for kind in ("audio", "reference", "video"):
            path = clip["page"][kind]
            assert path is None or path.startswith("media/") and (moved / path).is_file()


def test_drawings_hold_their_values():
    drawn = svg.histogram([0.0, 0.0, 1.0], {"mean": 0.5, "real": None, "chance": 2.0}, (0.0, 1.0))
    heights = [float(h) for h in re.findall(r'class="bar".*?height="([\d.]+)"', drawn)]
    assert heights == [100, 50] and 'class="mean" x1="500.0"' in drawn and "chance" not in drawn
    clip = {"achieved_rhythm": [0.0, 1.0], "cuts": [0.5, 9.0], "beats": []}
    drawn = svg.rhythm(clip, 2.0)
    assert 'points="0.0,84.0 500.0,84.0 500.0,16.0 1000.0,16.0"' in drawn
    assert re.findall(r'class="cut" x1="([\d.]+)"', drawn) == ["250.0"]  # the other lies beyond the end
    assert svg.value_range([3.0, 3.0]) == (2.5, 3.5)


@pytest.mark.parametrize("hours", [0.01, 6, 6.01, 12.5, 24, 40])
def test_the_time_axis_of_any_length_has_labels(hours):
    ticks = page._ticks(hours * 3600)
    assert ticks[0] == (0, "0 s" if hours < 0.02 else "0:00") and len(ticks) <= page.MAX_TICKS + 1
    assert hours > 24 or len(ticks) > 6
    assert all(0 <= place <= 100 and label.count(":") == (hours > 0.02) for place, label in ticks)


# ------------------------------------------------------------------------------------------------------ browser

PLAYER = "document.getElementById(arguments[0]).querySelector('.player')"


def anchor(opened, name):
    script = "return [...document.querySelectorAll('.clip')].find((c) => c.dataset.name === arguments[0]).id"
    return opened.run(script, name)


def order(opened):
    return opened.run("return [...document.querySelectorAll('.clip:not([hidden])')].map((c) => c.dataset.name)")


@pytest.fixture
def shown(opened, report):
    opened.open(report / "index.html")
    opened.complaints()
    opened.open(report / "index.html")
    return opened


def test_names_are_text_and_the_console_stays_silent(shown):
    assert ODD in order(shown)
    assert shown.run("return document.querySelector('img[src=x]')") is None
    shown.until(
        "[...document.images].every((i) => i.loading = 'eager') && [...document.images]"
        ".every((i) => i.complete && i.naturalWidth > 0)"
    )
    assert shown.complaints() == []


@pytest.mark.parametrize("name", ["holiday", ODD])
def test_a_clip_plays_its_music_and_its_video_follows(shown, name):
    id = anchor(shown, name)
    shown.run(f"document.getElementById(arguments[0]).scrollIntoView(); {PLAYER}.play()", id)
    clip = f"document.getElementById('{id}')"
    shown.until(f"{clip}.querySelector('.player').currentTime > 0.5")
    if name == ODD:
        video, sound = (f"{clip}.querySelector('{kind}').currentTime" for kind in (".silent", ".player"))
        shown.until(f"Math.abs({video} - {sound}) < 0.25 && {video} > 0")
    shown.until(f"parseFloat({clip}.querySelector('.head').style.left) > 10")
    other = anchor(shown, "rain")
    shown.run(f"{PLAYER}.play()", other)
    shown.until(f"{clip}.querySelector('.player').paused")  # one at a time
    assert shown.complaints() == []


def test_keys_go_from_clip_to_clip_and_play(shown):
    names = order(shown)
    focused = "return document.activeElement.dataset.name"
    shown.press("j")
    assert shown.run(focused) == names[0]
    shown.press("j", "j", "k")
    assert shown.run(focused) == names[1]
    shown.press("p")
    shown.until("document.activeElement.querySelector('.player').currentTime > 0.2")
    shown.press("p")
    shown.until("document.activeElement.querySelector('.player').paused")
    shown.press("Tab")
    assert shown.run("return document.activeElement.closest('.clip').dataset.name") == names[1]
    shown.run("document.getElementById('find').focus()")
    shown.press("r", "a", "i", "n")  # letters are letters there
    assert order(shown) == ["rain"]
    assert shown.run("return document.getElementById('count').textContent") == "1 of 5 clips"


def test_clips_are_ordered_by_a_metric_worst_first(shown, report):
    metrics = {f["id"]: f for f in json.loads((report / "report.json").read_text())["figures"]}
    scores = metrics["rhythm_r_reference"]["per_clip"]
    shown.run(
        "const o = document.getElementById('order'); o.value = 'rhythm_r_reference';"
        "o.dispatchEvent(new Event('change'))"
    )
    assert order(shown) == [*sorted(scores, key=scores.get), "torn"]  # without a value: at the end


def test_what_cannot_be_played_says_so(shown):
    id = anchor(shown, "torn")
    shown.run("document.getElementById(arguments[0]).scrollIntoView()", id)
    shown.until(f"document.getElementById('{id}').textContent.includes('Cannot be played: ../made/torn.wav')")
    assert shown.complaints() == []


def test_it_fits_a_telephone_and_follows_the_dark(shown):
    back = "return getComputedStyle(document.body).backgroundColor"
    light = shown.run(back)
    shown.media(**{"prefers-color-scheme": "dark"})
    assert shown.run(back) != light
    shown.media(**{"prefers-color-scheme": "light"})
    shown.resize(420, 800)
    assert shown.run("return document.documentElement.scrollWidth <= innerWidth")
    shown.resize(1280, 900)
