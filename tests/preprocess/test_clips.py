"""The preprocess command on real files, and its folder as data loading reads it."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from helpers.processes import swallow_a_stop
from helpers.videos import ffmpeg, numbered, read_frames, tone, write_video

from diff_v2m import media
from diff_v2m.common import versions
from diff_v2m.common.errors import InputError
from diff_v2m.config import load_dataset_config
from diff_v2m.data.feature_store import FeatureFolder
from diff_v2m.features import extract
from diff_v2m.features.semantic import HogEncoder
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.preprocess import clips
from diff_v2m.preprocess.__main__ import main, parse

SECONDS = 2  # a clip, here


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """A folder: song.mp4 (5 s, sound), other/song.mp4 (another video, silent), broken.mp4, notes.txt."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "other").mkdir()
    video = write_video(folder / "video.mp4", numbered(50), 10)
    ffmpeg("-i", video, *tone(5), "-c:v", "copy", "-c:a", "aac", folder / "song.mp4")
    video.unlink()
    write_video(folder / "other" / "song.mp4", numbered(15), 10)
    (folder / "broken.mp4").write_bytes(b"no video at all" * 100)
    (folder / "notes.txt").write_text("not a video")
    return folder


def run(*arguments, encoder="hog"):
    return main([*map(str, arguments), "--encoder", encoder, "--segment-seconds", str(SECONDS)])


@pytest.fixture(scope="session")
def made(sources, tmp_path_factory):
    """The folder made from them, and the exit status."""
    output = tmp_path_factory.mktemp("made") / "set"
    return output, run(sources, "--output", output)


def files(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def source_name(sources) -> str:
    return f"{sources.name}_song"  # two videos are called song.mp4


def test_layout(made, sources):
    output, status = made
    name = source_name(sources)
    clips = [f"{name}_0", f"{name}_1", f"{name}_2", "other_song_0"]
    expected = {"features.json", "dataset.json", f"videoInfo_{SECONDS}.json"}
    for folder, suffix in (("clip", "npy"), ("color", "npy"), ("video", "mp4"), ("done", "json")):
        expected |= {f"{folder}/{clip}.{suffix}" for clip in clips}
    expected |= {f"wav/{clip}.wav" for clip in clips[:3]}
    assert files(output) == expected
    assert status == 1, "broken.mp4"

    info = json.loads((output / f"videoInfo_{SECONDS}.json").read_text())
    assert list(info) == sorted(f"{clip}.mp4" for clip in clips)
    for clip, seconds in zip(clips, (2, 2, 1, 1.5), strict=True):
        count = int(np.ceil(seconds))
        assert np.load(output / f"clip/{clip}.npy").shape == (count, 512)
        assert np.load(output / f"color/{clip}.npy").shape == (count, 3072)
        assert np.load(output / f"clip/{clip}.npy").dtype == np.load(output / f"color/{clip}.npy").dtype == np.float32
        entry = info[f"{clip}.mp4"]
        assert len(entry["scene_cut"]) == len(entry["pseudo_beats"]) == count
        assert entry["duration"] == pytest.approx(seconds)
        assert media.probe(output / f"video/{clip}.mp4").duration == pytest.approx(seconds)
    for clip, seconds in zip(clips[:3], (2, 2, 1), strict=True):
        sound = soundfile.info(output / f"wav/{clip}.wav")
        assert (sound.samplerate, sound.channels, sound.frames) == (44100, 2, seconds * 44100)


def test_the_dataset_json_leads_the_dataset_to_everything(made, sources):
    output, _ = made
    (entry,) = load_dataset_config(output / "dataset.json").datasets
    assert (entry.path, entry.video, entry.class_label) == (output / "wav", output / "video", 2)
    folder = FeatureFolder(entry, encoder="hog")
    assert folder.stems == sorted([f"{source_name(sources)}_{n}" for n in range(3)] + ["other_song_0"])
    theirs = folder.read("other_song_0")
    ours = extract.extract_features(sources / "other" / "song.mp4", HogEncoder())
    assert theirs.duration == pytest.approx(ours.duration)
    for name in ("semantic", "color", "scene_cut", "pseudo_beats"):
        assert getattr(theirs, name) == pytest.approx(getattr(ours, name), abs=1e-6)


def test_segments_are_those_seconds_of_the_source(made, sources):
    output, _ = made
    name = source_name(sources)
    whole = extract.extract_features(sources / "song.mp4", HogEncoder())
    parts = [np.load(output / f"color/{name}_{n}.npy") for n in range(3)]
    assert np.concatenate(parts) == pytest.approx(whole.color, abs=1e-6)
    _, frames = read_frames(output / f"video/{name}_1.mp4", 1)
    assert frames[0].mean() == pytest.approx(80, abs=2), "frame 20"
    sound = media.read_audio(sources / "song.mp4", 44100, 2, start=2, duration=2)
    assert np.abs(media.read_audio(output / f"wav/{name}_1.wav", 44100, 2) - sound).max() < 1e-3


def test_the_broken_file_is_reported_once_and_by_name(sources, made, tmp_path, caplog):
    shutil.copytree(made[0], tmp_path / "set")
    assert run(sources, "--output", tmp_path / "set") == 1
    reports = [record.getMessage() for record in caplog.records if "not done" in record.getMessage()]
    assert len(reports) == 1 and "broken.mp4" in reports[0] and "\n" not in reports[0]


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "set")


