"""The procedural world: reproducible clips that follow its rules, and measures and classifiers of its music."""

import json
from functools import partial

import numpy as np
import pytest
import soundfile
from helpers.toys import save_toy_model

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.config import load_dataset_config
from diff_v2m.metrics.rhythm import correlation
from experiments.synthetic import __main__ as command
from experiments.synthetic import check, measures, music, render, video
from experiments.synthetic.scene import HELD_OUT, INSTRUMENTS, Scene, Segment, plan

RATE = render.SAMPLE_RATE


def scene(*levels: int, seconds: int = 6, minor: bool = False, instrument: int = 0, seed: int = 5) -> Scene:
    """Shots of equal length with these motion levels."""
    shots = tuple(Segment(seconds * n, seconds * (n + 1), level) for n, level in enumerate(levels))
    return Scene(seed, seconds * len(levels), minor, instrument, shots)


# ----------------------------------------------------------------------------------------------------- scenes


def test_scenes_cover_their_clip_with_shots_of_changing_motion():
    scenes = [plan(seed) for seed in range(100)]
    for one in scenes:
        assert one.segments[0].start == 0 and one.segments[-1].stop == one.duration == 30
        for before, after in zip(one.segments, one.segments[1:], strict=False):
            assert before.stop == after.start and before.level != after.level
        assert all(3 <= shot.stop - shot.start <= 10 and shot.level in range(4) for shot in one.segments)
        assert one.cuts == [shot.start for shot in one.segments][1:]
    assert {one.instrument for one in scenes} == set(range(len(INSTRUMENTS)))
    assert {one.minor for one in scenes} == {True, False}


def test_a_seed_is_a_clip():
    def clip(seed: int) -> tuple[np.ndarray, np.ndarray]:
        return np.stack(list(video.render(plan(seed, 6)))), music.render(plan(seed, 6))

    first, again, other = clip(7), clip(7), clip(8)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[1], other[1])
    assert plan(7) == plan(7) != plan(8)


# ------------------------------------------------------------------------------------------- picture and music


def test_frames_and_samples_last_as_long_as_the_scene():
    one = plan(3, 7)
    frames = list(video.render(one))
    assert len(frames) == 7 * video.FPS and frames[0].shape == (video.HEIGHT, video.WIDTH, 3)
    assert all(frame.dtype == np.uint8 for frame in frames)
    audio = music.render(one, RATE)
    assert audio.shape == (7 * RATE,) and audio.dtype == np.float32
    assert np.abs(audio).max() == pytest.approx(0.9)


@pytest.mark.slow
def test_the_picture_cuts_where_the_scene_says():
    one = plan(11, 20)
    frames = np.stack([frame.astype(float) for frame in video.render(one)])
    change = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    largest = np.sort(np.argsort(change)[-len(one.cuts) :] + 1) / video.FPS
    assert one.cuts and largest.tolist() == one.cuts


def test_warm_is_major_and_cool_is_minor():
    for minor in (False, True):
        red, _, blue = np.stack(list(video.render(scene(1, 2, minor=minor)))).mean(axis=(0, 1, 2))
        assert (blue > red) == minor


@pytest.mark.slow
def test_motion_changes_music_and_picture():
    """A busier shot changes more from frame to frame, plays louder and has more onsets."""
    still, busy = scene(0), scene(3)
    moves = [np.abs(np.diff(np.stack(list(video.render(s))).astype(float), axis=0)).mean() for s in (still, busy)]
    assert moves[1] > 3 * moves[0]
    both = music.render(scene(0, 3), RATE).reshape(2, -1)
    assert both[1].std() > 2 * both[0].std()
    density = measures.onset_density(both.ravel(), RATE)
    assert density[6:].mean() > 2 * density[1:6].mean()


def test_a_cut_has_an_onset():
    one = plan(2)
    assert len(one.cuts) > 3
    assert measures.share_hit(one.cuts, measures.onset_times(music.render(one, RATE), RATE)) == 1


