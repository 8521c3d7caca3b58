"""Inputs of a run: searching folders, names that never collide, parts."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
from helpers.videos import ffmpeg, numbered, tone, write_video

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import write_json
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


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "real.mp4", numbered(3))


def test_videos_of_any_suffix_are_found_and_the_rest_is_named(tmp_path, video, caplog):
    ffmpeg("-i", video, "-c:v", "mpeg2video", tmp_path / "camera.mxf")
    shutil.copy(video, tmp_path / "no suffix")
    ffmpeg(*tone(0.1), tmp_path / "song.wav")
    ffmpeg("-i", video, "-frames:v", 1, tmp_path / "still.png")
    (tmp_path / "list.txt").write_text(f"ffconcat version 1.0\nfile {video}\n")
    os.mkfifo(tmp_path / "pipe")
    with caplog.at_level(logging.INFO, logger="diff_v2m"):
        assert names([tmp_path], tmp_path / "output") == ["camera", "no suffix"]
    assert "passed over list.txt, pipe, song.wav, still.png, no videos" in caplog.text


def test_linked_folders_are_searched_once(tmp_path, video):
    (tmp_path / "videos").mkdir()
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(video, tmp_path / "elsewhere" / "a.mp4")
    (tmp_path / "videos" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "videos" / "circle").symlink_to(tmp_path / "videos")
    assert names([tmp_path / "videos"], tmp_path / "output") == ["a"]


@pytest.mark.parametrize("suffix", [".png", ".DPX"])
def test_a_folder_of_pictures_says_what_to_do(tmp_path, suffix):
    touch(*(tmp_path / f"{n:04}{suffix}" for n in range(3)))
    _, failures = collect([tmp_path], None, tmp_path / "output")
    assert "no videos in this folder, but 3 pictures; make a video of them first" in failures[0].reason


def test_a_name_that_is_not_utf8_becomes_text(tmp_path, video):
    for name in (b"caf\xe9.mp4", b"\xff\xfe.mov", "ж.mp4".encode()):
        shutil.copy(video, tmp_path / os.fsdecode(name))
    clips, failures = collect([tmp_path], None, tmp_path / "output")
    assert not failures and {clip.name for clip in clips} == {"café", "ÿþ", "ж"}
    assert all(clip.video.exists() for clip in clips)
    write_json(tmp_path / "record.json", {"source": str(clips[0].video)})
    assert json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))["source"] == str(clips[0].video)


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
