"""Features of pictures with known values, with the real transformers classes for CLIP and the real PySceneDetect."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.hub_server import use_hub
from helpers.videos import ffmpeg, numbered, write_video

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.features import semantic
from diff_v2m.features.color import rgb_uv_histogram
from diff_v2m.features.extract import extract_features
from diff_v2m.features.motion import CutFinder, MotionMeter
from diff_v2m.features.semantic import ClipEncoder, HogEncoder, build_encoder, encoder_identity, encoder_name
from diff_v2m.features.video_features import VideoFeatures, motion_features, motion_rows, seconds_of


class GreyLevel:
    """An encoder that shows which frames it received: their mean level, 512 times."""

    name = "grey"
    smoothing = 1

    def __call__(self, frames):
        return np.repeat(frames.mean(axis=(1, 2, 3))[:, None], 512, axis=1).astype(np.float32)


def scenes(lengths: list[int], width: int = 128, height: int = 96) -> np.ndarray:
    """(sum of lengths, height, width, 3) uint8: still scenes that differ in everything, of so many frames each."""
    pictures = np.random.default_rng(7).integers(0, 256, (len(lengths), 6, 8, 3), dtype=np.uint8)
    large = pictures.repeat(height // 6, axis=1).repeat(width // 8, axis=2)
    return large.repeat(lengths, axis=0)


def panning(count: int, pixels_a_frame: float) -> np.ndarray:
    """(count, 96, 128, 3) uint8: smooth stripes that move steadily."""
    x = np.arange(128)[None, :] - pixels_a_frame * np.arange(count)[:, None]
    stripes = (128 + 100 * np.sin(2 * np.pi * x / 64)).astype(np.uint8)
    return np.broadcast_to(stripes[:, None, :, None], (count, 96, 128, 3))


# -------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize(
    "duration, expected",
    [(0.04, 1), (0.2, 1), (1.0, 1), (1.5, 2), (29.97, 30), (30.0, 30), (30.02, 30), (30.033, 30), (30.5, 31)],
)
def test_seconds_of(duration, expected):
    assert seconds_of(duration) == expected


def test_index_s_is_second_s(tmp_path):
    video = write_video(tmp_path / "video.mp4", numbered(60), 10)  # 6 s; level 4 n
    features = extract_features(video, GreyLevel())
    assert features.semantic[:, 0] == pytest.approx([0, 40, 80, 120, 160, 200], abs=2)
    assert features.duration == pytest.approx(6)
    part = extract_features(video, GreyLevel(), start=2, stop=4.5)
    assert part.semantic[:, 0] == pytest.approx([80, 120, 160], abs=2)
    assert part.duration == pytest.approx(2.5)


def test_frames_are_read_while_the_encoder_works(tmp_path, monkeypatch):
    """The encoder waits for frames after its own, and an error of it is not lost."""
    later, watch = threading.Event(), MotionMeter.watch

    def watched(meter, times, frames):
        watch(meter, times, frames)
        if times[-1] > 10:
            later.set()

    class Waiting(GreyLevel):
        def __call__(self, frames):
            assert later.wait(60)
            return super().__call__(frames)

    class Failing(GreyLevel):
        def __call__(self, frames):
            raise InputError("no memory left")

    monkeypatch.setattr(MotionMeter, "watch", watched)
    video = write_video(tmp_path / "video.mp4", numbered(240), 10)
    waited = extract_features(video, Waiting())
    np.testing.assert_array_equal(waited.semantic, extract_features(video, GreyLevel()).semantic)
    with pytest.raises(InputError, match="no memory left"):
        extract_features(video, Failing())


def test_a_video_cut_to_30_seconds_has_30_seconds_of_features(tmp_path):
    for fps in ("25", "30000/1001"):
        ffmpeg("-f", "lavfi", "-i", f"color=gray:s=64x64:r={fps}", "-t", 30, tmp_path / "video.mp4")
        assert len(extract_features(tmp_path / "video.mp4", GreyLevel())) == 30


@pytest.mark.parametrize("shape", ["tall", "odd", "tiny", "rotated", "vfr", "sound first", "short", "one frame"])
def test_videos_of_all_kinds(tmp_path, shape):
    size = {"tall": (54, 128), "odd": (131, 97), "tiny": (48, 26)}.get(shape, (128, 96))
    count = {"short": 5, "one frame": 1}.get(shape, 40)
    video = write_video(tmp_path / "video.mp4", numbered(count, *size), 25, "-pix_fmt", "yuv444p")
    if shape == "rotated":
        ffmpeg("-display_rotation", 90, "-i", video, "-c", "copy", tmp_path / "rotated.mp4")
        video = tmp_path / "rotated.mp4"
    if shape == "vfr":
        video = write_video(tmp_path / "vfr.mp4", numbered(count), 25, "-vf", "setpts=N*N/10", "-fps_mode", "vfr")
    if shape == "sound first":
        ffmpeg("-itsoffset", 1, "-i", video, "-f", "lavfi", "-i", "sine=duration=1", "-c:v", "copy", tmp_path / "a.mkv")
        video = tmp_path / "a.mkv"
    features = extract_features(video, HogEncoder())
    seconds = seconds_of(media.probe(video).duration)
    assert features.semantic.shape == (seconds, 512) and features.semantic.dtype == np.float32
    assert features.color.shape == (seconds, 3072) and features.color.dtype == np.float32
    assert features.scene_cut.shape == (seconds,) and features.scene_cut.dtype == np.int64
    assert features.pseudo_beats.shape == (seconds,) and features.pseudo_beats.dtype == np.float32
    assert all(np.isfinite(array).all() for array in (features.semantic, features.color, features.pseudo_beats))
    assert features.color.sum(axis=1) == pytest.approx(np.ones(seconds), abs=1e-4)


def test_seconds_beyond_the_video_are_refused(tmp_path):
    video = write_video(tmp_path / "video.mp4", numbered(10), 10)
    with pytest.raises(InputError, match=r"video\.mp4: 1\.00 s long, seconds 3 to 1"):
        extract_features(video, GreyLevel(), start=3)


def test_slice():
    whole = VideoFeatures(
        np.arange(4 * 512, dtype=np.float32).reshape(4, 512), None, np.array([0, 1, 0, 1]), np.arange(4.0), 3.4
    )
    part = whole.slice(1, 3)
    assert (len(part), part.duration, part.color) == (2, 2.0, None)
    assert part.semantic[0, 0] == 512 and part.scene_cut.tolist() == [1, 0] and part.pseudo_beats.tolist() == [1, 2]
    assert whole.slice(2, 9).duration == pytest.approx(1.4)


# ------------------------------------------------------------------------------------------------------ colour


def slow_histogram(frame: np.ndarray) -> np.ndarray:
    """The definition word for word, in float64, for frames of up to 150×150."""
    pixels = frame.reshape(-1, 3) / 255.0
    bins, out = np.linspace(-3, 3, 32), np.zeros((3, 32, 32))
    weight = np.sqrt((pixels**2).sum(axis=1))
    for c, (a, b) in enumerate([(1, 2), (0, 2), (0, 1)]):
        u = np.log(pixels[:, c] + 1e-6) - np.log(pixels[:, a] + 1e-6)
        v = np.log(pixels[:, c] + 1e-6) - np.log(pixels[:, b] + 1e-6)
        for w, du, dv in zip(weight, u, v, strict=True):
            out[c] += w * np.outer(1 / (1 + ((du - bins) / 0.02) ** 2), 1 / (1 + ((dv - bins) / 0.02) ** 2))
    return (out / out.sum()).ravel()


def test_histogram_is_the_formula():
    frames = np.random.default_rng(0).integers(0, 256, (2, 12, 17, 3), dtype=np.uint8)
    frames[1, :6] = (255, 0, 3)
    ours = rgb_uv_histogram(frames)
    assert ours.shape == (2, 3072) and ours.dtype == np.float32
    for row, frame in zip(ours, frames, strict=True):
        assert np.abs(row - slow_histogram(frame)).max() < 1e-4 * slow_histogram(frame).max()


def test_histogram_of_a_large_frame_is_that_of_its_smaller_self():
    small = np.random.default_rng(1).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    large = small.repeat(9, axis=0).repeat(9, axis=1)  # 450 → 150: bilinear lands inside the squares
    assert np.abs(rgb_uv_histogram(large[None]) - rgb_uv_histogram(small[None])).max() < 1e-5


def test_histogram_tells_colours_apart_and_takes_black():
    flat = np.zeros((4, 8, 8, 3), np.uint8)
    flat[1], flat[2], flat[3] = (200, 60, 40), (40, 60, 200), (100, 30, 20)
    black, warm, cool, dim_warm = rgb_uv_histogram(flat)
    assert np.isfinite(black).all() and black.sum() == pytest.approx(1, abs=1e-4)
    assert np.abs(warm - cool).sum() > 1
    assert np.abs(warm - dim_warm).sum() < 0.2, "brightness is no colour"


# --------------------------------------------------------------------------------------------- cuts and motion


def test_cuts_land_in_the_second_that_contains_them(tmp_path):
    video = write_video(tmp_path / "video.mp4", scenes([50, 48, 52]), 25)  # cuts at 2.0 s and 3.92 s
    assert extract_features(video, GreyLevel()).scene_cut.tolist() == [0, 0, 1, 1, 0, 0]
    assert extract_features(video, GreyLevel(), start=1, stop=4).scene_cut.tolist() == [0, 1, 1]


def test_cuts_of_a_variable_frame_rate_are_found_by_time(tmp_path):
    """20 frames in 0.8 s, then one every 0.4 s: the cut before frame 30 is at 4.8 s."""
    pause = "setpts=round(if(lt(N\\,20)\\,N\\,20+(N-20)*10)/25/TB)"
    video = write_video(tmp_path / "video.mp4", scenes([30, 10]), 25, "-vf", pause, "-fps_mode", "vfr")
    assert np.flatnonzero(extract_features(video, GreyLevel()).scene_cut).tolist() == [4]


def cuts_of(pieces) -> list[float]:
    cutter = CutFinder()
    for piece in pieces:
        cutter.watch(*piece)
    return cutter.cuts


def test_a_fade_is_no_cut_and_pieces_do_not_matter():
    levels = np.linspace(0, 250, 100).astype(np.uint8)
    fade = np.broadcast_to(levels[:, None, None, None], (100, 48, 64, 3))
    assert cuts_of([(np.arange(100) / 25, fade)]) == []
    video, times = scenes([40, 60], 64, 48), np.arange(100) / 25
    for piece in (100, 41, 7):
        pieces = [(times[i : i + piece], video[i : i + piece]) for i in range(0, 100, piece)]
        assert cuts_of(pieces) == pytest.approx([1.6])


def test_a_burst_of_motion_is_a_beat_in_its_second(tmp_path):
    video = np.array(panning(150, 0.5))
    video[85:91] = 255 - video[85:91]  # flickers from 3.4 s to 3.64 s
    beats = extract_features(write_video(tmp_path / "video.mp4", video, 25), GreyLevel()).pseudo_beats
    assert beats[3] == 1
    assert np.flatnonzero(beats).tolist() == [3]


@pytest.mark.parametrize("fps", [10, 12, 24, 25, 30])
def test_steady_motion_has_no_beats(tmp_path, fps):
    """Sampling 8 times a second out of 25 would see 3 and 4 frames of motion by turns, and beats that are not there."""
    video = write_video(tmp_path / "video.mp4", panning(4 * fps, 40 / fps), fps)
    assert not extract_features(video, GreyLevel()).pseudo_beats.any()


def test_a_still_video_has_neither_beats_nor_cuts(tmp_path):
    features = extract_features(write_video(tmp_path / "video.mp4", scenes([75]), 25), GreyLevel())
    assert not features.pseudo_beats.any() and not features.scene_cut.any()


def test_beats_of_a_long_video_are_those_of_its_windows():
    motion = np.random.default_rng(3).random(8 * 75).astype(np.float32) * 50
    motion[8 * 30 :] *= 10  # a wild second half must not silence the first
    whole = motion_features(motion)["pseudo_beats"]
    for begin, end in ((0, 30), (30, 60), (60, 75)):
        alone = motion_features(motion[8 * begin : 8 * end])["pseudo_beats"]
        assert np.mean(whole[begin:end] != pytest.approx(alone)) <= 1 / 30  # all but what reaches over its first row
        assert whole[begin:end].max() == 1


def measured(frames: np.ndarray, fps: float) -> VideoFeatures:
    """Motion and pseudo beats of frames of a video."""
    meter, times = MotionMeter(fps), np.arange(len(frames)) / fps
    meter.watch(times, frames)
    seconds = seconds_of(len(frames) / fps)
    rows = motion_rows(np.array(meter.times), np.array(meter.motion), seconds)
    blank = {"semantic": np.zeros((seconds, 512), np.float32), "color": None, "scene_cut": np.zeros(seconds, int)}
    return VideoFeatures(**blank, duration=len(frames) / fps, **motion_features(rows))


@pytest.mark.parametrize("fps", [12, 24, 25, 30000 / 1001, 50, 60])
@pytest.mark.parametrize("start", [1, 7, 20])
def test_beats_of_a_window_are_those_of_a_clip_cut_there(fps, start):
    """Also where a second is no multiple of the step, and where the video's wildest motion lies outside the window."""
    rng = np.random.default_rng(start)
    level = 100 + 60 * rng.random(round(36 * fps)) * rng.random(36).repeat(np.ceil(fps))[: round(36 * fps)]
    level[: round(0.9 * fps)] *= rng.random(round(0.9 * fps))
    frames = np.broadcast_to(level.astype(np.uint8)[:, None, None, None], (len(level), 4, 4, 3))
    window = measured(frames, fps).slice(start, start + 12)
    first = int(np.ceil(start * fps - 1e-6))
    clip = measured(frames[first : first + round(12 * fps)], fps).slice(0, 12)
    assert window.pseudo_beats.any()
    if fps == int(fps):  # else the clip's frames are elsewhere in their seconds
        np.testing.assert_allclose(window.motion[1:], clip.motion[1:], atol=0.11)
        np.testing.assert_allclose(window.pseudo_beats, clip.pseudo_beats, atol=1e-3)
        np.testing.assert_allclose(window.motion_peaks, clip.motion_peaks, atol=1e-3)


