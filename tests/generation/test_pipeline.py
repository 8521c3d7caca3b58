"""Features → waveform with a toy model of random weights: determinism, exact lengths, long videos."""

import dataclasses
import math
import os
import re
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import toys

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import ROOT
from diff_v2m.features.video_features import seconds_of
from diff_v2m.generation import memory, pipeline
from diff_v2m.generation.canvas import canvas_noise, draw_noise
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.generation.settings import SamplingSettings
from diff_v2m.generation.step_log import StepLog
from diff_v2m.generation.windows import SLACK, Layout, join_rhythm, plan_windows
from diff_v2m.model import compiling
from diff_v2m.model.diffusion import SAMPLERS
from diff_v2m.weights.finding import find_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = toys.save_toy_model(tmp_path_factory.mktemp("toy") / "model.safetensors")
    return DiffV2M.from_pretrained(path.parent, device="cpu")


def audio_of(model, seconds=3.0, name="clip", features_seed=0, **settings):
    features = toys.toy_features(seconds, features_seed)
    return model.compose([features], [name], **({"steps": 2} | settings))[0].audio


# --------------------------------------------------------------------------- what decides the music, what must not


def test_a_clip_alone_is_the_clip_in_any_batch_and_order(model):
    clips = {"a": toys.toy_features(3.0, 1), "b": toys.toy_features(2.2, 2), "c": toys.toy_features(7.5, 3)}
    alone = {name: model.compose([clip], [name], steps=2)[0] for name, clip in clips.items()}
    for order, batch_size in (("abc", 4), ("cab", 2), ("bc", 3)):
        together = model.compose([clips[name] for name in order], list(order), steps=2, batch_size=batch_size)
        for name, composition in zip(order, together, strict=True):
            np.testing.assert_allclose(composition.audio, alone[name].audio, atol=1e-5)
            np.testing.assert_allclose(composition.rhythm, alone[name].rhythm, atol=1e-5)