@pytest.mark.slow
def test_a_rendered_set_trains_like_any_other(tmp_path, monkeypatch):
    """The features of the written mp4 know the scene's cuts, and nothing is rendered twice.

    (In the busiest shots, level 3, the detector takes some flashes for cuts as it would in any video.)
    """
    monkeypatch.setattr(render, "plan", lambda seed: scene(0, 2, 1, seconds=4, seed=seed))
    render.render_set(tmp_path / "train", range(21, 23))
    info = json.loads((tmp_path / "train/videoInfo_30.json").read_text())
    assert list(info) == ["0000021.mp4", "0000022.mp4"]
    for seed in (21, 22):
        assert np.flatnonzero(info[f"{seed:07d}.mp4"]["scene_cut"]).tolist() == [4, 8]
        samples, rate = soundfile.read(tmp_path / f"train/wav/{seed:07d}.wav")
        assert rate == RATE and np.allclose(samples, music.render(render.plan(seed), RATE), atol=1e-4)
        for kind, width in (("clip", 512), ("color", 3072)):
            assert np.load(tmp_path / f"train/{kind}/{seed:07d}.npy").shape == (12, width)
    mp4 = media.probe(tmp_path / "train/video/0000021.mp4")
    assert mp4.has_audio and (mp4.width, mp4.height) == (160, 90) and mp4.duration == pytest.approx(12, abs=0.1)
    (entry,) = load_dataset_config(tmp_path / "train/dataset.json").datasets
    assert entry.path.is_dir() and entry.video_feat.is_dir() and entry.video.is_dir()

    monkeypatch.setattr(music, "render", None)
    monkeypatch.setattr(video, "render", None)
    monkeypatch.setattr(render, "extract_features", None)
    render.render_set(tmp_path / "train", range(21, 23))


@pytest.mark.slow
def test_commands(tmp_path, monkeypatch):
    """Two calls, as two processes would, share one folder."""
    monkeypatch.setattr(render, "plan", partial(plan, duration=3))
    for first in ("4", "6"):
        assert (
            command.main(["render", "--output", str(tmp_path), "--count", "2", "--first-seed", first, "--held-out"])
            == 0
        )
    names = [str(HELD_OUT + number) for number in (4, 5, 6, 7)]
    assert [path.stem for path in sorted((tmp_path / "wav").iterdir())] == names
    assert list(json.loads((tmp_path / "videoInfo_30.json").read_text())) == [f"{name}.mp4" for name in names]