@pytest.fixture
def extractions(monkeypatch):
    """(file name, first second) of every extraction from here on."""
    calls, real = [], extract.extract_features

    def spy(video, encoder, **options):
        calls.append((video.name, options["start"]))
        return real(video, encoder, **options)

    monkeypatch.setattr(extract, "extract_features", spy)
    return calls


def test_a_second_run_does_nothing(sources, copy, extractions):
    before = {name: (copy / name).stat().st_mtime_ns for name in files(copy) if name.endswith((".npy", ".wav", ".mp4"))}
    run(sources, "--output", copy)
    assert extractions == []
    assert {name: (copy / name).stat().st_mtime_ns for name in before} == before


@pytest.mark.parametrize("folder, suffix", clips.SUFFIXES.items())
def test_an_incomplete_clip_is_made_again_and_no_other(sources, copy, extractions, folder, suffix):
    before = files(copy)
    (copy / folder / f"{source_name(sources)}_1{suffix}").unlink()
    run(sources, "--output", copy)
    assert extractions == [("song.mp4", 2)]
    assert files(copy) == before


def test_a_clip_with_a_damaged_record_is_made_again(sources, copy, extractions):
    for damage in ("{", "[]", "{}"):
        (copy / "done" / "other_song_0.json").write_text(damage)
        run(sources, "--output", copy)
        assert extractions.pop() == ("song.mp4", 0)


def test_nothing_is_left_of_a_clip_that_fails(sources, tmp_path, monkeypatch):
    """A full disk, say, after its picture and sound have been written."""

    def full(*_):
        raise InputError("DIR/clip: No space left on device")

    monkeypatch.setattr(VideoFeatures, "save", full)
    assert run(sources / "song.mp4", "--output", tmp_path / "set") == 1
    assert files(tmp_path / "set") == {"features.json"}


def test_an_interrupted_run_resumes_where_it_stopped(sources, tmp_path, monkeypatch, extractions):
    real = media.cut_clip

    def stop(source, start, *rest):
        if start >= 2:
            raise KeyboardInterrupt
        real(source, start, *rest)

    monkeypatch.setattr(media, "cut_clip", stop)
    assert run(sources / "song.mp4", "--output", tmp_path / "set") == 130
    assert list(json.loads((tmp_path / "set" / f"videoInfo_{SECONDS}.json").read_text())) == ["song_0.mp4"]
    monkeypatch.setattr(media, "cut_clip", real)
    extractions.clear()
    assert run(sources / "song.mp4", "--output", tmp_path / "set") == 0
    assert extractions == [("song.mp4", 2), ("song.mp4", 4)]


