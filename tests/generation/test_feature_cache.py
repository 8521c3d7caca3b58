"""Cached features: found by content, extracted once, and never a reason to fail."""

import multiprocessing
import shutil
from dataclasses import astuple

import numpy as np
import pytest
from helpers import toys

from diff_v2m.common.errors import InputError
from diff_v2m.features import semantic
from diff_v2m.generation import feature_cache
from diff_v2m.generation.feature_cache import FeatureCache


class Extract:
    """Features with a count of their extractions."""

    def __init__(self):
        self.calls = 0

    def __call__(self, video):
        self.calls += 1
        if not video.read_bytes():
            raise InputError(f"{video}: empty")
        return toys.toy_features(2.5, self.calls)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"one video")
    return path


def same(one, other):
    return all(np.array_equal(a, b) and type(a) is type(b) for a, b in zip(astuple(one), astuple(other), strict=True))


def test_a_video_is_read_once_whatever_it_is_called(video, tmp_path):
    extract, folder = Extract(), tmp_path / "cache"
    first = FeatureCache(folder).get(video, "hog", extract)
    copy = shutil.copy(video, tmp_path / "renamed.mp4")
    again = FeatureCache(folder).get(type(video)(copy), "hog", extract)
    assert extract.calls == 1 and same(first, again)
    assert {path.suffix for path in folder.iterdir()} == {".npz"}


def test_another_video_encoder_or_version_is_read_again(video, tmp_path, monkeypatch):
    extract, cache = Extract(), FeatureCache(tmp_path / "cache")
    cache.get(video, "hog", extract)
    cache.get(video, "clip", extract)
    video.write_bytes(b"another video")
    cache.get(video, "hog", extract)
    monkeypatch.setattr(feature_cache, "FEATURE_VERSION", -1)
    cache.get(video, "hog", extract)
    assert extract.calls == 4


def test_other_weights_in_the_same_folder_are_not_served_old_features(video, tmp_path, monkeypatch):
    folder, extract = tmp_path / "clip-vit-base-patch32", Extract()
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    monkeypatch.setattr(semantic, "CLIP_FOLDER", folder)
    identities = []
    for weights in (b"one", b"another", b"one"):
        (folder / "model.safetensors").write_bytes(weights)
        cache = FeatureCache(tmp_path / "cache")
        cache.get(video, "clip-vit-base-patch32", extract)
        identities.append(cache.identity("clip-vit-base-patch32"))
    assert extract.calls == 2 and identities[0] == identities[2] != identities[1]
    (folder / "model.safetensors").unlink()
    assert FeatureCache(tmp_path / "cache").holds(video, "clip-vit-base-patch32"), "features outlive the weights"


def test_a_damaged_entry_is_made_again(video, tmp_path):
    extract, cache = Extract(), FeatureCache(tmp_path / "cache")
    cache.get(video, "hog", extract)
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(entry.read_bytes()[:100])
    cache.get(video, "hog", extract)
    assert extract.calls == 2
    assert same(cache.get(video, "hog", extract), toys.toy_features(2.5, 2))


@pytest.mark.parametrize("name", ["taken", "taken" * 100])  # a file; a name too long even to be looked for
def test_an_unusable_folder_gives_only_a_warning(video, tmp_path, caplog, name):
    (tmp_path / "taken").write_text("a file")
    extract, cache = Extract(), FeatureCache(tmp_path / name)
    assert same(cache.get(video, "hog", extract), toys.toy_features(2.5, 1))
    assert same(cache.get(video, "hog", extract), toys.toy_features(2.5, 2))
    assert [record.message for record in caplog.records if "not cached" in record.message][1:] == []
    assert "taken" in caplog.text


def test_a_bad_video_is_the_videos_error_and_leaves_nothing(video, tmp_path):
    video.write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        FeatureCache(tmp_path / "cache").get(video, "hog", Extract())
    with pytest.raises(InputError, match="cannot be read"):
        FeatureCache(tmp_path / "cache").get(tmp_path / "gone.mp4", "hog", Extract())
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())


def keep(video, folder, seed):
    FeatureCache(folder).get(video, "hog", lambda video: toys.toy_features(30.0, seed))


def test_several_processes_may_write_the_same_entry(video, tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=keep, args=(video, tmp_path / "cache", seed)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    (entry,) = (tmp_path / "cache").iterdir()
    kept = FeatureCache(tmp_path / "cache").get(video, "hog", lambda video: pytest.fail("not read"))
    assert any(same(kept, toys.toy_features(30.0, seed)) for seed in range(4))
