"""Several systems on the same clips: the statistics against their definitions, and the page in a real browser."""

import json
import logging

import numpy as np
import pytest
from helpers import browser
from helpers.eval_toys import clicks, music, noise_like, video_with_cuts, write
from scipy.stats import wilcoxon

from diff_v2m.common.errors import InputError
from inference import evaluate, fad
from inference.comparison import differences
from inference.metric import MetricResult, SetStatistic, not_computed
from inference.pairing import MediaFile, common_files

SECONDS, CUTS = 3.0, [1.0, 2.0]
SYSTEMS = ("ours", "late")
CLIPS = 6


def clips(*names):
    return [MediaFile(name, f"/{name}") for name in names]


def of_clips(values, better="higher", id="x"):
    values = {f"{i:02d}": v for i, v in enumerate(values)}
    known = [v for v in values.values() if v is not None]
    return MetricResult(id, id, float(np.mean(known)), better=better, n=len(known), per_clip=values)


def of_set(rows, reference, better="lower"):
    """Rows (clips, frames, d)."""

    def statistic(made, real):
        return fad.fad(np.concatenate(rows[made]), np.concatenate(reference[real]))

    value = statistic(np.arange(len(rows)), np.arange(len(reference)))
    names = [f"{i:02d}" for i in range(len(rows))]
    return MetricResult(
        "fad", "fad", value, better=better, n=len(rows), statistic=SetStatistic(names, statistic, len(reference))
    )


# -------------------------------------------------------------------------------------------------- statistics


def test_holm_is_its_definition_and_keeps_order():
    assert differences.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert differences.holm([0.6, 0.5]) == [1.0, 1.0]
    assert differences.holm([]) == []


def test_clips_are_compared_with_themselves_and_one_without_a_value_in_both_is_skipped():
    rng = np.random.default_rng(0)
    hard = 10 * rng.standard_normal(20)  # clips differ far more than systems do
    first, other = of_clips([*hard, None, 5.0]), of_clips([*(hard + 0.3 + 0.1 * rng.standard_normal(20)), 4.0, None])
    (found,) = differences.differences({"a": [first], "b": [other]}, draws=200, seed=0)
    assert found.n == 20 and found.value == pytest.approx(0.3, abs=0.08)
    assert 0.2 < found.interval[0] < found.value < found.interval[1] < 0.4
    apart = np.array([other.per_clip[c] - first.per_clip[c] for c in list(first.per_clip)[:20]])
    assert found.p == pytest.approx(wilcoxon(apart).pvalue) and found.p == found.p_holm
    assert found.verdict == "better"
    assert differences.differences({"b": [other], "a": [first]}, draws=200, seed=0)[0].verdict == "worse"


def test_many_tests_are_corrected_together_so_that_chance_finds_nothing():
    rng = np.random.default_rng(1)
    results = {name: [of_clips(rng.standard_normal(12), id=str(i)) for i in range(60)] for name in "ab"}
    found = differences.differences(results, draws=20, seed=0)
    assert min(d.p for d in found) < 0.05 < min(d.p_holm for d in found)
    assert {d.verdict for d in found} == {""}


def test_what_is_the_same_everywhere_or_has_no_better_side_is_not_tested():
    same = of_clips([1.0, 0.0, 1.0])
    (found,) = differences.differences({"a": [same], "b": [same]}, draws=20, seed=0)
    assert (found.value, found.p, found.verdict) == (0, None, "")
    (level,) = differences.differences(
        {"a": [of_clips([1.0, 2, 3], better="")], "b": [of_clips([5.0, 6, 7], better="")]}, draws=50, seed=0
    )
    assert level.p is None and level.verdict == "differs"