def test_a_stop_that_a_library_turned_into_an_error_of_a_clip_stops_all(sources, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(media, "cut_clip", lambda *_: swallow_a_stop(begun.append(1)))
    assert run(sources / "song.mp4", "--output", tmp_path / "set") == 130
    assert begun == [1]


def test_overwrite(sources, copy, extractions):
    video = copy.parent / "other" / "song.mp4"
    shutil.copytree(sources / "other", video.parent)
    output = copy.parent / "new"
    run(video, "--output", output)
    assert run(video, "--output", output, "--overwrite") == 0
    assert extractions == [("song.mp4", 0)] * 2
    # A shorter video under the same name: nothing of the longer one stays.
    shorter = video.read_bytes()
    filler = (sources / "song.mp4").stat().st_size - len(shorter)
    for content in (shorter, shorter + filler.to_bytes(4, "big") + b"free" + bytes(filler - 8)):  # also as many bytes
        shutil.copy(sources / "song.mp4", video)
        run(video, "--output", output)
        video.write_bytes(content)
        run(video, "--output", output)
        assert list(json.loads((output / f"videoInfo_{SECONDS}.json").read_text())) == ["song_0.mp4"]
        assert len(files(output / "clip")) == 1


def test_all_parts_together_are_the_whole(sources, made, tmp_path):
    output = tmp_path / "set"
    for part in ("1/3", "0/3", "2/3"):
        run(sources, "--output", output, "--part", part)
    assert files(output) == files(made[0])
    for name in ("dataset.json", "features.json", f"videoInfo_{SECONDS}.json"):
        assert (output / name).read_text() == (made[0] / name).read_text()


def test_a_clip_another_process_finishes_meanwhile_is_not_lost(sources, copy, monkeypatch):
    """Its record appears after ours were read and before we write: the list is merged again."""
    late = copy / "done" / "other_song_0.json"
    mark, real = late.read_text(), clips.write_json
    late.unlink()

    def write(path, content):
        late.write_text(mark)
        real(path, content)

    monkeypatch.setattr(clips, "write_json", write)
    clips.FeatureFolderWriter(copy, "hog", SECONDS, 44100).merge_records(2)
    assert "other_song_0.mp4" in json.loads((copy / f"videoInfo_{SECONDS}.json").read_text())


def test_equal_names_in_separate_runs_do_not_collide(sources, tmp_path, caplog):
    output = tmp_path / "set"
    assert run(sources / "song.mp4", "--output", output) == 0
    before = files(output)
    assert run(sources / "other" / "song.mp4", "--output", output) == 1
    assert "already are" in caplog.text and files(output) == before
    assert run(sources / "song.mp4", sources / "other", "--output", output) == 0
    assert files(output / "clip") == {"song_0.npy", "song_1.npy", "song_2.npy", "other_song_0.npy"}


def test_a_source_that_moved_is_recognised(sources, tmp_path, extractions):
    shutil.copytree(sources / "other", tmp_path / "a")
    run(tmp_path / "a", "--output", tmp_path / "set")
    (tmp_path / "a").rename(tmp_path / "b")
    assert run(tmp_path / "b", "--output", tmp_path / "set") == 0
    assert len(extractions) == 1


def test_other_features_are_not_mixed_in(sources, copy, tmp_path, monkeypatch, caplog):
    before = files(copy)
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    assert run(sources, "--output", copy, encoder=str(tmp_path)) == 1
    assert "encoder hog, now clip-vit-base-patch32@" in caplog.text
    monkeypatch.setattr(versions, "FEATURE_VERSION", versions.FEATURE_VERSION + 1)
    assert run(sources, "--output", copy) == 1
    assert "feature_version" in caplog.text
    monkeypatch.undo()
    assert main([str(sources), "--output", str(copy), "--encoder", "hog", "--segment-seconds", "3"]) == 1
    (copy / "features.json").unlink()
    assert run(sources, "--output", copy) == 1
    assert "no features.json" in caplog.text
    assert files(copy) == before - {"features.json"}


def test_a_folder_without_clips_may_be_claimed_again(sources, tmp_path):
    """By the corrected command, after a wrong path and after a video that cannot be read."""
    output = tmp_path / "set"
    for wrong in (tmp_path / "missing.mp4", sources / "broken.mp4"):
        assert run(wrong, "--output", output, encoder="clip") == 1
    assert run(sources / "song.mp4", "--output", output) == 0
    assert json.loads((output / "features.json").read_text())["encoder"] == "hog"


def test_a_silent_soundtrack_is_one_line(sources, tmp_path, caplog):
    caplog.set_level("INFO", logger="diff_v2m")
    silence = ("-f", "lavfi", "-i", "anullsrc=r=44100", "-t", "1.5")
    ffmpeg("-i", sources / "other" / "song.mp4", *silence, "-c:v", "copy", "-c:a", "aac", tmp_path / "mute.mp4")
    assert run(tmp_path / "mute.mp4", "--output", tmp_path / "set") == 0
    assert caplog.text.count("mute_0: its soundtrack is silent") == 1 and (tmp_path / "set/wav/mute_0.wav").exists()


def test_what_no_decoder_knows_and_what_loops_is_reported_and_the_rest_is_made(sources, tmp_path, caplog, monkeypatch):
    folder = tmp_path / "in"
    shutil.copytree(sources / "other", folder)
    video = (folder / "song.mp4").read_bytes()
    where = video.rindex(b"avc1")
    (folder / "codec.mp4").write_bytes(video[:where] + b"zzzz" + video[where + 4 :])
    (folder / "loop.mp4").symlink_to("loop.mp4")
    shutil.copy(folder / "song.mp4", folder / "bug.mp4")
    real = media.cut_clip

    def cut_clip(source, *rest):
        if source.name == "bug.mp4":
            raise RuntimeError("of ours")
        real(source, *rest)

    monkeypatch.setattr(media, "cut_clip", cut_clip)
    assert main([str(folder), "--encoder", "hog", "--output", str(tmp_path / "set"), str(sources / "song.mp4")]) == 1
    assert files(tmp_path / "set" / "done") == {"in_song_0.json", f"{sources.name}_song_0.json"}
    assert files(tmp_path / "set" / "video") == {"in_song_0.mp4", f"{sources.name}_song_0.mp4"}
    for said in (
        "codec.mp4: its video stream cannot be decoded (Decoder not found)",
        "loop.mp4: cannot be read",
        "unexpected RuntimeError: of ours",
    ):
        assert said in caplog.text


def test_the_output_may_lie_among_the_sources(sources, tmp_path, extractions):
    shutil.copytree(sources / "other", tmp_path / "in")
    for _ in range(2):
        assert run(tmp_path / "in", "--output", tmp_path / "in" / "set") == 0
    assert len(extractions) == 1


def test_the_user_s_dataset_json_is_kept(sources, copy):
    (copy / "dataset.json").write_text("mine")
    run(sources, "--output", copy)
    assert (copy / "dataset.json").read_text() == "mine"


def test_bad_inputs_and_outputs_are_one_line(sources, tmp_path, caplog):
    assert run(tmp_path / "missing.mp4", "--output", tmp_path / "a") == 1
    assert run(sources / "broken.mp4", "--output", tmp_path / "b") == 1
    assert files(tmp_path / "b") == {"features.json"}
    assert run(sources, "--output", sources / "notes.txt") == 1
    assert run(sources, "--output", tmp_path / ("a" * 300)) == 1  # as a folder that may not be looked into
    assert run(sources / "song.mp4", "--output", tmp_path / "c", encoder="hogg") == 1
    assert "expected hog, imagenet, clip" in caplog.text
    assert all("\n" not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "wrong",
    [
        "--segment-seconds 31",
        "--segment-seconds 0",
        "--sample-rate 0",
        "--sample-rate -1",
        "--part 3/3",
        "--part x",
    ],
)
def test_wrong_arguments(wrong, capsys):
    with pytest.raises(SystemExit) as error:
        parse(["clips", "video.mp4", "--output", "out", *wrong.split()])
    assert error.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_help_needs_nothing_heavy():
    code = (
        "import sys, diff_v2m.preprocess.__main__ as p\n"
        "for command in (['clips'], ['latents'], ['shards']):\n"
        "    try: p.main([*command, '--help'])\n"
        "    except SystemExit: pass\n"
        "print(sorted({'torch', 'cv2', 'scipy', 'transformers', 'scenedetect'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(flag in done.stdout for flag in ("--segment-seconds", "--encodings", "--clips-per-shard"))
    assert done.stdout.rstrip().endswith("[]")


def test_older_spellings_without_a_command():
    new = parse(["clips", "a.mp4", "--output", "out", "b.mp4"])
    assert [path.name for path in new.videos] == ["a.mp4", "b.mp4"]
    assert parse(["a.mp4", "--output", "out", "b.mp4"]) == new
    data = ["--dataset-config", "d", "--model-config", "m"]
    encode = ["--pretransform-ckpt-path", "f", *data]
    assert parse(["--latents", *encode]) == parse(["latents", *encode])
    assert parse([*data, "--shards=out"]) == parse(["shards", "--output", "out", *data])


@pytest.mark.parametrize("arguments", ["clips a.mp4 --output out --colour", "latents --help-me", "shards x"])
def test_unknown_arguments(arguments):
    with pytest.raises(SystemExit) as error:
        parse(arguments.split())
    assert error.value.code == 2
