"""Data sets from real wav, npy and json files: audio, features and rhythm of a clip are cut to the same seconds."""

import numpy as np
import pytest
import torch
from helpers.data_folder import RATE, WINDOW, Folder, dataset_config, model_config, peaks
from helpers.toy_scores import toy_score
from torch import distributed

from diff_v2m.common.errors import InputError
from diff_v2m.data.audio_folder import FolderClip, SoundtrackFolder
from diff_v2m.data.collate import collate, feature_batch
from diff_v2m.data.dataset import AudioVideoDataset
from diff_v2m.data.feature_store import load_features
from diff_v2m.data.loader import build_dataloader
from diff_v2m.data.sources import read_score
from diff_v2m.score.midi import write_midi


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


# ------------------------------------------------------------------------------------------ what an item holds


def test_batch_holds_each_clip_padded_to_thirty_seconds(folder):
    folder.add("long", 1, seconds=10, clicks=[3.5]).add("short", 2, seconds=4.3, clicks=[1.2])
    batch = next(iter(build_dataloader(dataset_config(folder), model_config(), batch_size=2)))
    by_name = {name: i for i, name in enumerate(batch.names)}
    long, short = by_name["long"], by_name["short"]
    assert batch.mask.dtype == torch.bool and batch.mask.sum(1)[[long, short]].tolist() == [10, 5]
    assert batch.semantic.shape == (2, 30, 512) and batch.color.shape == (2, 30, 3072)
    assert batch.audio.shape == (2, 1, WINDOW * RATE) and batch.rhythm.shape == (2, 30, 1)
    assert batch.seconds_total[[long, short]].tolist() == [10, 5]
    assert batch.seconds_start.tolist() == [0, 0] and batch.class_label.tolist() == [2, 2]
    assert batch.scene_cut.dtype == torch.int64 and batch.scene_cut[short].nonzero().flatten().tolist() == [1]
    assert peaks(batch.rhythm[long]) == [3] and peaks(batch.rhythm[short]) == [1]
    for stream in (batch.semantic, batch.color, batch.rhythm, batch.pseudo_beats, batch.scene_cut):
        assert not stream[short, 5:].any()
    assert not batch.audio[short, :, round(4.3 * RATE) :].any() and batch.audio[short, :, : round(4.3 * RATE)].any()


def test_a_clip_slightly_longer_than_the_window_is_not_shifted(folder):
    folder.add("a", seconds=30.02, clicks=[3.1, 17.1, 29.8])
    item = AudioVideoDataset(dataset_config(folder, random_crop=True), model_config(seconds=30))[0]
    assert item.rhythm.shape == (30, 1) and peaks(item.rhythm) == [3, 17, 29]
    assert len(item.features.semantic) == 30 and item.seconds_start == 0 and item.seconds_total == 31