def test_sets_are_compared_on_the_same_draws_of_the_same_clips():
    rng = np.random.default_rng(2)
    reference = rng.standard_normal((30, 4, 3))
    rows = rng.standard_normal((30, 4, 3)) * (1 + rng.random((30, 1, 1)))
    first = of_set(rows, reference)
    near = of_set(rows + 0.01 * rng.standard_normal(rows.shape), reference)
    far = of_set(rows + 1.0, reference)
    nothing, worse = (differences.difference(first, f, "b", 100, 0) for f in (near, far))
    assert nothing.value == pytest.approx(near.value - first.value)
    low, high = nothing.interval
    assert low - 0.01 < 0 < high + 0.01 and high - low < 0.05  # the set's own interval is far wider
    assert worse.interval[0] > 1 and worse.p is None
    fewer = of_set(rows[5:], reference)
    fewer = MetricResult(
        **{**vars(fewer), "statistic": SetStatistic([f"{i:02d}" for i in range(5, 30)], *_rest(fewer.statistic))}
    )
    found = differences.difference(first, fewer, "b", 50, 0)
    assert found.n == 25 and found.value == pytest.approx(0, abs=1e-9)  # on the clips of both they are the same
    assert "real music" in differences.difference(first, of_set(rows, reference[1:]), "b", 50, 0).reason


def _rest(statistic):
    return statistic.compute, statistic.reference_size


def test_a_metric_missing_in_one_system_has_a_reason_and_no_number():
    missing = not_computed("x", "x", "no weights")
    for pair in ((of_clips([1.0]), missing), (missing, of_clips([1.0]))):
        found = differences.difference(*pair, "b", 20, 0)
        assert found.value is None and found.reason == "not computed: no weights"
    found = differences.difference(of_clips([1.0, None]), of_clips([None, 1.0]), "b", 20, 0)
    assert found.value is None and found.reason == "no clip has a value in both"


def test_only_clips_of_all_systems_count_under_the_first_ones_names():
    found, skipped = common_files({"a": clips("S/1", "S/2", "S/3"), "b": clips("S_3", "S_1", "S_9")})
    assert [c.name for c in found["b"]] == [c.name for c in found["a"]] == ["S/1", "S/3"]
    assert [c.path for c in found["b"]] == ["/S_1", "/S_3"]
    assert skipped == {"S/2": "not in b", "S_9": "not in a"}
    with pytest.raises(InputError, match="no clip of the same stem"):
        common_files({"a": clips("1"), "b": clips("2")})


# ------------------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("comparison")
    for k in range(CLIPS):
        tune = music(k, SECONDS) + clicks(CUTS, SECONDS)
        write(root / "real" / f"{k}.wav", tune)
        write(root / "ours" / f"{k}.wav", 0.7 * tune)
        write(root / "late" / f"{k}.wav", noise_like(np.roll(tune, 5000)))
    video_with_cuts(root / "videos" / "0.mp4", CUTS, SECONDS)
    write(root / "late" / "more.wav", music(9, SECONDS))
    (root / "late" / "5.wav").write_bytes(b"RIFF not a wav")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging, "basicConfig", lambda **_: None)  # pytest has its own
        yield root


@pytest.fixture(scope="module")
def report(root):
    systems = [f"{name}={root / name}" for name in SYSTEMS]
    arguments = [
        "--compare",
        *systems,
        "--reference",
        root / "real",
        "--metrics",
        "fad",
        "rhythm",
        "audio",
        "--output",
        root / "report",
        "--cache",
        root / "cache",
        "--bootstrap",
        "40",
        "--weights-dir",
        root,
    ]
    assert evaluate.main([str(argument) for argument in arguments]) == 1  # for the skipped clips
    return root / "report"