def test_music_comes_first_where_only_music_is_wanted(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "plan", partial(plan, duration=3))
    arguments = ["render", "--output", str(tmp_path), "--count", "1"]
    assert command.main([*arguments, "--music-only"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wav", "world.json"]
    before = (tmp_path / "wav" / "0000000.wav").stat().st_mtime_ns
    assert command.main(arguments) == 0  # the videos for it
    assert (tmp_path / "video" / "0000000.mp4").is_file() and (tmp_path / "dataset.json").is_file()
    assert (tmp_path / "wav" / "0000000.wav").stat().st_mtime_ns == before


# --------------------------------------------------------------------------------------------------- measures


def clicks(*times: float, seconds: float = 8) -> np.ndarray:
    audio = np.zeros(round(seconds * RATE), np.float32)
    for time in times:
        start = round(time * RATE)
        audio[start : start + 800] += 0.8 * np.exp(-np.arange(800) / 100) * np.sin(np.arange(800) / 2)
    return audio


def test_onsets_are_found_where_they_are():
    times = [0.7, 2.25, 4.5]
    found = measures.onset_times(clicks(*times), RATE)
    assert len(found) == 3 and np.abs(found - times).max() < 0.04
    assert len(measures.onset_times(np.zeros(RATE, np.float32), RATE)) == 0


def test_share_hit():
    onsets = np.array([1.0, 2.0, 3.05])
    assert measures.share_hit([1.09, 2.2, 3.0, 0.95], onsets) == 0.75
    assert measures.share_hit([1.0], np.array([])) == 0 and np.isnan(measures.share_hit([], onsets))
    assert measures.share_hit([1.5], onsets, tolerance=0.6) == 1


def test_pulse_is_clear_in_a_beat_and_not_in_noise():
    beat = measures.pulse_clarity(clicks(*np.arange(0.2, 7.9, 0.5)), RATE)
    noise = measures.pulse_clarity(np.random.default_rng(0).normal(0, 0.3, 8 * RATE), RATE)
    slow = measures.pulse_clarity(clicks(*np.arange(0.2, 7.9, 1.3)), RATE)  # no beat: outside 0.3–0.9 s
    assert beat > 0.8 and noise < 0.2 and slow < 0.2
    assert measures.pulse_clarity(np.zeros(RATE, np.float32), RATE) == 0


def test_onset_density_counts_what_starts_in_a_second():
    density = measures.onset_density(clicks(1.2, 1.5, 1.8, 4.5), RATE)
    assert len(density) == 8 and np.argmax(density) == 1
    assert density[4] > 0 and density[[0, 2, 3, 5, 6, 7]].max() < 0.1 * density[4]


@pytest.mark.parametrize("midi", [57, 60, 66])
def test_chroma_names_the_pitch_class(midi):
    hertz = 440 * 2 ** ((midi - 69) / 12)
    profile = measures.chroma(0.5 * np.sin(2 * np.pi * hertz * np.arange(2 * RATE) / RATE), RATE)
    assert profile.argmax() == midi % 12 and profile.sum() == pytest.approx(1)
    assert not measures.chroma(np.zeros(RATE), RATE).any()


# ----------------------------------------------------------------------------------------------------- classifiers


@pytest.fixture(scope="module")
def classifiers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "FITTED_ON", range(60))
        return check.Classifiers()


@pytest.fixture(scope="module")
def unheard():
    """Scenes that the classifiers were not fitted on, their music, and noise that follows its onsets."""
    scenes = [plan(seed) for seed in range(900, 916)]
    real = [music.render(one, RATE) for one in scenes]
    densities = [measures.onset_density(clip, RATE) for clip in real]
    noise = [measures.noise_following(density, 30 * RATE, RATE, seed) for seed, density in enumerate(densities)]
    return scenes, real, noise


def mean(measure, classifiers, scenes, audio, real) -> float:
    return float(np.nanmean([measure(classifiers, *clip) for clip in zip(scenes, audio, real, strict=True)]))


@pytest.mark.slow
def test_classifiers_are_right_on_real_music(classifiers, unheard):
    scenes, real, _ = unheard
    assert mean(check._mode, classifiers, scenes, real, real) >= 0.85
    assert mean(check._instrument, classifiers, scenes, real, real) >= 0.9
    assert mean(check._pulse, classifiers, scenes, real, real) > 0.6
    assert mean(check._odf, classifiers, scenes, real, real) == pytest.approx(1)
    assert mean(check._cuts, classifiers, scenes, real, real) > 0.95


@pytest.mark.slow
def test_the_instrument_is_recognised_in_a_dull_recording(classifiers, unheard):
    scenes, real, _ = unheard
    rng = np.random.default_rng(1)
    dull = [measures.recoloured(clip, RATE, rng) for clip in real]
    assert max(correlation(a, b) for a, b in zip(dull, real, strict=True)) < 0.999
    assert mean(check._instrument, classifiers, scenes, dull, real) >= 0.9


@pytest.mark.slow
def test_noise_reaches_the_rhythm_score_and_no_other(classifiers, unheard):
    scenes, real, noise = unheard
    assert mean(check._odf, classifiers, scenes, noise, real) > 0.4
    assert 0.2 <= mean(check._mode, classifiers, scenes, noise, real) <= 0.8
    assert mean(check._instrument, classifiers, scenes, noise, real) <= 0.55
    assert mean(check._pulse, classifiers, scenes, noise, real) < 0.3


@pytest.mark.slow
def test_the_wrong_music_does_not_follow(classifiers, unheard):
    scenes, real, _ = unheard
    assert abs(mean(check._odf, classifiers, scenes, real[1:] + real[:1], real)) < 0.3


@pytest.mark.slow
def test_check_prints_the_table_for_a_model(tmp_path, monkeypatch, classifiers, capsys):
    """From raw videos to finished wavs, with random weights: all values are measured, most thresholds missed."""
    short = partial(plan, duration=8)
    monkeypatch.setattr(check, "plan", short)
    monkeypatch.setattr(render, "plan", short)
    monkeypatch.setattr(check, "Classifiers", lambda: classifiers)
    model = save_toy_model(tmp_path / "toy.safetensors")
    command.main(
        [
            "check",
            "--ckpt_path",
            str(model),
            "--output",
            str(tmp_path / "check"),
            "--count",
            "2",
            "--steps",
            "2",
        ]
    )
    table = capsys.readouterr().out
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    assert len({len(cells) for cells in lines}) == 1 and len(lines) == 2 + len(check.ROWS) + 2
    rows = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
    onsets = rows[check.ROWS[0].name]
    assert onsets[0] == "1.00" and "MISSED" in onsets[-1] and "2 held-out clips." in table
    for kind, suffix in (("true", "wav"), ("video", "mp4"), ("wav", "wav")):
        assert len(list((tmp_path / "check" / kind).glob(f"*.{suffix}"))) == 2
    finished, rate = soundfile.read(tmp_path / "check/wav" / f"{HELD_OUT}.wav")
    assert rate == RATE and len(finished) == 8 * RATE


def test_clips_of_another_world_are_refused(tmp_path):
    render.claim_folder(tmp_path / "new")
    render.claim_folder(tmp_path / "new")  # the same version
    (tmp_path / "new" / "world.json").write_text('{"world_version": 1}')
    with pytest.raises(InputError, match='no world.json of {"world_version": '):
        render.render_set(tmp_path / "new", range(1))
    (tmp_path / "no version").mkdir()
    soundfile.write(tmp_path / "no version" / "0000000.wav", np.zeros(RATE), RATE)
    with pytest.raises(InputError, match='no world.json of {"world_version": '):
        check.check(tmp_path / "model", tmp_path / "no version")


def test_check_refuses_one_clip_alone(tmp_path):
    with pytest.raises(InputError, match="--count 1"):
        check.check(tmp_path / "model", tmp_path / "out", count=1)
