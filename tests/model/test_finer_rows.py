"""`rows_per_second` and the beat grid: from exact times to what the network receives, with real parts throughout."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.scores import note_array
from helpers.toys import RATE, toy_features, toy_raw_config, write_video

from diff_v2m.common.errors import InputError
from diff_v2m.config import SHOT_DIM, parse_dataset_config, parse_model_config
from diff_v2m.cues import Cue, CueSheet
from diff_v2m.cues.apply import direct
from diff_v2m.cues.table import format_sheet
from diff_v2m.data.collate import feature_batch
from diff_v2m.data.dataset import AudioVideoDataset
from diff_v2m.features.extract import extract_features
from diff_v2m.features.rhythm import odf, rhythm_target
from diff_v2m.features.semantic import HogEncoder
from diff_v2m.features.shots import find_shots, shot_rows
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.generation.planning import mood_of, plan_of, targets
from diff_v2m.media import write_wav
from diff_v2m.model.dit import LatentDiffusion, at_times
from diff_v2m.model.streams import Stream
from diff_v2m.score.midi import write_midi
from diff_v2m.score.score import BeatGrid, Key, Score, Voice, grid_rows

FINE = 8


def raw_config(*, rows: int = FINE, aligned: tuple[str, ...] = ("grid",), beats: bool = False) -> dict:
    raw = toy_raw_config()
    conditioning = raw["model"]["conditioning"]
    if rows != 1:
        conditioning["rows_per_second"] = rows
        (semantic,) = (entry for entry in conditioning["configs"] if entry["id"] == "semantic")
        semantic["config"]["extractor"] |= {"motion_level": True, "beat_grid": beats}
    raw["model"]["diffusion"]["aligned_cond_ids"] = [*aligned]
    return raw


def timed(seconds: int = 4, cuts=(1.3,), peaks=((2.51, 0.9),)) -> VideoFeatures:
    plain = toy_features(seconds)
    scene_cut, beats = np.zeros(seconds, np.int64), np.zeros(seconds, np.float32)
    scene_cut[np.floor(cuts).astype(int)] = 1
    for time, height in peaks:
        beats[int(time)] = height
    motion = np.linspace(0, 100, seconds * 8, dtype=np.float32)
    return VideoFeatures(
        plain.semantic, plain.color, scene_cut, beats, float(seconds), np.array(cuts), np.array(peaks), motion
    )


def model(raw: dict) -> DiffV2M:
    torch.manual_seed(0)
    config = parse_model_config(raw, "toy")
    network = LatentDiffusion(config)
    with torch.no_grad():
        for parameter in network.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return DiffV2M(network, config)


def test_rows_are_where_the_times_are():
    rows = timed().rows(FINE)
    assert np.flatnonzero(rows.scene_cut).tolist() == [10]
    assert np.flatnonzero(rows.pseudo_beats).tolist() == [20] and rows.pseudo_beats[20] == np.float32(0.9)
    assert rows.motion == pytest.approx(np.linspace(0, 1, 32), abs=1e-6)
    one = timed().rows(1)
    assert one.scene_cut.tolist() == [0, 1, 0, 0] and one.motion is None
    assert [len(values) for values in vars(timed().rows(4)).values()] == [16, 16, 16, 16]


def test_a_slice_has_the_rows_of_its_seconds():
    whole, part = timed(6, cuts=(1.3, 4.0, 5.9)), timed(6, cuts=(1.3, 4.0, 5.9)).slice(2, 5)
    for name in ("scene_cut", "motion"):
        np.testing.assert_allclose(getattr(part.rows(FINE), name), getattr(whole.rows(FINE), name)[16:40], atol=1e-6)
    assert not part.rows(FINE).pseudo_beats.any()  # its own motion rises steadily


def test_features_without_exact_times_are_refused():
    with pytest.raises(InputError, match="needs 8 rows of cuts and motion a second, the features have 1; extract"):
        toy_features(4).rows(FINE)


def test_times_of_a_video_survive_the_files(tmp_path):
    features = extract_features(write_video(tmp_path / "a.mp4", 5, fps=25), HogEncoder())
    assert features.cut_times == pytest.approx([2, 4], abs=0.01) and len(features.motion) == 40
    folder = training_folder(tmp_path, features)
    dataset = AudioVideoDataset(folder, parse_model_config(raw_config(), "toy"), random_crop=False)
    again = dataset.clips[0].open().features
    for name in ("scene_cut", "pseudo_beats", "motion"):
        np.testing.assert_allclose(getattr(again.rows(8), name), getattr(features.rows(8), name), atol=1e-3)


def training_folder(root, features: VideoFeatures, *, scores: bool = True):
    """A data set of one clip: clicks at 0.5, 1.25, 2.0 … s, 80 BPM in D minor."""
    audio = 1e-3 * np.random.default_rng(0).standard_normal(5 * RATE)
    for time in np.arange(0.5, 5, 0.75):
        at = round(time * RATE)
        audio[at : at + 400] += 0.7 * np.sin(np.arange(400)) * np.exp(-np.arange(400) / 80)
    write_wav(root / "wav/a.wav", audio[None], RATE)
    notes = note_array([(time, 0.4, 62, 90) for time in np.arange(0.0, 5.0, 0.75)])
    grid = BeatGrid(np.arange(8) * 0.75, 4)
    write_midi(root / "mid/a.mid", Score((Voice("melody", 0, notes),), grid, Key(2, "minor"), 5.0))
    (root / "info.json").write_text(json.dumps({"a.mp4": features.save(root, "a")}))
    entry = {"id": "set", "path": "wav", "video_feat": "clip", "video_color": "color", "video_info": "info.json"}
    entry |= {"scores": "mid"} if scores else {}
    given = {key: value if key == "id" else str(root / value) for key, value in entry.items()}
    return parse_dataset_config({"dataset_type": "audio_video_dir", "phase_flip": False, "datasets": [given]})


def test_a_training_item_has_fine_rows_and_the_grid_of_its_crop(tmp_path):
    config = parse_model_config(raw_config(), "toy")
    dataset = AudioVideoDataset(training_folder(tmp_path, timed(5)), config, random_crop=True)
    for _ in range(4):
        item = dataset[0]
        assert item.rhythm.shape == (4 * FINE, 1)
        onsets = (np.arange(0.5, 5, 0.75) - item.seconds_start) * FINE
        expected = [int(onset) for onset in onsets if 0 <= onset < 4 * FINE]
        assert set(expected) <= set(np.flatnonzero(item.rhythm[:, 0] > 1).tolist())
        rate = config.latent_rate
        true = grid_rows(
            BeatGrid(np.arange(8) * 0.75, 4),
            Key(2, "minor"),
            frames=config.latent_length(),
            rate=rate,
            start=item.seconds_start,
        )
        assert item.grid.numpy() == pytest.approx(true, abs=0.02)


def test_training_without_scores_says_what_is_missing(tmp_path):
    dataset = AudioVideoDataset(
        training_folder(tmp_path, timed(5), scores=False), parse_model_config(raw_config(), "toy")
    )
    with pytest.raises(InputError, match="conditioned on the beat grid.*as `scores`"):
        dataset[0]


def test_a_finer_onset_curve_has_the_coarse_one_in_it():
    waveform = torch.randn(5 * RATE, generator=torch.Generator().manual_seed(0)) * torch.linspace(0, 1, 5 * RATE)
    coarse, fine = odf(waveform, RATE), odf(waveform, RATE, FINE)
    assert fine.shape == (40, 1) and torch.equal(fine.unflatten(0, (5, FINE)).amax(1), coarse)
    rows = timed().rows(FINE)
    beat = rhythm_target("beat", None, RATE, scene_cut=rows.scene_cut, pseudo_beats=rows.pseudo_beats)
    assert beat[[10, 20], 0].tolist() == pytest.approx([1.0, 0.9])


def test_grid_rows_are_phases_and_key():
    rows = grid_rows(BeatGrid(np.arange(9) * 0.5, 4), Key(9, "dorian"), frames=32, rate=16.0)
    assert rows.shape == (32, 13) and rows[:, 9:].tolist() == [[0, 0, 1, 0]] * 32
    for column, period in ((0, 32), (2, 8), (4, 4), (6, 2)):  # frames of a bar, a beat, its half and its quarter
        phase = np.arctan2(rows[:, column], rows[:, column + 1]) / (2 * np.pi) % 1
        assert phase == pytest.approx((np.arange(32) + 0.5) / period % 1, abs=1e-5)
    assert rows[:, 8] == pytest.approx(0, abs=1e-6)
    slow = grid_rows(BeatGrid(np.arange(9) * 1.0, 4), Key(9, "dorian"), frames=32, rate=16.0)
    assert slow[:, 8] == pytest.approx(1, abs=1e-6)


def test_interpolation_is_as_fine_as_the_tokens():
    times = (torch.arange(16) + 0.5) / FINE
    tokens = torch.zeros(1, 16, 1)
    tokens[0, 5] = 1
    fine = Stream(tokens, torch.ones(1, 16, dtype=torch.bool), times, rate=FINE)
    assert at_times(fine, times)[0, :, 0].tolist() == tokens[0, :, 0].tolist()


@pytest.mark.parametrize("field", ["scene_cut", "pseudo_beats", "motion"])
def test_the_predictor_receives_every_row(field):
    toy = model(raw_config(aligned=()))
    batch = feature_batch([timed()], ["a"], [2], rows_per_second=FINE)
    assert batch.rows_per_second == FINE and getattr(batch, field).shape == (1, 30 * FINE)
    with torch.no_grad():
        before = toy.model.condition(batch)
        getattr(batch, field)[0, 13] = 1 - getattr(batch, field)[0, 13]
        after = toy.model.condition(batch)
    assert before.predicted_rhythm.shape == (1, 30 * FINE, 1)
    assert not torch.equal(before.predicted_rhythm, after.predicted_rhythm)
    assert before.streams.rhythm.times[:2].tolist() == [1 / 16, 3 / 16]


def test_the_predictor_receives_the_beats_of_every_row():
    toy, seen = model(raw_config(beats=True)), []
    toy.model.conditioner.conditioners["semantic"].extractor.grid_linear.register_forward_hook(
        lambda module, given, embedded: seen.append(given[0])
    )
    rate, frames = toy.config.latent_rate, toy.config.latent_length(30 * RATE)
    rows = torch.from_numpy(grid_rows(BeatGrid(np.arange(99) * 0.4, 4), Key(0, "major"), frames=frames, rate=rate))
    with torch.no_grad():
        batch = feature_batch([timed()], ["a"], [2], rows_per_second=FINE, grids=[rows])
        conditions = toy.model.condition(batch)
        other = toy.model.condition(replace(batch, grid=batch.grid.roll(3, dims=1)))
    assert seen[0].shape == (1, 30 * FINE, 13) and not torch.equal(conditions.predicted_rhythm, other.predicted_rhythm)
    times = (torch.arange(30 * FINE) + 0.5) / FINE
    frame_times = (torch.arange(frames) + 0.5) / rate
    nearest = (times[:, None] - frame_times).abs().argmin(dim=1)
    torch.testing.assert_close(seen[0][0], rows[nearest])


@pytest.mark.parametrize("hits", [(), (Cue(2.6, "hit"),)])
def test_an_unedited_sheet_repeats_the_music_of_its_seed(hits):
    toy, clip = model(raw_config(beats=True)), timed()
    sheet = CueSheet(list(hits))
    first = toy.compose([clip], ["a"], steps=2, seed=5, sheets=[sheet])[0]
    assert format_sheet(toy.cue_sheet(clip, "a", seed=5, sheet=sheet)) == format_sheet(first.sheet)
    assert format_sheet(toy.cue_sheet(clip, "a", seed=6, sheet=sheet)) != format_sheet(first.sheet)
    again = toy.compose([clip], ["a"], steps=2, seed=5, sheets=[first.sheet])[0]
    np.testing.assert_array_equal(again.audio, first.audio)
    kept = toy.compose([clip], ["a"], steps=2, seed=6, sheets=[first.sheet])[0]
    np.testing.assert_allclose(kept.rhythm, first.rhythm, atol=1e-3)  # another seed keeps what a sheet says


@pytest.mark.slow
def test_music_follows_grid_and_fine_cuts_and_repeats_itself():
    toy, clip = model(raw_config()), timed()
    first = toy.compose([clip], ["a"], steps=2)[0]
    assert first.rhythm.shape == (4,) and first.plan is not None
    np.testing.assert_array_equal(first.audio, toy.compose([clip], ["a"], steps=2)[0].audio)
    both = toy.compose([timed(9), clip], ["b", "a"], steps=2, batch_size=2)
    assert both[1].audio == pytest.approx(first.audio, abs=1e-4) and len(both[0].windows) > 1
    moved = toy.compose([timed(cuts=(1.6,))], ["a"], steps=2)[0]  # within the same second
    assert not np.array_equal(moved.audio, first.audio)
    other = toy.compose([clip], ["a"], steps=2, variations=[2])[0]
    assert str(other.plan.key) != str(first.plan.key) or other.plan.grid.tempo != first.plan.grid.tempo


@pytest.mark.parametrize("id", ["motion", "shots"])
def test_the_network_reads_motion_and_shot_of_the_moment(id):
    toy = model(raw_config(aligned=(id,)))
    x, t = torch.randn(1, toy.config.latent_channels, 63), torch.tensor([0.5])
    batch = feature_batch([timed()], ["a"], [2], rows_per_second=FINE)
    with torch.no_grad():
        given = toy.model.condition(batch)
        stream = getattr(given.moments, id)
        moved = stream._replace(tokens=stream.tokens.clone())
        moved.tokens[0, 16:24] += 0.5  # the third second
        other = replace(given, moments=given.moments._replace(**{id: moved}))  # the predicted rhythm stays
        before, after = (toy.model.model.precompute(each, 63).aligned for each in (given, other))
        lost = [toy.model.model(x, t, each, condition_dropout=1.0, joint_dropout=1.0) for each in (given, other)]
    changed = (after - before).abs().amax(dim=2)[0] > 1e-6
    times = (torch.arange(63) + 0.5) / toy.config.latent_rate
    assert changed[(times > 2) & (times < 3)].all() and not changed[(times < 1.8) | (times > 3.2)].any()
    assert torch.equal(*lost)


def test_shots_lie_between_cuts_and_end_with_the_video():
    motion = np.concatenate([np.full(8, 0.2), np.linspace(0.3, 0.7, 12), np.ones(4)])
    shots = find_shots(np.array([1.0, 1.1]), motion, rate=8, duration=2.5)  # a row holds one cut
    np.testing.assert_allclose(shots, [[0, 1, 0.2], [1, 2.5, 0.5]], atol=1e-6)
    rows = shot_rows(shots, rate=4, rows=10)
    assert rows.shape == (10, SHOT_DIM) and rows.dtype == np.float32
    levels, since, until = rows[:, :6], rows[:, 6:9], rows[:, 9:]
    np.testing.assert_allclose(levels[:4], np.tile([0, 1.0, 0, 0, 0, 0], (4, 1)), atol=1e-6)  # 0.2 is the second level
    np.testing.assert_allclose(levels[4:], np.tile([0, 0, 0.5, 0.5, 0, 0], (6, 1)), atol=1e-6)  # 0.5 on average
    np.testing.assert_allclose(since[:, 1], np.exp(-np.array([0, 1, 2, 3, *range(6)]) / 4), atol=1e-6)  # seconds
    np.testing.assert_allclose(until[:, 1], np.exp(-np.array([3, 2, 1, 0, *range(5, -1, -1)]) / 4), atol=1e-6)


def test_a_window_has_the_shots_of_the_whole_video():
    whole = timed(20, cuts=(3.2, 14.5))
    rows = whole.rows(FINE).shots
    for start, stop in ((0, 8), (5, 12), (10, 20)):
        np.testing.assert_allclose(
            whole.slice(start, stop).rows(FINE).shots, rows[start * FINE : stop * FINE], atol=1e-6
        )
    twice = whole.slice(2, 16).slice(3, 10)
    np.testing.assert_allclose(twice.rows(FINE).shots, rows[5 * FINE : 12 * FINE], atol=1e-6)


def test_cuts_of_a_sheet_make_the_shots_of_a_slice():
    part = timed(8, cuts=(3.0, 5.0)).slice(2, 8)
    edited = direct(part, CueSheet([Cue(2.0, "cut")]), uses_color=False)
    assert edited.cut_times == pytest.approx([2.0])
    since = edited.rows(FINE).shots[:, 7]  # exp(-seconds since the shot began)
    np.testing.assert_allclose(since, np.exp(-np.array([*range(16), *range(32)]) / FINE), atol=1e-6)


def test_a_cut_changes_the_shots_before_and_after_it():
    toy = model(raw_config(aligned=("shots",)))
    batches = [feature_batch([timed(cuts=cuts)], ["a"], [2], rows_per_second=FINE) for cuts in ((1.3,), (1.3, 2.6))]
    with torch.no_grad():
        one, two = (toy.model.condition(batch).moments.shots.tokens[0] for batch in batches)
    same = (one == two).all(dim=1)
    assert same[:10].all() and not same[10:32].any()  # from the cut before the new one to the end


@pytest.mark.parametrize("id", ["motion", "shots"])
def test_motion_and_shots_need_finer_rows(id):
    with pytest.raises(InputError, match=f"'{id}' needs conditioning.rows_per_second above 1"):
        parse_model_config(raw_config(rows=1, aligned=(id,)), "toy")


def test_the_network_reads_the_grid():
    toy = model(raw_config(rows=1))
    rows = torch.from_numpy(grid_rows(BeatGrid(np.arange(12) * 0.5, 4), Key(0, "major"), frames=63, rate=15.625))
    batches = [feature_batch([timed()], ["a"], [2], grids=[grid]) for grid in (rows, rows.roll(4, 0))]
    x, t = torch.randn(1, toy.config.latent_channels, 63), torch.tensor([0.5])
    with torch.no_grad():
        one, other = (toy.model.model(x, t, toy.model.condition(batch)) for batch in batches)
        dropped = [toy.model.model(x, t, toy.model.condition(batch), joint_dropout=1.0) for batch in batches]
    assert not torch.allclose(one, other)
    assert torch.equal(*dropped)  # classifier-free guidance drops the grid with the streams
    with pytest.raises(InputError, match="no beat grid, but the model is conditioned on one"):
        toy.model.condition(feature_batch([timed()], ["a"], [2]))


def test_absent_keys_add_no_weights():
    plain = set(model(toy_raw_config()).model.state_dict())
    ours = set(model(raw_config()).model.state_dict())
    linear = {f"conditioner.conditioners.semantic.extractor.motion_linear.{i}.{name}" for i in (0, 2) for name in NAMES}
    assert ours - plain == linear | {"model.model.grid_input.weight"} and plain <= ours


NAMES = ("weight", "bias")


def test_configs_that_contradict_themselves_are_refused():
    raw = raw_config(rows=1)
    (semantic,) = (entry for entry in raw["model"]["conditioning"]["configs"] if entry["id"] == "semantic")
    semantic["config"]["extractor"]["motion_level"] = True
    with pytest.raises(InputError, match="extractor.motion_level: needs rows_per_second above 1"):
        parse_model_config(raw, "toy")
    with pytest.raises(InputError, match="aligned_cond_ids: expected 'grid' among them, since the extractor"):
        parse_model_config(raw_config(beats=True, aligned=()), "toy")
    raw = raw_config()
    (semantic,) = (entry for entry in raw["model"]["conditioning"]["configs"] if entry["id"] == "semantic")
    semantic["config"]["rhythm_type"] = "mel"
    with pytest.raises(InputError, match="rhythm_type: expected odf or beat with rows_per_second = 8, got mel"):
        parse_model_config(raw, "toy")


def test_a_plan_follows_cuts_motion_and_palette():
    clip = timed(20, cuts=(4.0, 8.0, 12.0, 16.0))
    planned = plan_of(clip, 5)
    assert planned.hits.all() and planned.grid.beats[0] <= 0 and planned.grid.beats[-1] >= 20
    assert plan_of(clip, 5).key == planned.key
    assert {plan_of(clip, seed).key.tonic for seed in range(99)} == set(range(12))


def test_beats_should_meet_cuts_before_wanted_accents():
    clip = replace(timed(20, cuts=(4.0, 8.0)), accents=np.array([(4.0, 1.0), (6.0, 1.0)]))
    times, weights = targets(clip)
    assert times.tolist() == [4, 6, 8]
    assert weights[0] == weights[2] == 1.0 > weights[1] > 0  # an accent at a cut is a cut


def test_warm_palettes_are_major_and_cool_ones_minor():
    from diff_v2m.features.color import rgb_uv_histogram

    frames = np.zeros((3, 8, 8, 3), np.uint8)
    frames[:] = np.array([[200, 140, 90], [90, 120, 200], [120, 160, 120]])[:, None, None]
    assert [mood_of(row[None]) for row in rgb_uv_histogram(frames)] == ["major", "minor", "modal"]
    assert mood_of(None) == "modal"