def test_crop_is_the_same_for_audio_features_and_rhythm(folder):
    clicks = [2.5, 5.5, 12.5, 14.5, 21.5, 24.5]
    folder.add("a", seconds=25.4, clicks=clicks)
    dataset = AudioVideoDataset(dataset_config(folder, random_crop=True), model_config())
    torch.manual_seed(0)
    starts = set()
    for _ in range(12):
        item = dataset[0]
        start = item.seconds_start
        starts.add(start)
        expected = [int(t) - start for t in clicks if start <= t < start + WINDOW]
        assert peaks(item.rhythm) == expected
        assert item.features.scene_cut.nonzero()[0].tolist() == expected
        assert np.allclose(item.features.semantic[:, 0], (start + np.arange(WINDOW)) / 100)
        loud = torch.nonzero(item.audio[0].abs() > 0.5).flatten()
        assert sorted({int(i) // RATE for i in loud}) == expected
        assert int(loud[0]) == pytest.approx((expected[0] + 0.5) * RATE, abs=2)
    assert starts <= set(range(16)) and len(starts) > 3
    assert {start for _, start in dataset._rhythm} == starts  # one target a start, kept


def test_without_random_crop_the_window_is_the_beginning(folder):
    folder.add("a", seconds=25, clicks=[2.5, 12.5])
    dataset = AudioVideoDataset(dataset_config(folder, random_crop=True), model_config(), random_crop=False)
    assert {dataset[0].seconds_start for _ in range(5)} == {0} and peaks(dataset[0].rhythm) == [2]


def test_sound_and_picture_are_cut_to_the_shorter(folder):
    folder.add("picture_ends", seconds=10, clicks=[1.5, 7.5], feature_seconds=6).add(
        "sound_ends", 1, seconds=5, feature_seconds=9
    )
    dataset = AudioVideoDataset(dataset_config(folder), model_config())
    first, second = dataset[0], dataset[1]
    assert len(first.features.semantic) == len(first.rhythm) == 6 and not first.audio[:, 6 * RATE :].any()
    assert len(second.features.semantic) == len(second.rhythm) == 5


def test_a_score_is_parsed_once(folder, tmp_path):
    path = tmp_path / "a.mid"
    write_midi(path, toy_score(6.0))
    data = dataset_config(folder.add("a"))
    source = SoundtrackFolder(data.datasets[0], data, model_config())
    clip = FolderClip("set", "a", 0, 6.0, 6, None, folder=source, audio=None, latents=None, score=path)
    assert clip.open().score is clip.open().score is read_score(path)


@pytest.mark.parametrize("kind, width", [("odf", 1), ("mel", 16), ("tempo", 16), ("beat", 1)])
def test_every_rhythm_type(folder, kind, width):
    folder.add("a", seconds=6.5, clicks=[2.5])
    item = AudioVideoDataset(dataset_config(folder, rhythm_type=kind), model_config(kind))[0]
    assert item.rhythm.shape == (7, width) and torch.isfinite(item.rhythm).all()
    if kind == "beat":
        assert item.rhythm[:, 0].tolist() == [0, 0, 1.5, 0, 0, 0, 0]


def test_another_sample_rate_and_channel_count_are_converted(folder):
    folder.add("a", seconds=4, clicks=[2.5], rate=44100, channels=2)
    item = AudioVideoDataset(dataset_config(folder), model_config(channels=1))[0]
    assert item.audio.shape == (1, WINDOW * RATE) and peaks(item.rhythm) == [2]
    assert int(item.audio[0].abs().argmax()) == pytest.approx(2.5 * RATE, abs=20)


def test_half_of_the_windows_have_inverted_polarity(folder):
    folder.add("a", seconds=6, clicks=[2.5])
    config = dataset_config(folder)
    upright = AudioVideoDataset(config, model_config(), phase_flip=False)[0]
    dataset = AudioVideoDataset(config, model_config())
    torch.manual_seed(0)
    items = [dataset[0] for _ in range(12)]
    inverted = [torch.equal(item.audio, -upright.audio) for item in items]
    assert 2 < sum(inverted) < 10
    assert all(torch.equal(item.audio, upright.audio) != odd for item, odd in zip(items, inverted, strict=True))
    assert all(torch.equal(item.rhythm, upright.rhythm) for item in items)


# ----------------------------------------------------------------------------------------- what belongs together


def test_clips_are_matched_by_stem_in_whatever_order(folder):
    for number, stem in enumerate(["b_1", "a_0", "c.x_2"]):
        folder.add(stem, number)
    folder.info = dict(reversed(folder.info.items()))
    dataset = AudioVideoDataset(dataset_config(folder), model_config())
    found = {i.name: (i.features.semantic[0, 0], i.features.color[0, 0]) for i in map(dataset.__getitem__, range(3))}
    assert found == {"b_1": (0, 0), "a_0": (1, 1), "c.x_2": (2, 2)}


def test_sets_are_mixed_and_keep_their_label_and_colour(tmp_path):
    one, two = Folder(tmp_path, "one", class_label=0), Folder(tmp_path, "two", class_label=1)
    one.add("x", 1).add("y", 2)
    two.add("x", 3)
    dataset = AudioVideoDataset(dataset_config(one, two), model_config())
    items = [dataset[i] for i in range(3)]
    found = [(item.name, item.class_label, int(item.features.color[0, 0])) for item in items]
    assert found == [("x", 0, 1), ("y", 0, 2), ("x", 1, 3)]


def test_colour_is_all_or_none(tmp_path):
    one, two = Folder(tmp_path, "one").add("x", 1), Folder(tmp_path, "two", color=False).add("y", 2)
    with pytest.raises(InputError, match="two: no video_color"):
        AudioVideoDataset(dataset_config(one, two), model_config())
    blind = AudioVideoDataset(dataset_config(one, two), model_config(color=False))
    assert collate([blind[0], blind[1]]).color is None
    assert collate([AudioVideoDataset(dataset_config(two), model_config())[0]]).color is None


def test_a_feature_folder_shared_by_splits_is_fine(folder, caplog):
    folder.add("train").add("test")
    (folder.root / "wav" / "test.wav").unlink()
    dataset = AudioVideoDataset(dataset_config(folder), model_config())
    assert [clip.stem for clip in dataset.clips] == ["train"]
    assert "1 clips have features but no soundtrack" in caplog.text


# ------------------------------------------------------------------------------------- without a soundtrack


def test_generating_needs_no_soundtrack(folder):
    folder.add("a", 1, seconds=4.5).add("b", 2, seconds=12)
    for wav in (folder.root / "wav").iterdir():
        wav.unlink()
    config = dataset_config(folder, path=None)
    found = list(load_features(config, model_config()))
    batch = feature_batch([f for *_, f in found], [stem for _, stem, _ in found], [2, 2])
    assert batch.names == ["a", "b"] and batch.mask.sum(1).tolist() == [5, 12]
    assert batch.audio is None and batch.rhythm is None and batch.seconds_total.tolist() == [5, 12]


def test_clips_without_features_are_reported(folder):
    folder.add("a").add("b")
    (folder.root / "clip/b.npy").unlink()
    found = {stem: features for _, stem, features in load_features(dataset_config(folder))}
    assert isinstance(found["b"], InputError) and not isinstance(found["a"], InputError)
    found = {stem for _, stem, _ in load_features(dataset_config(folder, path=None))}  # known from the info file
    assert found == {"a", "b"}


def test_a_set_unusable_as_a_whole_spares_the_others(tmp_path):
    one, two = Folder(tmp_path, "one").add("a"), Folder(tmp_path, "two").add("b")
    one.write_provenance("0-old", "hog")
    (_, first, error), (_, second, features) = load_features(dataset_config(one, two), model_config())
    assert first == "one" and isinstance(error, InputError) and second == "b" and len(features.semantic) == 10


def test_windows_of_a_longer_clip_carry_their_place(folder):
    folder.add("a", seconds=20)
    ((_, _, features),) = load_features(dataset_config(folder))
    windows = [features.slice(0, 10), features.slice(10, 20)]
    batch = feature_batch(windows, ["a", "a"], [0, 0], seconds_total=[20, 20], seconds_start=[0, 10])
    assert batch.seconds_start.tolist() == [0, 10] and batch.semantic[1, 0, 0] == pytest.approx(0.1)


# ------------------------------------------------------------------------------------------------- loading


@pytest.mark.slow
def test_loader_repeats_itself_under_a_seed_with_workers(folder):
    for number in range(5):
        folder.add(f"c{number}", number, seconds=14)
    config = dataset_config(folder, random_crop=True, drop_last=True)

    def epochs(seed):
        loader = build_dataloader(config, model_config(), batch_size=2, num_workers=1, seed=seed)
        return [(batch.names, batch.seconds_start.tolist()) for _ in range(2) for batch in loader]

    first = epochs(7)
    assert len(first) == 4 and first == epochs(7) and first != epochs(8) and first[:2] != first[2:]


def test_resuming_within_an_epoch_reads_no_earlier_batch(folder, monkeypatch):
    for number in range(5):
        folder.add(f"c{number}", number)

    def loader():
        return build_dataloader(dataset_config(folder), model_config(), batch_size=2, seed=3)

    whole, resumed, read = [batch.names for batch in loader()], loader(), []
    resumed.load_state_dict({"given": 1})
    inner = AudioVideoDataset.__getitem__
    monkeypatch.setattr(AudioVideoDataset, "__getitem__", lambda *given: read.append(given[1]) or inner(*given))
    rest = [batch.names for batch in resumed]
    assert rest == whole[1:] and len(read) == 3 and resumed.state_dict() == {"given": 3}
    assert len(list(resumed)) == 3


def test_validation_uses_the_beginning_of_every_clip_in_order(folder):
    for number in range(3):
        folder.add(f"c{number}", number, seconds=14)
    config = dataset_config(folder, random_crop=True, drop_last=True)
    loader = build_dataloader(config, model_config(), batch_size=2, training=False)
    assert [batch.names for batch in loader] == [["c0", "c1"], ["c2"]]
    assert all(batch.seconds_start.tolist() == [0] * len(batch) for batch in loader)
    beginning = AudioVideoDataset(config, model_config(), random_crop=False, phase_flip=False)[0]
    assert torch.equal(next(iter(loader)).audio[0], beginning.audio)


def test_an_error_in_a_worker_is_one_line(folder):
    loader = build_dataloader(dataset_config(folder.add("a")), model_config(), batch_size=1, num_workers=1)
    (folder.root / "color/a.npy").write_bytes(b"")
    with pytest.raises(InputError, match="clip a: .*color/a.npy cannot be read") as caught:
        list(loader)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("set: clip a")


@pytest.mark.slow
def test_a_last_batch_that_would_be_dropped_is_an_error_if_it_is_the_only_one(folder):
    config = dataset_config(folder.add("a"), drop_last=True)
    with pytest.raises(InputError, match="1 clips do not fill one batch of 2"):
        build_dataloader(config, model_config(), batch_size=2)


def test_a_share_that_does_not_fill_a_batch_is_an_error(folder, monkeypatch):
    for number in range(5):
        folder.add(f"c{number}", number)
    loader = build_dataloader(dataset_config(folder, drop_last=True), model_config(), batch_size=3)
    assert len(loader) == 1
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    with pytest.raises(InputError, match="5 clips of 2 processes, 2 each, do not fill one batch of 3: .*drop_last"):
        len(loader)
    loader = build_dataloader(dataset_config(folder, drop_last=True), model_config(), batch_size=2)
    assert len(loader) == len(list(loader)) == 1


def test_custom_metadata(folder):
    result = "{'class': 1, 'seconds_total': 9, 'prompt': info['name']}"
    (folder.root / "custom.py").write_text(f"def get_custom_metadata(info, audio):\n    return {result}\n")
    config = dataset_config(folder.add("a"), custom_metadata_module="custom.py")
    item = AudioVideoDataset(config, model_config())[0]
    assert item.class_label == 1 and item.seconds_total == 9
    (folder.root / "broken.py").write_text("x = 1\n")
    with pytest.raises(InputError, match="broken.py: no get_custom_metadata"):
        AudioVideoDataset(dataset_config(folder, custom_metadata_module="broken.py"), model_config())


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("{'class': 5}", "class 5, expected a whole number from 0 to 2"),
        ("{'class': -1}", "class -1, expected a whole number from 0 to 2"),
        ("{'class': 1.5}", "class 1.5, expected a whole number from 0 to 2"),
        ("{'class': 'calm'}", "class 'calm', expected a whole number from 0 to 2"),
        ("{'seconds_start': 'a'}", "seconds_start 'a', expected a finite number"),
        ("{'seconds_total': None}", "seconds_total None, expected a finite number"),
        ("{'seconds_total': float('inf')}", "seconds_total inf, expected a finite number"),
    ],
)
def test_custom_metadata_that_no_model_takes(folder, result, message):
    (folder.root / "custom.py").write_text(f"def get_custom_metadata(info, audio):\n    return {result}\n")
    dataset = AudioVideoDataset(dataset_config(folder.add("a"), custom_metadata_module="custom.py"), model_config())
    with pytest.raises(InputError, match="set: clip a: .*custom.py: get_custom_metadata returned ") as caught:
        dataset[0]
    assert str(caught.value).endswith(message)