def test_beats_of_a_part_of_a_file_are_those_of_its_slice(tmp_path):
    video = np.array(panning(40 * 25, 0.5)[:, ::8, ::8])
    video[np.random.default_rng(5).integers(0, 1000, 40)] = 0
    path = write_video(tmp_path / "video.mp4", video, 25)
    whole, part = extract_features(path, GreyLevel()), extract_features(path, GreyLevel(), start=7, stop=37)
    np.testing.assert_allclose(whole.slice(7, 37).pseudo_beats, part.slice(0, 30).pseudo_beats, atol=1e-3)
    assert np.mean(whole.pseudo_beats[7:37] != part.pseudo_beats) > 0.1, "scaled by another window"


@pytest.mark.slow
def test_a_ten_minute_video_is_never_held_in_memory(tmp_path):
    """All its frames would be 6000 · 96 · 160 · 3 = 276 MB."""
    video = tmp_path / "long.mp4"
    loop = write_video(tmp_path / "loop.mp4", scenes([40, 60], 160, 96), 10)
    ffmpeg("-stream_loop", 59, "-i", loop, "-c", "copy", video)
    extract_features(video, HogEncoder(), stop=60)  # libraries, buffers
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = peak_memory()
    features = extract_features(video, HogEncoder())
    assert len(features) == 600
    assert features.scene_cut.sum() == 119
    assert peak_memory() - before < 100e6


