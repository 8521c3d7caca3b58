"""The blind listening test: what it reveals to listeners, the page in a real browser, and the analysis of answers."""

import json
import logging
import os
import re
import shutil

import numpy as np
import pytest
from helpers import browser
from helpers.eval_toys import music, noise, video_with_cuts, write
from scipy.stats import beta

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.media import metering
from inference.listening_test import __main__ as listening
from inference.listening_test import building, preferences

SECONDS = 1.6
SYSTEMS = ("quokka", "wombat")
CLIPS = ("heron", "zebra")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Systems that differ in rate, channels, length and level."""
    root = tmp_path_factory.mktemp("listening")
    for k, name in enumerate(CLIPS):
        video_with_cuts(root / "videos" / f"{name}.mp4", [0.8], SECONDS)
        write(root / "quokka" / f"{name}.wav", 0.9 * music(k, SECONDS))
        write(root / "wombat" / f"{name}.wav", np.stack([0.2 * noise(k, 3.0, 22050)] * 2), 22050)
    write(root / "quokka" / "alone.wav", music(5, SECONDS))
    for name in SYSTEMS:
        write(root / name / "unseen.wav", music(6, SECONDS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging, "basicConfig", lambda **_: None)  # pytest has its own
        yield root


def made(root, output, *arguments):
    arguments = [
        "make",
        *(f"--system={name}={root / name}" for name in SYSTEMS),
        "--videos",
        root / "videos",
        "--output",
        output,
        *arguments,
    ]
    return listening.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def page(root):
    assert made(root, root / "test") == 1  # for the clips that could not be used
    return root / "test"


@pytest.fixture(scope="module")
def key(page):
    return json.loads((page.parent / "test-key.json").read_text())


# ----------------------------------------------------------------------------------------------------- blindness


def test_nothing_that_a_listener_gets_tells_whose_music_it_is(page, key):
    files = sorted(path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file())
    assert files == ["index.html", *(f"media/{k:03d}.mp4" for k in range(1, 5))]
    text = (page / "index.html").read_text()
    assert not any(word in text for word in (*SYSTEMS, *CLIPS)) and not re.search(r"https?://", text)
    for path in (page / "media").iterdir():
        assert not any(word.encode() in path.read_bytes() for word in (*SYSTEMS, *CLIPS))
    pairs = [(key["media"][a]["clip"], key["media"][b]["clip"]) for a, b in known(page)["trials"]]
    assert sorted(pairs) == [(clip, clip) for clip in CLIPS]


def known(page):
    return json.loads(re.search(r'id="known">(.*?)</script>', (page / "index.html").read_text(), re.S)[1])


def test_all_music_for_a_clip_is_of_one_loudness_one_length_and_one_format(page, key):
    for clip in CLIPS:
        found = [page / "media" / f"{k}.mp4" for k, known in key["media"].items() if known["clip"] == clip]
        assert [media.audio_format(path) for path in found] == [(44100, 2)] * 2
        sounds = [media.read_audio(path, 44100, 2) for path in found]
        levels = [metering.integrated_loudness(sound, 44100) for sound in sounds]
        assert levels[0] == pytest.approx(levels[1], abs=1) and max(map(metering.true_peak, sounds)) < 0
        assert [media.probe(path).duration for path in found] == pytest.approx([SECONDS] * 2, abs=0.06)


@pytest.mark.slow
def test_the_seed_decides_and_no_two_tests_are_mixed(root, page, key, tmp_path, caplog):
    made(root, tmp_path / "again")
    assert (tmp_path / "again" / "index.html").read_text() == (page / "index.html").read_text()
    keys = []
    for seed in range(1, 4):
        made(root, tmp_path / f"seed {seed}", "--seed", seed, "--clips", 1, "--key", tmp_path / f"{seed}.json")
        keys.append(json.loads((tmp_path / f"{seed}.json").read_text()))
        assert len(keys[-1]["media"]) == 2
    assert len({json.dumps(k["media"]) for k in keys}) > 1 and len({k["test"] for k in keys}) == 3
    assert made(root, page) == 1 and "exists; name a new folder" in caplog.text
    assert made(root, tmp_path / "new", "--key", tmp_path / "new" / "key.json") == 1
    assert "put it elsewhere" in caplog.text
    assert not (tmp_path / "new").exists()


def test_a_name_that_is_not_utf8_is_a_clip_like_any_other(root, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    for side, suffix in (*((system, "wav") for system in SYSTEMS), ("videos", "mp4")):
        (tmp_path / side).mkdir()
        shutil.copy(root / side / f"heron.{suffix}", tmp_path / side / f"{name}.{suffix}")
    assert made(tmp_path, tmp_path / "test") == 0
    key = json.loads((tmp_path / "test-key.json").read_text())
    assert [of["clip"] for of in key["media"].values()] == [name, name]


def test_unusable_clips_are_listed_and_no_file_is_left(root, page, tmp_path, caplog, capsys):
    shutil.copytree(root / "quokka", tmp_path / "a")
    write(tmp_path / "a" / "heron.wav", music(0, 0.3))
    skipped = building.make(
        {"a": tmp_path / "a", "b": root / "wombat"}, root / "videos", tmp_path / "test", tmp_path / "key.json", seed=0
    )
    assert set(skipped) == {"alone", "unseen", "heron"} and "0.30 s" in skipped["heron"]
    assert skipped["alone"] == "not in b" and skipped["unseen"] == "no video of that name"
    (tmp_path / "a" / "zebra.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match="no clip can be shown"):
        building.make(
            {"a": tmp_path / "a", "b": root / "wombat"},
            root / "videos",
            tmp_path / "other",
            tmp_path / "other.json",
            seed=0,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "key.json", "test"]
    with pytest.raises(SystemExit):
        listening.main(["make", "--system", "a=x", "--videos", "v", "--output", "o"])
    assert "two or more" in capsys.readouterr().err


def test_a_negative_seed_is_wrong_usage(capsys):
    sets = ["--system", "a=x", "--system", "b=y", "--videos", "v", "--output", "o"]
    for command in (["make", *sets], ["analyse", "answers.json", "--key", "key.json"]):
        with pytest.raises(SystemExit):
            listening.parse([*command, "--seed", "-1"])
        assert "'-1': expected a whole number from 0 up" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- browser


@pytest.fixture
def opened(page, tmp_path):
    if browser.MISSING:
        pytest.skip(browser.MISSING)
    with browser.browser(tmp_path / "profile") as running:
        running.downloads(tmp_path)
        running.open(page / "index.html")
        yield running


def begin(opened, name):
    opened.run("document.getElementById('listener').focus()")
    opened.press(*name, "Enter")


def progress(opened):
    return opened.run("return document.getElementById('progress').textContent")


def missing(opened):
    return opened.run("return document.getElementById('missing').textContent")


def hear_both(opened):
    for key, side in (("a", 0), ("b", 1)):
        opened.press(key)
        opened.until(f"document.querySelectorAll('video')[{side}].ended", 40)


@pytest.mark.slow
def test_a_listener_goes_through_it_by_keyboard_and_saves_answers_that_can_be_analysed(opened, page, key, tmp_path):
    begin(opened, "ann")
    assert progress(opened) == "Pair 1 of 2" and missing(opened) == "Listen to A and B first"
    opened.press("Enter")
    assert progress(opened) == "Pair 1 of 2"  # not before both were heard
    hear_both(opened)
    opened.until("document.getElementById('missing').textContent === '4 of 4 questions are unanswered'")
    wanted = {"quality": 1, "match": 2, "sync": 3, "overall": 1}  # presses of the arrow: no difference, B, A; …
    for name, times in wanted.items():
        opened.run("document.querySelector(`input[name=${arguments[0]}]`).focus()", name)
        opened.press("Space", *["Right"] * times)
    assert missing(opened) == ""
    opened.open(page / "index.html")  # as if it had been closed
    begin(opened, "ann")
    assert progress(opened) == "Pair 2 of 2"  # resumes
    shown = opened.run("return [...document.querySelectorAll('video')].map((v) => v.getAttribute('src').slice(6, 9))")
    hear_both(opened)
    for name in wanted:
        opened.run("document.querySelector(`input[name=${arguments[0]}][value='0']`).click()", name)
    opened.press("Enter")
    assert progress(opened) == "ann: all 2 pairs answered"
    opened.run("document.getElementById('save').click()")
    saved = tmp_path / f"answers-{key['test']}-ann.json"
    opened.until("true")
    for _ in range(200):
        if saved.is_file():
            break
        opened.until("true", 1)
    found = json.loads(saved.read_text())
    first, second = found["trials"]
    assert list(first["answers"].values()) == ["same", first["media"][1], first["media"][0], "same"]
    assert second["media"] == shown and set(second["answers"].values()) == {shown[0]}
    assert min(first["heard"] + second["heard"]) > 0.8 * SECONDS
    assert opened.complaints() == []
    assert (
        listening.main(
            [
                "analyse",
                str(saved),
                "--key",
                str(page.parent / "test-key.json"),
                "--output",
                str(tmp_path / "found.json"),
            ]
        )
        == 0
    )
    line = json.loads((tmp_path / "found.json").read_text())["preferences"][0]
    assert line["question"] == "quality" and line["undecided"] == 1
    assert line["chosen"][SYSTEMS.index(key["media"][shown[0]]["system"])] == 1


@pytest.mark.slow
def test_listeners_have_orders_and_sides_of_their_own_and_it_fits_a_telephone(opened):
    seen = set()
    for name in ("ann", "bob", "cyd", "dan", "eve", "flo"):
        opened.run("location.reload()")
        opened.until("document.getElementById('start') && !document.getElementById('start').hidden")
        begin(opened, name)
        opened.until("!document.getElementById('trial').hidden")
        seen.add(tuple(opened.run("return [...document.querySelectorAll('video')].map((v) => v.src.slice(-7))")))
    assert len(seen) > 2
    opened.resize(420, 800)
    assert opened.run("return document.documentElement.scrollWidth <= innerWidth")
    assert opened.complaints() == []


# ------------------------------------------------------------------------------------------------------ analysis


def answers(path, key, listener, choose, **changes):
    """A file as the page saves it; `choose`: clip → the system that is chosen, or None."""
    trials = []
    for clip in sorted({known["clip"] for known in key["media"].values()}):
        numbers = {known["system"]: k for k, known in key["media"].items() if known["clip"] == clip}
        system = choose(clip)
        answer = numbers[system] if system else "same"
        trials.append({"media": list(numbers.values()), "answers": dict.fromkeys(key["questions"], answer)})
    path.write_text(json.dumps({"format": 1, "test": key["test"], "listener": listener, "trials": trials, **changes}))
    return path


@pytest.fixture
def large(tmp_path):
    """The key of a test of ten clips."""
    key = {
        "format": 1,
        "test": "abc",
        "questions": {"quality": "?"},
        "systems": {"x": "", "y": ""},
        "media": {f"{2 * c + s:03d}": {"clip": str(c), "system": "xy"[s]} for c in range(10) for s in (0, 1)},
    }
    (tmp_path / "key.json").write_text(json.dumps(key))
    return key


def test_shares_have_the_exact_binomial_interval_and_those_who_chose_none_are_counted_apart(large, tmp_path):
    path = answers(tmp_path / "a.json", large, "a", lambda clip: None if clip == "9" else "y" if clip in "01" else "x")
    (line,) = preferences.analyse([path], tmp_path / "key.json", 500, 0)["preferences"]
    assert line["chosen"] == [7, 2] and line["undecided"] == 1 and line["share"] == pytest.approx(7 / 9, abs=1e-5)
    assert line["exact"] == pytest.approx([beta.ppf(0.025, 7, 3), beta.ppf(0.975, 8, 2)], abs=1e-4)  # Clopper–Pearson
    assert line["p"] == pytest.approx(2 * (36 + 9 + 1) / 2**9, abs=1e-5)
    low, high = line["bootstrap"]
    assert line["exact"][0] - 0.1 < low < 7 / 9 < high <= 1
    assert line["agreement"] is None and line["kappa"] is None


def test_agreement_of_listeners_is_what_chance_does_not_explain(large, tmp_path):
    def even(clip):
        return "x" if int(clip) % 2 else "y"

    pairs = {
        "same": (even, even),
        "opposite": (even, lambda clip: "y" if int(clip) % 2 else "x"),
        "none": (even, lambda clip: "x" if clip in "12569" else "y"),
        "all x": (lambda _: "x",) * 2,
    }
    found = {}
    for name, choices in pairs.items():
        paths = [answers(tmp_path / f"{name} {i}.json", large, str(i), choose) for i, choose in enumerate(choices)]
        (line,) = preferences.analyse(paths, tmp_path / "key.json", 100, 0)["preferences"]
        found[name] = line["agreement"], line["kappa"]
    assert found["same"] == (1, 1) and found["opposite"] == (0, -1)
    assert found["none"] == (pytest.approx(0.6), pytest.approx(0.2))
    assert found["all x"] == (1, None)  # κ is undefined where nothing varies


def test_many_answers_of_one_listener_are_not_many_listeners(large, tmp_path):
    """Each listener gives equal answers: the exact interval is far too narrow, the bootstrap interval is not."""
    paths = [answers(tmp_path / f"{i}.json", large, str(i), lambda clip, i=i: "x" if i < 4 else "y") for i in range(6)]
    (line,) = preferences.analyse(paths, tmp_path / "key.json", 1000, 0)["preferences"]
    width = {kind: line[kind][1] - line[kind][0] for kind in ("exact", "bootstrap")}
    assert width["bootstrap"] > 2 * width["exact"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test": "other"}, "is the key of abc"),
        ({"format": 2}, "format 2"),
        ({"trials": "x"}, "expected answers"),
        ({"trials": [{"media": ["000", "999"], "answers": {}}]}, "does not have"),
        ({"trials": [{"media": ["000", "003"], "answers": {}}]}, "does not offer"),
        ({"trials": [{"media": ["000", "001"], "answers": {"quality": "002"}}]}, "does not offer"),
        ({"trials": [1]}, "does not have"),
        ({"trials": []}, "no answer"),
    ],
)
def test_answers_that_do_not_belong_here_are_one_line(large, tmp_path, changes, words):
    path = answers(tmp_path / "a.json", large, "a", lambda clip: "x", **changes)
    with pytest.raises(InputError, match=words) as error:
        preferences.analyse([path], tmp_path / "key.json", 10, 0)
    assert "\n" not in str(error.value) and "a.json" in str(error.value)


def test_files_that_are_no_answers_or_of_one_listener_twice_are_one_line(large, tmp_path, caplog):
    good = answers(tmp_path / "a.json", large, "a", lambda clip: "x")
    (tmp_path / "torn.json").write_text("{")
    for paths, words in (
        ([good, good], "'a' is in"),
        ([tmp_path / "torn.json"], "no JSON"),
        ([tmp_path / "gone.json"], "cannot be read"),
    ):
        assert listening.main(["analyse", *map(str, paths), "--key", str(tmp_path / "key.json")]) == 1
        assert words in caplog.records[-1].getMessage()
