"""Inputs of a run: searching folders, names that never collide, parts."""

import json
import os
from pathlib import Path

import pytest

from diff_v2m.common.errors import InputError
from diff_v2m.generation.inputs import collect


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(inputs, output_dir, **options):
    clips, failures = collect(inputs, None, output_dir, **options)
    assert not failures
    return [clip.output_name for clip in clips]


def test_folders_are_searched_at_any_depth_for_videos_only(tmp_path):
    touch(*(tmp_path / name for name in ("b.mp4", "a.MOV", "deep/er/c.webm", "notes.txt", ".hidden.mp4", ".git/d.mp4")))
    assert names([tmp_path], tmp_path / "output") == ["a", "b", "c"]


def test_a_file_named_directly_may_be_called_anything_and_counts_once(tmp_path):
    touch(tmp_path / "video.bin", tmp_path / "b.mp4")
    assert names([tmp_path / "video.bin", tmp_path / "b.mp4", tmp_path], tmp_path / "output") == ["video", "b"]


def test_results_of_an_earlier_run_are_not_inputs(tmp_path):
    touch(tmp_path / "a.mov", tmp_path / "a.mp4", tmp_path / "other.mp4")
    (tmp_path / "a.json").write_text(json.dumps({"generator": "diff-v2m 0.1.0", "outputs": ["a.mp4"]}, indent=1))
    (tmp_path / "other.json").write_text('{"camera": "x"}')
    assert names([tmp_path], tmp_path / "output") == ["a", "other"]


def test_what_cannot_be_found_is_reported_and_the_rest_kept(tmp_path):
    touch(tmp_path / "good.mp4")
    (tmp_path / "empty").mkdir()
    clips, failures = collect([tmp_path / "gone.mp4", tmp_path / "empty", tmp_path / "good.mp4"], None, tmp_path / "o")
    assert [clip.name for clip in clips] == ["good"]
    assert [Path(failure.name).name for failure in failures] == ["gone.mp4", "empty"]
    assert "no videos" in failures[1].reason


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a/clip.mp4", "b/clip.mp4"], ["a_clip", "b_clip"]),
        (["a/clip.mp4", "a/clip.mov"], ["clip_mov", "clip_mp4"]),
        (["a/Clip.mp4", "b/clip.mp4", "b/solo.mp4"], ["a_Clip", "b_clip", "solo"]),
        (["x/a/clip.mp4", "x/b/clip.mp4", "x/b/clip.mkv"], ["a_clip_mp4", "b_clip_mkv", "b_clip_mp4"]),
    ],
)
def test_clips_of_one_name_get_names_that_tell_them_apart(tmp_path, files, expected):
    touch(*(tmp_path / file for file in files))
    assert names([tmp_path], tmp_path / "output") == expected


def test_clips_alike_in_all_but_far_folders_are_told_apart(tmp_path):
    touch(tmp_path / "x/shots/clip.mp4", tmp_path / "y/shots/clip.mp4")
    assert len(set(names([tmp_path], tmp_path / "output"))) == 2


def test_the_noise_seed_uses_the_stem_whatever_the_other_inputs(tmp_path):
    touch(tmp_path / "a/clip.mp4", tmp_path / "b/clip.mp4")
    clips, _ = collect([tmp_path], None, tmp_path / "output")
    assert {clip.name for clip in clips} == {"clip"}


def test_a_variation_must_not_land_on_another_clip(tmp_path):
    touch(tmp_path / "clip.mp4", tmp_path / "clip_v2.mp4")
    assert len(names([tmp_path], tmp_path / "output")) == 2
    with pytest.raises(InputError, match="clip_v2"):
        collect([tmp_path], None, tmp_path / "output", variations=2)


def test_a_video_is_never_written_over(tmp_path):
    touch(tmp_path / "a.mp4", tmp_path / "b.mov")
    os.link(tmp_path / "b.mov", tmp_path / "b.mp4")
    for folder in (tmp_path, tmp_path / "." / "sub" / ".."):
        (tmp_path / "sub").mkdir(exist_ok=True)
        clips, failures = collect([tmp_path / "a.mp4", tmp_path / "b.mov"], None, folder)
        assert not clips and len(failures) == 2 and "output_dir" in failures[0].reason