@pytest.mark.slow
def test_a_comparison_is_a_report_of_each_system_and_one_of_their_differences(report):
    found = json.loads((report / "report.json").read_text())
    assert list(found["systems"]) == list(SYSTEMS) and found["left_out"] == {"more": "not in ours"}
    assert found["systems"]["ours"]["left_out"] == {} and list(found["systems"]["late"]["left_out"]) == ["5"]
    apart = {d["id"]: d for d in found["differences"]}
    assert apart["rhythm_r_reference"]["interval"][1] < 0 and apart["rhythm_r_reference"]["n"] == CLIPS - 1
    assert apart["fad_mel"]["verdict"] == "worse" and apart["fad_mel"]["n"] == CLIPS - 1
    assert apart["noisiness"]["verdict"] == "differs" and apart["noisiness"]["value"] > 0.2
    assert apart["fad_vggish"]["reason"].startswith("not computed: no weights")
    for name in SYSTEMS:
        own = json.loads((report / "systems" / name / "report.json").read_text())
        assert own["figures"] == found["systems"][name]["figures"]
        assert (report / found["clips"]["0"][name]["page"]["mel"]).is_file()
        assert (report / found["clips"]["0"][name]["audio"]).resolve().parent.name == name
    text = (report / "report.md").read_text()
    assert "## late minus ours" in text and "Holm" in text and "| FD (log-mel) ↓ |" in text


@pytest.mark.slow
def test_metrics_that_the_first_system_lacks_are_shown_for_the_others(root, tmp_path):
    (tmp_path / "torn").mkdir()
    for k in range(2):
        (tmp_path / "torn" / f"{k}.wav").write_bytes(b"RIFF not a wav")
    systems = ["--compare", f"torn={tmp_path / 'torn'}", f"ours={root / 'ours'}", "--reference", root / "real"]
    options = ["--metrics", "rhythm", "audio", "--output", tmp_path / "report", "--cache", root / "cache"]
    assert evaluate.main([str(argument) for argument in (*systems, *options, "--weights-dir", root)]) == 1
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    rows = {row["metric"]["id"]: row for row in differences.rows(found)}
    for id in ("lufs", "rhythm_r_reference"):
        assert list(rows[id]["systems"]) == ["ours"] and rows[id]["differences"] == {}
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| Rhythm, r with the real music's ↑ | – | 1 |" in text and "| Loudness, LUFS | – | -" in text
    page = (tmp_path / "report" / "index.html").read_text()
    row = page.partition('<th scope="row">Loudness <small>LUFS</small></th>')[2].partition("</tr>")[0]
    assert row.index("not computed") < row.index('<td class="value"')


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--compare", "a=x"], "two or more systems"),
        (["--compare", "a=x", "A=y"], "different names"),
        (["--compare", "../a=x", "b=y"], "expected NAME=DIR"),
        (["--compare", "x", "b=y"], "expected NAME=DIR"),
        ([], "--generated DIR, or --compare"),
    ],
)
def test_systems_that_cannot_be_told_apart_are_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit):
        evaluate.main(arguments)
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_the_page_plays_one_system_on_from_where_the_other_is(report, tmp_path):
    if browser.MISSING:
        pytest.skip(browser.MISSING)
    with browser.browser(tmp_path / "profile") as opened:
        opened.open(report / "index.html")
        clip = "document.getElementById('clip-1')"
        assert opened.run("return document.querySelectorAll('.clip').length") == CLIPS
        ours, late = (f"{clip}.querySelectorAll('.track')[{i}].querySelector('.player')" for i in (0, 1))
        opened.press("j", "1")
        opened.until(f"{ours}.currentTime > 0.6")
        opened.press("2")
        opened.until(f"{ours}.paused && {late}.currentTime > 0.6 && !{late}.paused")
        opened.press("p")
        opened.until(f"{late}.paused")
        opened.run(
            "const o = document.getElementById('order'); o.value = 'noisiness';o.dispatchEvent(new Event('change'))"
        )
        assert opened.run("return document.querySelector('#list .clip:last-child').dataset.name") == "5"  # in one only
        opened.resize(420, 800)
        assert opened.run("return document.documentElement.scrollWidth <= innerWidth")
        assert [c for c in opened.complaints() if "net::ERR" not in c["message"]] == []
