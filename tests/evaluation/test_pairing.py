"""Finding files and pairing them by name."""

import json

import pytest

from diff_v2m.common.errors import InputError
from diff_v2m.config import load_dataset_config
from inference.pairing import MediaFile, dataset_audio, find_audio, find_videos, match, pair


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def clips(*names):
    return [MediaFile(name, name) for name in names]


def paired(left, right):
    found = pair(clips(*left), clips(*right))
    return ([(a.name, b.name) for a, b in found.pairs], [c.name for c in found.alone], [c.name for c in found.unused])


def test_pairs_are_by_stem_and_one_that_is_missing_shifts_none():
    assert paired(["c", "a"], ["a", "b", "c"]) == ([("a", "a"), ("c", "c")], [], ["b"])


@pytest.mark.parametrize(
    ("left", "right", "pairs"),
    [
        (["A/1", "B/1"], ["B/1", "A/1"], [("A/1", "A/1"), ("B/1", "B/1")]),  # sets are pooled, stems may be the same
        (["A_1", "B_1"], ["A/1", "B/1"], [("A_1", "A/1"), ("B_1", "B/1")]),  # as infer.py calls them
        (["1", "2"], ["A/1", "B/2"], [("1", "A/1"), ("2", "B/2")]),
        (["1"], ["A/1", "B/1"], []),  # which one, nobody can say
        (["A/1"], ["B/1"], []),  # of another set
        (["A/1", "B/2"], ["1", "2"], [("A/1", "1"), ("B/2", "2")]),  # one folder of videos for all sets
        (["A/1", "1"], ["A/1"], [("A/1", "A/1")]),
        (["A/1", "1"], ["A/1", "B/1"], [("A/1", "A/1")]),  # what is left over is not therefore right
    ],
)
def test_names_of_sets_are_respected(left, right, pairs):
    assert paired(left, right)[0] == pairs
    assert paired(left[::-1], right[::-1])[0] == pairs


def test_folders_are_searched_for_sound_and_the_videos_beside_it_are_not_counted_twice(tmp_path):
    touch(*(tmp_path / name for name in ("b.wav", "b.mp4", "b.json", "A/a.flac", ".x.wav", "A/a.b.wav")))
    assert [clip.name for clip in find_audio(tmp_path, "--generated")] == ["A/a", "A/a.b", "b"]
    assert [clip.name for clip in find_videos(tmp_path, "--videos")] == ["b"]


def test_variations_share_the_partner_of_their_clip(tmp_path):
    for name, variation in (("earth", 1), ("earth_v2", 2), ("set_sea_v3", 3), ("song_v2", 1)):
        touch(tmp_path / f"{name}.wav")
        manifest = {"generator": "diff-v2m 0.1.0", "request": {"variation": variation}}
        (tmp_path / f"{name}.json").write_text(json.dumps(manifest))
    files = find_audio(tmp_path, "--generated")
    pairing = pair(files, clips("earth", "set/sea", "song"))
    pairs = [(file.name, partner.name) for file, partner in pairing.pairs]
    assert pairs == [("earth", "earth"), ("earth_v2", "earth"), ("set_sea_v3", "set/sea")]
    assert [file.name for file in pairing.alone] == ["song_v2"], "a clip's own name, not a variation"
    assert match(files, clips("earth", "earth_v2")).keys() == {file for file in files if file.clip == "earth"}


def test_what_is_no_folder_of_clips_is_one_line(tmp_path):
    touch(tmp_path / "one.wav", tmp_path / "two" / "a.wav", tmp_path / "two" / "a.flac")
    (tmp_path / "empty").mkdir()
    for folder, words in (
        (tmp_path / "empty", "no audio files in"),
        (tmp_path / "one.wav", "expected a folder"),
        (tmp_path / "gone", "does not exist"),
        (tmp_path / "two", "twice"),
    ):
        with pytest.raises(InputError, match=words) as error:
            find_audio(folder, "--generated")
        assert "\n" not in str(error.value) and "--generated" in str(error.value)


def test_clips_of_a_dataset_json_carry_the_name_of_their_set(tmp_path):
    touch(tmp_path / "a" / "1.wav", tmp_path / "b" / "1.wav")
    sets = [{"id": i, "path": i, "video_feat": i, "video_info": "info.json"} for i in ("a", "b")]
    (tmp_path / "dataset.json").write_text(json.dumps({"dataset_type": "audio_video_dir", "datasets": sets}))
    assert [clip.name for clip in dataset_audio(load_dataset_config(tmp_path / "dataset.json"))] == ["a/1", "b/1"]