def peak_memory() -> int:
    """Bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


# --------------------------------------------------------------------------------------------------- semantics


def test_hog_sees_shape_not_colour():
    encoder = build_encoder("hog")
    stripes = np.zeros((4, 90, 160, 3), np.uint8)
    stripes[0, :, ::20] = stripes[0, :, 1::20] = 255
    stripes[1] = stripes[0] // 2
    stripes[2, ::20] = stripes[2, 1::20] = 255
    codes = encoder(stripes)
    assert codes.shape == (4, 512) and codes.dtype == np.float32
    assert np.abs(codes[0] - codes[1]).mean() < 0.1 * np.abs(codes[0] - codes[2]).mean()
    assert not codes[3].any(), "a flat picture"


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    """A folder as the hub's: real classes, random weights, a 512-d embedding."""
    import torch
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=512,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_clip_from_a_folder(tiny_clip):
    import torch
    from transformers import CLIPVisionModelWithProjection

    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 32, 3), dtype=np.uint8)
    encoder = build_encoder(str(tiny_clip))
    assert encoder.name == encoder_name(encoder.identity) == "clip-vit-32-2-patch8", "whatever the folder is called"
    assert encoder.identity == encoder_identity(str(tiny_clip))
    ours = encoder(frames)
    assert ours.shape == (3, 512) and ours.dtype == np.float32
    # Standard preprocessing of a frame whose width already is CLIP's: centre crop, mean, deviation.
    mean, deviation = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    pixels = torch.tensor((frames[:, 8:40] / 255 - mean) / deviation, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.no_grad():
        theirs = CLIPVisionModelWithProjection.from_pretrained(tiny_clip)(pixel_values=pixels).image_embeds.numpy()
    assert np.abs(ours - theirs).max() < 1e-4
    assert np.abs(np.linalg.norm(ours, axis=1) - 1).max() > 0.1, "raw, not normalised"


def test_clip_of_saved_model_comes_first(tiny_clip, monkeypatch):
    monkeypatch.setattr(semantic, "CLIP_FOLDER", tiny_clip)
    monkeypatch.setattr(semantic, "_from_hub", None)
    assert ClipEncoder()(np.zeros((1, 40, 40, 3), np.uint8)).shape == (1, 512)


def test_missing_clip_says_which_files_go_where(tiny_clip, tmp_path, monkeypatch):
    use_hub(monkeypatch, None, tmp_path / "hub")
    monkeypatch.setattr(semantic, "CLIP_FOLDER", tmp_path / "clip-vit-base-patch32")
    with pytest.raises(InputError) as error:
        build_encoder("clip")
    message = str(error.value)
    places = [f"saved_model/clip-vit-base-patch32/{name}" for name in semantic.CLIP_FILES]
    assert all(place in message for place in places) and "\n" not in message

    incomplete = tmp_path / "incomplete"
    incomplete.mkdir()
    (incomplete / "config.json").write_bytes((tiny_clip / "config.json").read_bytes())
    with pytest.raises(InputError, match="model.safetensors"):
        build_encoder(str(incomplete))


def test_clip_without_a_tensor_or_of_other_sizes_is_refused(tiny_clip, tmp_path):
    """transformers would fill what is missing with random numbers."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "clip"
    shutil.copytree(tiny_clip, folder)
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if name.endswith("layers.1.mlp.fc1.weight"))
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, folder / "model.safetensors")
    with pytest.raises(InputError, match="CLIP cannot be loaded.*its weights lack.*fc1.weight"):
        build_encoder(str(folder))
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"hidden_size": 64}))
    with pytest.raises(InputError, match="CLIP cannot be loaded") as error:
        build_encoder(str(folder))
    assert "\n" not in str(error.value)


def test_a_hub_model_in_the_cache_is_not_downloaded(tiny_clip, monkeypatch):
    asked = []

    def download(*_, **options):
        asked.append(options)
        return str(tiny_clip)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert build_encoder("some/model").name == "clip-vit-32-2-patch8"
    assert [options["local_files_only"] for options in asked] == [True]


def test_clip_of_another_width_and_unknown_encoders_are_refused(tmp_path):
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=16,
        patch_size=8,
        projection_dim=768,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "large")
    CLIPImageProcessor().save_pretrained(tmp_path / "large")
    with pytest.raises(InputError, match="768 numbers, expected 512"):
        build_encoder(str(tmp_path / "large"))
    for name in ("hogg", "./nowhere", "/nowhere/at/all"):
        with pytest.raises(InputError, match="expected hog, imagenet, clip"):
            build_encoder(name)


def test_clip_is_known_by_its_content(tiny_clip, tmp_path):
    """The name of the folder, as of a hub snapshot, plays no part; the weights and the preprocessing do."""
    snapshot = tmp_path / "models--openai--clip-vit-base-patch32" / "snapshots" / "3d74acf9"
    shutil.copytree(tiny_clip, snapshot)
    same = encoder_identity(str(tiny_clip))
    assert encoder_identity(str(snapshot)) == same
    settings = json.loads((snapshot / "preprocessor_config.json").read_text())
    (snapshot / "preprocessor_config.json").write_text(json.dumps(settings, indent=7))
    assert encoder_identity(str(snapshot)) == same, "the same settings, written in another way"
    (snapshot / "preprocessor_config.json").write_text(json.dumps(settings | {"do_center_crop": False}))
    assert encoder_identity(str(snapshot)) != same
    shutil.copy(tiny_clip / "preprocessor_config.json", snapshot)
    weights = bytearray((snapshot / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (snapshot / "model.safetensors").write_bytes(weights)
    assert encoder_identity(str(snapshot)) != same and encoder_name(encoder_identity(str(snapshot))) in same


def test_clip_of_the_released_size_has_the_released_name(tmp_path, tiny_clip):
    folder = tmp_path / "any name"
    shutil.copytree(tiny_clip, folder)
    for config in ({"vision_config": {"patch_size": 32}, "projection_dim": 512}, {"hidden_size": 768}):
        (folder / "config.json").write_text(json.dumps(config))
        assert encoder_identity(str(folder)).startswith("clip-vit-base-patch32@")


@pytest.mark.parametrize(
    "identity", ["clip-vit-base-patch32@0123", "clip-vit-base-patch32", "openai/clip-vit-base-patch32"]
)
def test_the_name_of_clip(identity):
    assert encoder_name(identity) == "clip-vit-base-patch32"
