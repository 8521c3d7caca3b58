"""A video that got longer: the plan goes on from a bar line, the sheet gains rows, another video is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers import toys

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.common.scratch import TEMPORARY
from diff_v2m.cues.sheet import Cue, CueSheet
from diff_v2m.features.video_features import motion_features
from diff_v2m.generation.composition import Composition
from diff_v2m.generation.extending import check_beginning, continuation, lengthened
from diff_v2m.generation.inputs import Clip, Output
from diff_v2m.generation.planning import LONGEST_ENDING, plan_of
from diff_v2m.generation.revision import Earlier, read_earlier, write_latents
from diff_v2m.generation.windows import Window
from diff_v2m.model.music import Music
from diff_v2m.score.planner import on_grid


def shown(seconds: float, seed: int = 1):
    """Features with cuts and motion at exact times; a longer video begins as a shorter one."""
    features, rng = toys.toy_features(120, seed), np.random.default_rng(seed)
    cuts, motion = np.cumsum(rng.uniform(2, 7, 40)), (80 * rng.random(960) ** 3).astype(np.float32)
    whole = replace(features, cut_times=cuts[cuts < 119], **motion_features(motion))
    return whole.slice(0, int(seconds))


def composed(features, windows):
    return Composition(
        Music(np.zeros((1, 10), np.float32)),
        np.zeros(len(features)),
        windows,
        np.zeros((64, 4), np.float16),
        plan=plan_of(features, 3),
    )


def earlier(features):
    about = {"duration": features.duration, "source": "video.mp4"}
    semantic = features.semantic.astype(np.float16)
    return Earlier(about, np.zeros((64, 4)), Music(np.zeros((1, 10))), None, semantic, features.motion)


def test_the_plan_goes_on_from_a_bar_line_before_the_ending():
    short, long = shown(40), shown(90)
    old = composed(short, (Window(0, 30), Window(10, 40.0)))
    start, plan = continuation(old, long, plan_of(long, 3))
    kept = old.plan.grid.beats <= start
    np.testing.assert_array_equal(plan.grid.beats[: kept.sum()], old.plan.grid.beats[kept])
    assert plan.key == old.plan.key and plan.grid.beats[-1] >= 90
    bar = float(np.diff(old.plan.grid.bars).max())
    assert 40 - LONGEST_ENDING - bar - 0.2 <= start < 40 - LONGEST_ENDING
    assert np.abs(old.plan.grid.bars - start).min() < 0.15
    gained = long.cut_times[long.cut_times > start + 1]
    assert on_grid(plan.grid, gained).mean() > 0.8
    assert not np.array_equal(plan_of(long, 3).grid.beats[:20], old.plan.grid.beats[:20])  # what it was before


def test_music_without_a_bar_line_to_join_at_is_all_new():
    old = composed(shown(2), (Window(0, 2.0),))
    fresh = plan_of(shown(30), 3)
    start, plan = continuation(replace(old, windows=(Window(0, 1.2),)), shown(30), fresh)
    assert start == 0 and plan is fresh
    assert continuation(replace(old, plan=None), shown(30), None) == (1.0, None)


def rows(features, end):
    cues = [Cue(float(time), "cut") for time in features.cut_times if time < end]
    return cues + [Cue(float(time), "beat", float(height)) for time, height in features.motion_peaks if time < end]


def test_a_sheet_that_nobody_edited_leaves_cuts_and_beats_to_the_longer_video():
    cues = [*rows(shown(40), 40), Cue(8, "hit"), Cue(3, "rhythm", 1.0), Cue(40, "end")]
    longer = lengthened(CueSheet(cues), 40, shown(90))
    assert not longer.decides("cut") and not longer.decides("beat") and not longer.decides("end")
    assert len(longer["hit"]) == len(longer["rhythm"]) == 1


def test_an_edited_sheet_keeps_its_rows_and_gains_those_after_them():
    long = shown(90)
    longer = lengthened(CueSheet([Cue(5.5, "cut"), Cue(0, "beat", "none"), Cue(40, "end")]), 40, long)
    after = long.cut_times[long.cut_times >= 40]
    assert [cue.time for cue in longer["cut"]] == [5.5, *after]
    assert len(longer["beat"]) == (long.motion_peaks[:, 0] >= 40).sum()
    none = lengthened(
        CueSheet([Cue(5.5, "cut"), Cue(0, "beat", "none")]), 40, replace(long, motion_peaks=np.zeros((0, 2)))
    )
    assert not none["beat"]


def test_another_video_is_refused_and_the_same_one_encoded_again_is_not():
    short, long = shown(40), shown(90)
    check_beginning(earlier(short), long, "a")
    rng = np.random.default_rng(0)
    noisy = replace(
        long, semantic=long.semantic + 0.2 * rng.standard_normal(long.semantic.shape), motion=long.motion + 3
    )
    check_beginning(earlier(short), noisy, "a")
    check_beginning(earlier(shown(1)), long, "a")
    other = shown(90, seed=2)
    for changed in (other, replace(long, semantic=other.semantic), replace(long, motion=np.roll(long.motion, 16))):
        with pytest.raises(InputError, match=r"a: begins otherwise than .* which lasts 0:40; --extend"):
            check_beginning(earlier(short), changed, "a")


def test_plan_pictures_and_motion_are_kept_with_the_latents(tmp_path):
    features = shown(3)
    old = composed(features, (Window(0, 3.0),))
    output = Output(Clip("a", None, output_name="a"))
    media.write_wav(tmp_path / "a.wav", np.zeros((1, 3 * toys.RATE), np.float32), toys.RATE)
    outputs = ["a.wav", write_latents(tmp_path, "a", old, features, "autoencoder")]
    record = {"outputs": outputs, "request": {}, "windows": [], "duration": 3.0}
    (tmp_path / "a.json").write_text(json.dumps(record))
    found = read_earlier(output, tmp_path, "autoencoder", toys.RATE, 1, TEMPORARY)
    np.testing.assert_array_equal(found.plan.grid.beats, old.plan.grid.beats)
    assert (found.plan.key, found.plan.grid.first_downbeat) == (old.plan.key, old.plan.grid.first_downbeat)
    np.testing.assert_array_equal(found.motion, features.motion)
    np.testing.assert_allclose(found.semantic, features.semantic, rtol=1e-3)
