"""Broken data sets: each error is one line that names clip and file, and does not affect other clips."""

import logging

import numpy as np
import pytest
import soundfile
from helpers.data_folder import RATE, Folder, dataset_config, model_config

from diff_v2m.common.errors import InputError
from diff_v2m.data.collate import collate
from diff_v2m.data.dataset import AudioVideoDataset
from diff_v2m.data.feature_store import load_features


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def nan_features(folder):
    values = np.ones((10, 512), dtype=np.float32)
    values[3, 7] = np.nan
    folder.save("clip", "bad", values)


BAD = {
    "missing features": (lambda f: (f.root / "clip/bad.npy").unlink(), "clip bad: no video_feat file"),
    "NaN": (nan_features, r"bad\.npy holds NaN or infinity \(first in row 3\)"),
    "wrong width": (lambda f: f.save("clip", "bad", np.ones((10, 256), np.float32)), r"shape \(10, 256\), expected"),
    "one-dimensional": (lambda f: f.save("color", "bad", np.ones(3072, np.float32)), r"color/bad\.npy has shape"),
    "no cuts": (lambda f: f.info["bad.mp4"].update(scene_cut=[]), "0 seconds of scene_cut"),
    "no length": (lambda f: f.info["bad.mp4"].update(duration="30"), "duration is '30', expected seconds"),
    "no seconds": (lambda f: f.save("clip", "bad", np.ones((0, 512), np.float32)), r"shape \(0, 512\)"),
    "integers": (lambda f: f.save("clip", "bad", np.ones((10, 512), np.int64)), "holds int64, expected float32"),
    "not an npy": (lambda f: (f.root / "clip/bad.npy").write_bytes(b"junk"), r"bad\.npy cannot be read"),
    "a pickle": (lambda f: f.save("clip", "bad", np.array([{}])), r"bad\.npy cannot be read as npy"),
    "missing colour": (lambda f: (f.root / "color/bad.npy").unlink(), "clip bad: no video_color file"),
    "missing info": (lambda f: f.info.pop("bad.mp4"), r"info\.json has no entry bad\.mp4"),
    "missing key": (lambda f: f.info["bad.mp4"].pop("scene_cut"), r"bad\.mp4 has no scene_cut"),
    "cut of 2": (lambda f: f.info["bad.mp4"].update(scene_cut=[2] * 10), "something other than 0 and 1"),
    "not numbers": (lambda f: f.info["bad.mp4"].update(pseudo_beats=["x"] * 10), "pseudo_beats of bad.mp4 is not"),
    "other length": (lambda f: f.info["bad.mp4"].update(scene_cut=[0] * 8), "8 seconds of scene_cut, 10 of semantics"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_clip_is_named_at_the_start_and_spares_the_others_at_inference(folder, case):
    damage, message = BAD[case]
    folder.add("bad", 1).add("good", 2)
    damage(folder)
    config = dataset_config(folder)
    with pytest.raises(InputError, match=message) as caught:
        AudioVideoDataset(config, model_config())
    assert "\n" not in str(caught.value)
    found = {stem: features for _, stem, features in load_features(config, model_config())}
    assert isinstance(found["bad"], InputError) and found["good"].semantic.shape == (10, 512)


def test_streams_that_differ_by_one_second_are_trimmed(folder):
    folder.add("a")
    folder.info["a.mp4"] = {"scene_cut": [0] * 11, "pseudo_beats": [0.0] * 9}
    ((_, _, features),) = load_features(dataset_config(folder))
    assert {len(stream) for stream in (features.semantic, features.color, features.scene_cut)} == {9}


def test_events_after_a_trimmed_end_are_dropped(folder):
    """Cuts and peaks of the last second, which the features lack, do not move into the second before."""
    folder.add("a", feature_seconds=9).add("whole", seconds=9.0)
    for stem, seconds in (("a", 10), ("whole", 9)):
        times = {"cut_times": [1.0, seconds - 0.5, seconds + 0.02], "motion_peaks": [[2.0, 0.7], [seconds + 0.02, 1.0]]}
        streams = {"scene_cut": [0] * seconds, "pseudo_beats": [0.0] * seconds, "motion": [0.0] * 8 * seconds}
        folder.info[f"{stem}.mp4"] = streams | times
    found = {stem: features for _, stem, features in load_features(dataset_config(folder))}
    trimmed, whole = found["a"], found["whole"]
    assert trimmed.cut_times.tolist() == [1.0] and trimmed.motion_peaks.tolist() == [[2.0, 0.7]]
    assert not trimmed.rows(8).scene_cut[-1] and not trimmed.rows(8).pseudo_beats[-1]
    assert len(trimmed) == len(whole) == 9
    # the sliver of a second that a whole clip has beyond its last row stays in it
    assert whole.cut_times.tolist() == [1.0, 8.5, 9.02] and len(whole.motion_peaks) == 2
    assert whole.rows(8).scene_cut[-1] and whole.rows(8).pseudo_beats[-1]


def test_sets_unusable_as_a_whole_are_named(folder, tmp_path):
    folder.add("a")
    config = dataset_config(folder)
    entry = config.datasets[0]

    def refused(match, **changes):
        broken = config.model_copy(update={"datasets": (entry.model_copy(update=changes),)})
        with pytest.raises(InputError, match=match):
            AudioVideoDataset(broken, model_config())

    refused("path: training needs the folder", path=None)
    refused("cannot list the folder", video_feat=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused(r"no \.npy files in", video_color=tmp_path / "empty")
    refused("cannot be read", video_info=tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    refused("is not JSON", video_info=tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[]")
    refused("expected", video_info=tmp_path / "list.json")
    soundfile.write(folder.root / "wav" / "a.flac", np.zeros(100), RATE)
    refused(r"clip a twice: a\.flac and a\.wav")


def test_no_stem_in_common(folder):
    folder.add("a")
    (folder.root / "wav/a.wav").rename(folder.root / "wav/b.wav")
    with pytest.raises(InputError, match="no stem in"):
        AudioVideoDataset(dataset_config(folder), model_config())


def test_stale_or_foreign_features_are_refused(folder, caplog):
    config = dataset_config(folder.add("a"))
    AudioVideoDataset(config, model_config(encoder="hog"))
    with pytest.raises(InputError, match="semantics made by hog, the model expects clip-vit-base-patch32"):
        AudioVideoDataset(config, model_config(encoder="clip-vit-base-patch32"))
    folder.write_provenance("0-old", "hog")
    with pytest.raises(InputError, match="features of version 0-old"):
        AudioVideoDataset(config, model_config())
    (folder.root / "features.json").unlink()
    AudioVideoDataset(config, model_config())
    assert "the code and encoder that made its features are unknown" in caplog.text


def test_sets_made_by_different_weights_are_not_mixed(folder, tmp_path, caplog):
    from diff_v2m.common.versions import FEATURE_VERSION

    clip = "clip-vit-base-patch32"
    other = Folder(tmp_path / "more", "other")
    folder.write_provenance(FEATURE_VERSION, f"{clip}@0123")
    other.write_provenance(FEATURE_VERSION, f"{clip}@4567")
    config = dataset_config(folder.add("a"), other.add("b"))
    with pytest.raises(InputError, match="set and other: semantics made by .*@0123 and .*@4567"):
        AudioVideoDataset(config, model_config(encoder=clip))
    other.write_provenance(1, clip)  # by an older version, which does not say
    assert len(AudioVideoDataset(config, model_config(encoder=clip))) == 2
    assert "features of version 1; extract them again if" in caplog.text


def test_another_rhythm_type_than_the_model_predicts(folder):
    with pytest.raises(InputError, match="dataset JSON says mel, the model JSON predicts odf"):
        AudioVideoDataset(dataset_config(folder.add("a"), rhythm_type="mel"), model_config("odf"))


def test_silent_and_broken_audio_is_skipped_and_counted(folder, caplog):
    folder.add("good", 1).add("late", 2, seconds=9).add("silent", 3, silent=True)
    folder.add("broken", 4).add("empty", 5)
    (folder.root / "wav/broken.wav").write_bytes(b"RIFF no")
    (folder.root / "wav/empty.wav").write_bytes(b"")
    late = np.zeros(9 * RATE)
    late[-RATE:] = 0.1  # silent in the middle is not silent
    soundfile.write(folder.root / "wav/late.wav", late, RATE)
    dataset = AudioVideoDataset(dataset_config(folder), model_config())
    assert [clip.stem for clip in dataset.clips] == ["good", "late"]
    assert set(dataset.excluded) == {f"set: clip {stem}" for stem in ("silent", "broken", "empty")}
    assert "3 of 5 clips are skipped" in caplog.text


def test_sound_that_breaks_later_leaves_a_smaller_batch(folder, caplog):
    folder.add("a", 1).add("b", 2)
    dataset = AudioVideoDataset(dataset_config(folder), model_config())
    (folder.root / "wav/a.wav").unlink()
    with caplog.at_level(logging.WARNING):
        batches = [collate([dataset[0], dataset[1]]) for _ in range(2)]
    assert [batch.names for batch in batches] == [["b"], ["b"]]
    assert caplog.text.count("clip a is skipped") == 1
    assert batches[0].skipped == 1 and len(batches[0].mask) == 1
    silence = collate([dataset[0], dataset[0]])  # no clip, only the shapes that other processes need to continue
    assert silence.padding and len(silence) == 1 and silence.skipped == 1
    assert silence.audio.shape == batches[0].audio.shape and not silence.audio.any()
    assert silence.rhythm.shape == batches[0].rhythm.shape and silence.mask.equal(batches[0].mask)


def test_nothing_left_is_an_error(folder):
    with pytest.raises(InputError, match="nothing to train on in set: .*silent"):
        AudioVideoDataset(dataset_config(folder.add("a", silent=True)), model_config())