def test_the_same_request_gives_the_same_samples(model):
    np.testing.assert_array_equal(audio_of(model), audio_of(model))


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 43},
        {"name": "other"},
        {"variations": [2]},
        {"guidance_scale": 1.0},
        {"class_label": 0},
        {"steps": 3},
        {"features_seed": 9},
        {"sampler": "ddim"},
        {"guidance_interval": (0.0, 0.4)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_is_asked_for_matters(model, changed):
    assert np.abs(audio_of(model) - audio_of(model, **changed)).max() > 1e-4


def test_labels_and_variations_can_differ_within_a_batch(model):
    clip = toys.toy_features(3.0)
    both = model.compose([clip, clip], ["clip", "clip"], steps=2, class_labels=[2, 0], variations=[1, 2])
    np.testing.assert_allclose(both[0].audio, audio_of(model), atol=1e-5)
    np.testing.assert_allclose(both[1].audio, audio_of(model, class_label=0, variations=[2]), atol=1e-5)


def test_noise_is_pinned_to_seed_name_variation_and_window():
    noise = draw_noise(42, "clip", 1, 0, (64, 8))
    old = [-1.392714, 0.185655, 0.07872]
    assert noise.flatten()[:3].tolist() == pytest.approx(old, abs=1e-5), "older results could not be made again"
    others = [(43, "clip", 1, 0), (42, "clip2", 1, 0), (42, "clip", 2, 0), (42, "clip", 1, 1), (42, "cli", 1, 0)]
    for key in others:
        assert not torch.equal(noise, draw_noise(*key, (64, 8)))
    torch.manual_seed(1)
    assert torch.equal(noise, draw_noise(42, "clip", 1, 0, (64, 8))), "torch's global generator has no say"


# --------------------------------------------------------------------------------------------------- length


@pytest.mark.parametrize("seconds", [0.2, 1.0, 3.999, 4.0, 4.03, 4.5, 4.7, 9.3])
def test_audio_is_exactly_as_long_as_the_video(model, seconds):
    composition = model.compose([toys.toy_features(seconds)], ["clip"], steps=1)[0]
    assert composition.audio.shape == (1, round(seconds * toys.RATE))
    assert composition.audio.dtype == np.float32
    assert len(composition.rhythm) == seconds_of(seconds)
    assert np.abs(composition.audio[:, -100:]).max() > 0, "sounds to the very end"


def test_a_clip_just_over_a_window_is_one_window(model):
    assert len(model.compose([toys.toy_features(4.0 + SLACK)], ["clip"], steps=1)[0].windows) == 1
    assert len(model.compose([toys.toy_features(4.1 + SLACK)], ["clip"], steps=1)[0].windows) == 2


def test_stereo(tmp_path):
    path = toys.save_toy_model(tmp_path / "model.safetensors", channels=2)
    stereo = DiffV2M.from_pretrained(path, device="cpu")
    assert audio_of(stereo, 1.5).shape == (2, round(1.5 * toys.RATE))


# ----------------------------------------------------------------------------------------------- long videos


@pytest.mark.parametrize("window", [2.0, 4.0, 29.95, 30.0])
@pytest.mark.parametrize("duration", [0.04, 1.0, 29.9, 30.49, 30.6, 31.0, 58.0, 58.5, 600.3])
def test_windows_cover_the_video_on_whole_seconds(window, duration):
    windows = plan_windows(duration, window)
    assert windows[0].start == 0 and windows[-1].stop == duration
    for one in windows:
        assert isinstance(one.start, int) and one.stop - one.start <= max(1.1 * window, window + SLACK)
    for left, right in zip(windows, windows[1:], strict=False):
        assert left.start < right.start <= left.stop - min(3, int(window) // 2)
    if len(windows) > 1:
        assert min(one.duration for one in windows) > int(window) - 1, "no window is left with a remainder"


@pytest.mark.parametrize("duration", [0.5, 4.4, 4.6, 5.0, 9.3, 61.7])
def test_weights_add_up_to_one_and_the_windows_reach_the_end(model, duration):
    layout = Layout.of(duration, model.config)
    total = np.zeros(layout.total)
    for start, weight in zip(layout.starts, layout.weights(), strict=True):
        assert weight.min() > 0
        total[start : start + layout.frames] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert layout.total / model.config.latent_rate >= duration
    if len(layout.starts) == 1:
        assert (layout.weights() == 1).all(), "one window is what the model makes of it, to the bit"


@pytest.mark.slow
def test_a_video_a_little_longer_than_a_window_is_one_window_with_all_its_seconds(model):
    config = model.config.model_copy(update={"sample_size": 30 * toys.RATE})
    for duration, seconds in ((12.3, 13), (30.0, 30), (30.5, 30), (30.6, 31), (33.0, 33)):
        layout = Layout.of(duration, config)
        assert len(layout.windows) == 1 and layout.seconds == (seconds,)
    assert len(Layout.of(33.1, config).windows) == 2
    wide = DiffV2M(model.model, config)
    music = wide.compose([toys.toy_features(33.0)], ["clip"], steps=1)[0]
    assert music.audio.shape[1] == 33 * toys.RATE and len(music.rhythm) == 33 and np.ptp(music.rhythm[30:]) > 0


def test_each_second_of_a_long_video_follows_its_own_seconds(model):
    video = toys.toy_features(9.3)
    whole = model.compose([video], ["video"], steps=2)[0]
    assert [(w.start, round(w.stop, 1)) for w in whole.windows] == [(0, 4), (2, 6), (4, 8), (6, 9.3)]
    changed = dataclasses.replace(video, semantic=video.semantic.copy())
    changed.semantic[9] += 5
    again = model.compose([changed], ["video"], steps=2)[0]
    rate = toys.RATE
    early = np.abs(again.audio - whole.audio)[:, : 4 * rate].max()
    assert np.abs(again.audio - whole.audio)[:, 8 * rate :].max() > 1e-4
    assert early < 0.1 * np.abs(again.audio - whole.audio)[:, 8 * rate :].max(), "through shared frames alone"


def test_a_long_video_is_the_blend_of_its_windows_at_every_step(model, monkeypatch):
    """With a network whose denoised prediction is the number of the window."""
    video, layout = toys.toy_features(9.3), Layout.of(9.3, model.config)

    def denoise(x, t, cache, *, guidance_scale):
        alpha, sigma = torch.cos(t * torch.pi / 2)[:, None, None], torch.sin(t * torch.pi / 2)[:, None, None]
        level = torch.arange(len(x), dtype=torch.float32)[:, None, None]
        return (alpha * x - level) / sigma

    monkeypatch.setattr(model.model.model, "denoise", denoise)
    latents = model.compose([video], ["video"], steps=8)[0].latents.astype(np.float32)
    wanted = np.zeros(layout.total)
    for number, (start, weight) in enumerate(zip(layout.starts, layout.weights(), strict=True)):
        wanted[start : start + layout.frames] += number * weight
    np.testing.assert_allclose(latents, np.broadcast_to(wanted, latents.shape), atol=3e-3)


def test_a_longer_video_begins_with_the_same_noise(model):
    short, long = (canvas_noise(1, "a", 1, Layout.of(d, model.config), 64) for d in (9.3, 20.0))
    assert torch.equal(short[:, :126], long[:, :126])
    one = Layout.of(3.0, model.config)
    assert torch.equal(canvas_noise(1, "a", 1, one, 64), draw_noise(1, "a", 1, 0, (64, one.frames)))


def test_a_long_video_ends_in_silence_and_a_short_one_as_the_model_made_it(model):
    long, short = audio_of(model, 9.3), audio_of(model, 3.0)
    assert np.abs(long[:, -1]).max() < 1e-7 and np.abs(long[:, -200:]).max() < 0.01 * np.abs(long).max()
    assert np.abs(short[:, -200:]).max() > 0.05 * np.abs(short).max()


def test_a_killed_call_repeats_no_finished_step(model, monkeypatch, tmp_path):
    video, path = toys.toy_features(9.3), tmp_path / "video.steps"
    whole = model.compose([video], ["video"], steps=6)[0].audio
    network, denoise, steps = model.model.model, model.model.model.denoise, []

    def killed(x, t, *arguments, **options):
        steps.append(t[0].item())
        if len(steps) == 4:
            raise KeyboardInterrupt
        return denoise(x, t, *arguments, **options)

    monkeypatch.setattr(network, "denoise", killed)
    with pytest.raises(KeyboardInterrupt):
        model.compose([video], ["video"], steps=6, logs=[StepLog(path, "key")])
    with open(path, "r+b") as file:  # as if killed while a prediction was written
        file.seek(0, 2)
        file.write(b"half a prediction")
    np.testing.assert_array_equal(
        model.compose([video], ["video"], steps=6, logs=[StepLog(path, "key")])[0].audio, whole
    )
    assert len(steps) == 4 + 3, "steps 4 to 6"
    model.compose([video], ["video"], steps=6, logs=[StepLog(path, "key")])
    assert len(steps) == 7, "all steps are known"
    model.compose([video], ["video"], steps=6, logs=[StepLog(path, "another request")])
    assert len(steps) == 13


def test_a_step_log_that_cannot_be_written_is_one_warning(model, tmp_path, caplog):
    model.compose([toys.toy_features(9.3)], ["video"], steps=3, logs=[StepLog(tmp_path / "no" / "folder", "key")])
    assert [record.message.count("the clip starts again") for record in caplog.records] == [1]


def test_rhythm_changes_over_in_the_middle_of_the_overlap():
    windows = plan_windows(9.3, 4.0)
    rhythm = join_rhythm(windows, [np.full(4, number) for number in range(4)], 10)
    assert rhythm.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert join_rhythm(plan_windows(4.4, 4.0), [np.arange(4.0)], 5).tolist() == [0, 1, 2, 3, 3]


# --------------------------------------------------------------------------------------- precision, faults


def test_lower_precision_is_near_and_only_inside_the_network(model, tmp_path):
    low = DiffV2M.from_pretrained(toys.save_toy_model(tmp_path / "model.safetensors"), device="cpu", dtype="bf16")
    exact, rough = audio_of(model), audio_of(low)
    assert rough.dtype == np.float32
    error = np.abs(rough - exact).max() / np.abs(exact).max()
    assert 0 < error < 0.2


def test_int8_is_close_and_does_not_depend_on_the_batch(model, tmp_path):
    low = DiffV2M.from_pretrained(toys.save_toy_model(tmp_path / "model.safetensors"), device="cpu", dtype="int8")
    exact, rough = audio_of(model), audio_of(low)
    assert 0 < np.abs(rough - exact).max() < 0.2 * np.abs(exact).max()
    clips = [toys.toy_features(3.0), toys.toy_features(3.0, 5)]
    together = low.compose(clips, ["clip", "other"], steps=2, batch_size=2)[0].audio
    np.testing.assert_array_equal(together, rough)


@pytest.mark.slow
def test_compiled_blocks_make_the_same_music(model, tmp_path, monkeypatch):
    """With the compiler's front end alone: that of C++ takes a minute. infer.py --compile uses both."""
    monkeypatch.setattr(pipeline, "compile_blocks", partial(compiling.compile_blocks, backend="aot_eager"))
    monkeypatch.setenv("CXX", sys.executable)  # something that is there
    torch._dynamo.utils.counters.clear()
    path = toys.save_toy_model(tmp_path / "model.safetensors")
    compiled = DiffV2M.from_pretrained(path, device="cpu", compile=True)
    # both sides of the choice between semantics and rhythm, with and without guidance, alone and together
    for settings in ({"steps": 4, "guidance_interval": (0.0, 0.5)}, {"steps": 2, "batch_size": 2}):
        np.testing.assert_allclose(audio_of(compiled, **settings), audio_of(model, **settings), atol=1e-4)
    clips = [toys.toy_features(3.0, seed) for seed in range(3)]
    together = [m.compose(clips, ["a", "b", "c"], steps=2)[2].audio for m in (compiled, model)]
    np.testing.assert_allclose(*together, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert not torch._dynamo.utils.counters["recompile_limit"] and not torch._dynamo.utils.counters["graph_break"]


def test_compiling_without_a_compiler_says_so_at_once(model, monkeypatch):
    monkeypatch.setenv("CXX", "/no/such/c++")
    with pytest.raises(InputError, match="--compile: no C.. compiler found ./no/such/c...; install"):
        DiffV2M(model.model, model.config, compile=True)


@pytest.mark.slow
def test_a_compiler_that_fails_is_one_line(tmp_path):
    """In a process of its own: what other tests compiled would be used instead."""
    code = """
        import sys
        from functools import partial
        from helpers import toys
        from diff_v2m.common.errors import InputError
        from diff_v2m.generation import pipeline
        from diff_v2m.model.compiling import compile_blocks

        def broken(graph, inputs):
            raise OSError("Python.h: No such file")

        pipeline.compile_blocks = partial(compile_blocks, backend=broken)
        model = pipeline.DiffV2M.from_pretrained(toys.save_toy_model(sys.argv[1]), device="cpu", compile=True)
        try:
            model.compose([toys.toy_features(2.5)], ["a"], steps=2)
        except InputError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "model.safetensors")]
    tests = str(Path(__file__).parents[1])
    said = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": tests}, cwd=ROOT)
    assert re.match(r"--compile: torch cannot compile the network \(.*Python.h.*\); omit", said.stdout), said.stderr


def test_offload_has_one_part_on_the_device_at_a_time(model, tmp_path, monkeypatch):
    path = toys.save_toy_model(tmp_path / "model.safetensors")
    moving = DiffV2M.from_pretrained(path, device="cpu", offload=True)
    moving.memory.device = torch.device("cpu:0")  # stands for a GPU: the same memory under a name of its own
    parts = {"conditioner": moving.model.conditioner, "network": moving.model.model, "vae": moving.model.pretransform}
    at_work = parts | {"network": parts["network"].model, "vae": parts["vae"].model["decoder"]}
    places, worked = dict.fromkeys(parts, "cpu"), []
    for name, part in parts.items():

        def move(device, name=name, to=part.to):
            places[name] = str(device)
            return to(device)

        def check(*_, name=name):
            worked.append(name)
            assert places == dict.fromkeys(parts, "cpu") | {name: "cpu:0"}

        monkeypatch.setattr(part, "to", move)
        at_work[name].register_forward_pre_hook(check)
    np.testing.assert_allclose(audio_of(moving), audio_of(model), atol=1e-5)
    assert list(dict.fromkeys(worked)) == ["conditioner", "network", "vae"]
    assert set(places.values()) == {"cpu"}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_sampler_makes_finite_music_that_more_steps_hardly_change(model, sampler):
    few, many = (audio_of(model, sampler=sampler, steps=steps) for steps in (16, 32))
    assert np.abs(few - many).max() < 0.2 * np.abs(many).max()


@pytest.mark.parametrize(
    ("interval", "sampler"),
    [((0.0, 1.0), "adams"), ((0.25, 0.75), "adams"), ((0.0, 1.0), "ddim"), ((0.25, 0.75), "ddim")],
)
def test_guidance_acts_above_the_lower_and_up_to_the_upper_end_of_its_interval(model, monkeypatch, interval, sampler):
    network, scales = model.model.model, {}

    def denoise(x, t, cache, *, guidance_scale):
        scales[t[0].item()] = guidance_scale
        return x

    monkeypatch.setattr(network, "denoise", denoise)
    audio_of(model, steps=12, sampler=sampler, guidance_scale=5.0, guidance_interval=interval)
    low, high = interval
    assert len(scales) == 12 and 1.0 in scales and (interval == (0.0, 1.0) or {0.25, 0.75} <= scales.keys())
    assert scales == {t: 5.0 if low < t <= high else 1.0 for t in scales}


def test_guidance_outside_its_interval_is_no_guidance(model):
    nowhere = audio_of(model, guidance_interval=(0.9, 0.9))  # no step of two is there
    np.testing.assert_array_equal(nowhere, audio_of(model, guidance_scale=1.0))


@pytest.mark.parametrize("seconds", [0.01, 0.7, 30])
def test_decoding_in_chunks_changes_nothing(model, seconds):
    whole = audio_of(model)
    np.testing.assert_allclose(audio_of(model, decode_chunk=seconds), whole, atol=1e-4 * np.abs(whole).max())


def test_settings_are_the_same_as_keywords(model):
    settings = SamplingSettings(seed=7, steps=2, sampler="ddim", guidance_scale=2.0, class_label=1)
    clip = toys.toy_features(3.0)
    music = model.compose([clip], ["clip"], settings)[0].audio
    np.testing.assert_array_equal(music, audio_of(model, **vars(settings)))
    np.testing.assert_array_equal(
        model.compose([clip], ["clip"], settings, seed=42)[0].audio, audio_of(model, **{**vars(settings), "seed": 42})
    )


class Device:
    """Memory for so many windows, or so many decoded frames, at a time; more raises OutOfMemoryError."""

    def __init__(self, model, monkeypatch, *, windows=99, frames=9999, offloaded_windows=None):
        self.model, self.denoised, self.decoded = model, [], []
        network, decode_raw, denoise = model.model.model, model.model.pretransform.decode_raw, model.model.model.denoise

        def limited_denoise(x, t, *arguments, **options):
            self.denoised.append(len(x))
            limit = offloaded_windows if offloaded_windows is not None and model.offload else windows
            if len(x) > limit and t[0] < 0.9:  # in the middle of sampling
                raise torch.OutOfMemoryError("CUDA out of memory")
            return denoise(x, t, *arguments, **options)

        def limited_decode(latents):
            self.decoded.append(latents.shape[-1])
            if latents.shape[-1] > (frames if not model.offload else 9999):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return decode_raw(latents)

        monkeypatch.setattr(network, "denoise", limited_denoise)
        monkeypatch.setattr(model.model.pretransform, "decode_raw", limited_decode)


@pytest.fixture
def fresh(tmp_path):
    return DiffV2M.from_pretrained(toys.save_toy_model(tmp_path / "model.safetensors"), device="cpu")


def test_out_of_memory_halves_the_batch_for_the_rest_of_the_run(model, fresh, monkeypatch, caplog):
    clips, names = [toys.toy_features(3.0, seed) for seed in range(7)], list("abcdefg")
    expected = model.compose(clips, names, steps=3, batch_size=8)
    device = Device(fresh, monkeypatch, windows=2)
    music = fresh.compose(clips, names, steps=3, batch_size=8)
    for one, other in zip(music, expected, strict=True):
        np.testing.assert_allclose(one.audio, other.audio, atol=1e-5)
    said = [record.message for record in caplog.records]  # a slow machine also mentions how long it took
    assert [message for message in said if "memory" in message] == [
        "out of memory: at most 3 windows are denoised together",
        "out of memory: at most 1 windows are denoised together",
    ]
    device.denoised.clear()
    fresh.compose(clips[:3], names[:3], steps=3)
    assert set(device.denoised) == {1} and not fresh.offload


def test_out_of_memory_with_one_window_offloads(model, fresh, monkeypatch, caplog):
    Device(fresh, monkeypatch, windows=0, offloaded_windows=1)
    np.testing.assert_allclose(audio_of(fresh, steps=3), audio_of(model, steps=3), atol=1e-5)
    assert fresh.offload and ["--offload" in record.message for record in caplog.records] == [True]


def test_out_of_memory_when_decoding_takes_chunks_then_offloads(model, fresh, monkeypatch, caplog):
    whole = audio_of(model)
    Device(fresh, monkeypatch, frames=48)  # of 63; the decoder reaches 16 frames to either side
    np.testing.assert_allclose(audio_of(fresh), whole, atol=1e-4 * np.abs(whole).max())
    assert [record.message for record in caplog.records] == ["out of memory: at most 2.016 s are decoded at a time"]
    assert not fresh.offload
    Device(fresh, monkeypatch, frames=0)
    np.testing.assert_allclose(audio_of(fresh), whole, atol=1e-4 * np.abs(whole).max())
    assert fresh.offload


def test_out_of_memory_whatever_is_done_is_one_line(fresh, monkeypatch):
    Device(fresh, monkeypatch, windows=0)
    with pytest.raises(InputError, match="clip: out of memory with one window.*--dtype bf16"):
        audio_of(fresh, steps=3)


def test_out_of_memory_while_extracting_moves_the_encoder_to_the_cpu(fresh, tmp_path, monkeypatch, caplog):
    video = toys.write_video(tmp_path / "a.mp4", 1.2)
    expected = fresh.extract(video)
    encoders, build = [], pipeline.build_encoder

    def full(frames):
        raise torch.OutOfMemoryError("CUDA out of memory")

    def limited(name, device):
        encoders.append(device)
        return build(name, device) if len(encoders) > 1 else full

    monkeypatch.setattr(pipeline, "build_encoder", limited)
    fresh._encoder = None
    for _ in range(2):
        np.testing.assert_array_equal(fresh.extract(video).semantic, expected.semantic)
    assert encoders == ["cpu", "cpu"] and [r.message for r in caplog.records if "on the CPU" in r.message][1:] == []


def test_out_of_memory_while_loading_offloads(tmp_path, monkeypatch, caplog):
    loads, load = [], pipeline.load_model

    def limited(path, **options):
        loads.append(options["device"])
        if len(loads) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return load(path, **options)

    monkeypatch.setattr(pipeline, "load_model", limited)
    model = DiffV2M.from_pretrained(toys.save_toy_model(tmp_path / "model.safetensors"), device="cpu")
    assert model.offload and len(loads) == 2 and "--offload" in caplog.text


def test_nan_is_reported_with_the_clip_not_written(tmp_path):
    model = DiffV2M.from_pretrained(toys.save_toy_model(tmp_path / "model.safetensors"), device="cpu")
    next(model.model.model.parameters()).data.fill_(float("nan"))
    with pytest.raises(InputError, match="holiday.*NaN"):
        audio_of(model, name="holiday")


def test_ddim_takes_the_steps_of_the_config_and_adams_its_own(model):
    assert SamplingSettings(sampler="ddim").steps_for(model.config) == 3
    assert SamplingSettings().steps_for(model.config) == 20 and SamplingSettings(steps=7).steps_for(model.config) == 7
    with pytest.raises(InputError, match="steps 1001: expected at most 1000 with adams"):
        SamplingSettings(steps=1001).resolve(model.config)
    assert SamplingSettings(steps=1001, sampler="ddim").resolve(model.config).steps == 1001
    published = audio_of(model, sampler="ddim", steps=3)
    np.testing.assert_array_equal(audio_of(model, sampler="ddim", steps=None), published)
    np.testing.assert_array_equal(audio_of(model, steps=None), audio_of(model, sampler="adams", steps=20))


def test_folders_without_weights(tmp_path):
    with pytest.raises(InputError, match="neither"):
        find_weights(tmp_path)
    with pytest.raises(InputError, match="no such weights file"):
        find_weights(tmp_path / "absent.ckpt")


@pytest.mark.parametrize("seconds", [0.4, 1.7, 2.5])
def test_only_the_frames_of_the_clip_are_decoded(model, monkeypatch, seconds):
    """A window has 4 s, whatever the clip's length; what the decoder does not reach from the clip is left out."""
    decoded, decode = [], model.model.pretransform.decode_raw
    monkeypatch.setattr(model.model.pretransform, "decode_raw", lambda z: decoded.append(z.shape[-1]) or decode(z))
    music = model.compose([toys.toy_features(seconds)], ["clip"], steps=2)[0].audio
    needed = math.ceil(seconds * model.config.latent_rate) + model.model.pretransform.reach
    assert decoded == [needed] and needed < model.config.latent_length()
    assert music.shape[1] == round(seconds * toys.RATE)
    monkeypatch.setattr(model.model.pretransform, "reach", 99)
    whole = model.compose([toys.toy_features(seconds)], ["clip"], steps=2)[0].audio
    assert decoded[1:] == [model.config.latent_length()]
    np.testing.assert_allclose(music, whole, atol=1e-5 * np.abs(whole).max())


def test_offload_on_a_cpu_says_that_it_has_no_effect(tmp_path, caplog):
    DiffV2M.from_pretrained(toys.save_toy_model(tmp_path / "model.safetensors"), device="cpu", offload=True)
    assert ["has no effect on a CPU" in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize(("instructions", "advice"), [(False, "--dtype int8 0.6"), (True, "--dtype bf16 0.5")])
def test_a_large_model_on_a_cpu_is_faster_in_lower_precision(monkeypatch, caplog, model, instructions, advice):
    monkeypatch.setattr(memory, "LARGE", 0)
    monkeypatch.setattr(memory, "cpu_has", lambda dtype: instructions)
    caplog.set_level("INFO")
    memory.advise_for_cpu(model.model, "float32", offload=False)
    memory.advise_for_cpu(model.model, "int8", offload=False)
    assert [advice in record.message for record in caplog.records] == [True]


def test_a_sampler_that_does_not_exist_is_named(model):
    with pytest.raises(InputError, match="sampler 'euler': expected one of ddim, "):
        audio_of(model, sampler="euler", steps=2)
