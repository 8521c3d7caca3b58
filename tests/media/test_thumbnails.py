"""Thumbnails: evenly spaced, small, and the same whether read alone or with the features."""

import dataclasses

import numpy as np
import pytest
from helpers import toys

from diff_v2m.features.extract import extract_features, extract_with_thumbnails
from diff_v2m.features.semantic import HogEncoder
from diff_v2m.media import read_thumbnails, thumbnails


@pytest.mark.parametrize(
    ("size", "expected"), [((320, 240), (150, 200)), ((240, 426), (200, 113)), ((64, 48), (48, 64))]
)
def test_thumbnails_are_evenly_spaced_and_small(tmp_path, size, expected):
    video = toys.write_video(tmp_path / "v.mp4", 3.0, size=size)
    found = read_thumbnails(video, 3.0)
    assert found.frames.shape == (6, *expected, 3)
    np.testing.assert_allclose(found.times, np.arange(6) / 2)


def test_a_long_video_has_a_bounded_number(tmp_path):
    video = toys.write_video(tmp_path / "v.mp4", 400.0, fps=2, size=(32, 32))
    assert len(read_thumbnails(video, 400.0).frames) == thumbnails.MOST


def test_one_pass_gives_the_same_features_and_thumbnails(tmp_path):
    video, encoder = toys.write_video(tmp_path / "v.mp4", 4.3), HogEncoder()
    features, together = extract_with_thumbnails(video, encoder)
    alone = read_thumbnails(video, features.duration)
    for one, other in zip(
        dataclasses.astuple(features), dataclasses.astuple(extract_features(video, encoder)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(together.frames, alone.frames)
    np.testing.assert_array_equal(together.times, alone.times)
