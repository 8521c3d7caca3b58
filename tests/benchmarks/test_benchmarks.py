"""The benchmarks at toy size: they write their sections, and the baselines compute what our code computes."""

import json
import os
import subprocess
import sys

import pytest
import torch
from helpers import toys
from helpers.core_toys import toy_batch, toy_model, toy_noise
from helpers.data_folder import Folder, dataset_config
from helpers.released_rhythm import released_odf

from benchmarks import __main__ as step_benchmark
from benchmarks import (
    clip,
    features,
    gpu,
    loader,
    measuring,
    published,
    published_dataset,
    reuse,
    sampler_error,
    samplers,
    startup,
    step,
    training,
)
from benchmarks.measuring import write_section
from diff_v2m.checkpoints.files import save_model
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import ROOT
from diff_v2m.config import parse_model_config
from diff_v2m.features.rhythm import to_mono
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.model.diffusion import OBJECTIVES
from diff_v2m.model.dit import LatentDiffusion


@pytest.mark.slow
def test_sampler_error_writes_a_table(tmp_path):
    weights = toys.save_toy_model(tmp_path / "model.safetensors")
    video = toys.write_video(tmp_path / "a.mp4", 2)
    raw = toys.toy_raw_config()
    raw["model"]["diffusion"]["student"] = {"steps": 2}
    config = parse_model_config(raw)
    save_model(LatentDiffusion(config), config, tmp_path / "student.safetensors")
    sampler_error.main(
        [
            str(video),
            "--ckpt-path",
            str(weights),
            "--students",
            str(tmp_path / "student.safetensors"),
            "--seeds",
            "1",
            "--steps",
            "4",
            "--reference-steps",
            "20",
            "--seconds",
            "2",
            "--all-spacings",
            "--output",
            str(tmp_path / "out" / "sampling.md"),
        ]
    )
    table = (tmp_path / "out" / "sampling.md").read_text()
    assert "| ab2 | eased |" in table and "| ddim | released | 250 steps, 500 evaluations |" in table
    assert "student.safetensors | 2 |" in table


def test_steps_needed_are_the_fewest_below_the_published_error():
    errors = {
        ("ddim", "released", 250): 0.01,
        ("ddim", "released", 20): 0.1,
        ("ab2", "eased", 20): 0.02,
        ("ab2", "eased", 40): 0.009,
    }
    errors["ddim", "released", 40] = 0.05
    table = sampler_error.report(errors, [20, 40], "Toy.")
    assert "| ab2 | eased | 40 steps, 80 evaluations | 20.0 | 9.0 |" in table
    assert "**10.0 ‰**" in table


@pytest.mark.slow
def test_what_a_step_takes_over_is_counted_and_costs_accuracy(tmp_path):
    weights = toys.save_toy_model(tmp_path / "model.safetensors")
    video, output = toys.write_video(tmp_path / "a.mp4", 2), tmp_path / "out" / "reuse.md"
    options = ["--ckpt-path", str(weights), "--seeds", "1", "--steps", "9", "--reference-steps", "60"]
    assert not reuse.main([str(video), *options, "--seconds", "2", "--output", str(output)])
    rows = [row.split(" | ") for row in output.read_text().splitlines() if row.startswith("| dpmpp-3m")]
    evaluations, errors = zip(*((float(row[1]), float(row[2].strip(" |"))) for row in rows), strict=True)
    assert evaluations[:3] == (18, 15, 14)
    assert errors[0] < min(errors[1:3])


def test_nothing_taken_over_is_the_guided_prediction():
    model, x, t = toy_model().eval(), toy_noise(2, 47), torch.full((2,), 0.6)
    network = model.model
    with torch.inference_mode():
        cache = network.precompute(model.condition(toy_batch()), 47)
        guided = reuse.Guided(network, cache, model.objective)(x, t)
        assert torch.allclose(guided, network.denoise(x, t, cache, guidance_scale=reuse.SCALE), atol=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("fusion", ["FiLM", "FiLM_choose"])
def test_samplers_receive_v_whatever_the_network_predicts(objective, fusion, monkeypatch):
    raw = toys.toy_raw_config()
    raw["model"]["diffusion"]["diffusion_objective"] = objective
    raw["model"]["diffusion"]["config"] |= {"attention_weight_type": fusion, "pre_norm": False}
    torch.manual_seed(0)
    config = parse_model_config(raw)
    model, clip, seen = DiffV2M(LatentDiffusion(config).eval(), config), toys.toy_features(2.0), []
    network, as_v, v_time = model.model.model, model.model.objective.as_v, model.model.objective.v_time

    def sample(denoise, noise, steps, callback=None, discontinuities=()):
        seen.append((denoise(noise, torch.tensor([0.6])), list(discontinuities)))
        return noise

    monkeypatch.setitem(samplers.MULTISTEP, "ab2", sample)
    monkeypatch.setattr(reuse, "PUBLISHED", ("ab2", 1))
    with torch.inference_mode():
        noise, cache = sampler_error.prepare(model, clip, "clip0", 1)
        guided = as_v(lambda x, t: network.denoise(x, t, cache, guidance_scale=reuse.SCALE))
        expected = guided(noise, torch.tensor([0.6]))
        sampler_error.measure(model, [clip], 1, {("x", "y", 1): sample}, 1, (reuse.SCALE, (0.0, 0.9)))
        reuse.measure(model.model, cache, noise, [], 1)
    switch = [] if network.fusion_switch_t is None else [v_time(network.fusion_switch_t)]
    assert len(switch) == (fusion == "FiLM_choose")
    assert [places for _, places in seen] == 2 * [[0.0, v_time(0.9), *switch]] + 2 * [switch]
    assert all(torch.allclose(v, expected, atol=1e-5) for v, _ in seen)


@pytest.mark.parametrize("command", [clip, startup, sampler_error, reuse])
def test_without_an_example_a_video_must_be_given(command, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(measuring, "ROOT", tmp_path)
    with pytest.raises(SystemExit) as shown:
        command.parse(["--help"])
    assert shown.value.code == 0
    with pytest.raises(SystemExit):
        command.parse([])
    assert "the following arguments are required: video" in capsys.readouterr().err
    (tmp_path / "examples").mkdir()
    for name in ("b.mp4", "a.mp4"):
        (tmp_path / "examples" / name).touch()
    options = command.parse([])
    assert tmp_path / "examples" / "a.mp4" == (options.video if "video" in options else options.videos[0])


@pytest.mark.slow
def test_step_benchmark_writes_table_and_plot(tmp_path):
    step_benchmark.main(["--sizes", "toy", "--rounds", "2", "--output", str(tmp_path / "performance.md")])
    text = (tmp_path / "performance.md").read_text()
    for contender in ("published arrangement", "ours", "stable-audio-tools transformer", "matrix products alone"):
        assert f"| {contender} |" in text
    assert (tmp_path / "step_toy.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_clip_benchmark_generates_with_every_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(
        clip, "SETTINGS", {"ours": ("--steps", "2"), "published": ("--sampler", "ddim", "--steps", "9")}
    )
    weights = toys.save_toy_model(tmp_path / "model.safetensors")
    video = toys.write_video(tmp_path / "a.mp4", 2)
    out = tmp_path / "performance.md"
    clip.main([str(video), "--ckpt-path", str(weights), "--rounds", "1", "--output", str(out)])
    assert "a.mp4, 2.0 s" in out.read_text() and "| published |" in out.read_text()
    (tmp_path / "b.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match="b.mp4"):
        clip.generate(tmp_path / "b.mp4", weights, ())


def test_a_command_replaces_its_own_section_and_no_other(tmp_path):
    path = tmp_path / "performance.md"
    write_section(path, "One", "python -m one", "first")
    write_section(path, "Two", "python -m two", "### detail\n\nsecond")
    path.write_text(path.read_text() + "\n## By hand\n\nkept\n")
    write_section(path, "One", "python -m one --rounds 2", "changed")
    assert path.read_text() == (
        "# Performance\n\n## One\n\n    python -m one --rounds 2\n\nchanged\n\n"
        "## Two\n\n    python -m two\n\n### detail\n\nsecond\n\n## By hand\n\nkept\n"
    )


@pytest.mark.parametrize("time", [0.1, 0.2, 0.7])
def test_the_baseline_computes_what_we_compute(time):
    size = step.SIZES["toy"]
    network, conditions = step.network_of(size, "cpu"), step.conditions_of(size, "cpu")
    x, t = torch.randn(1, 64, size.frames), torch.full((1,), time)
    with torch.no_grad():
        expected = published.denoise(network, x, t, conditions, 3.0)
        ours = network.denoise(x, t, network.precompute(conditions, size.frames), guidance_scale=3.0)
    assert torch.allclose(ours, expected, atol=1e-5 * expected.abs().max().item())


@pytest.mark.slow
def test_loader_benchmark_measures_every_way_to_load(tmp_path):
    folder = Folder(tmp_path).add("a", 1, seconds=4, clicks=(1.5,)).add("b", 2, seconds=4, clicks=(2.5,))
    (tmp_path / "work").mkdir()
    milliseconds = loader.compare(dataset_config(folder), tmp_path / "work", rounds=1)
    assert len(milliseconds) == 6 and all(len(values) == 1 and (values > 0).all() for values in milliseconds.values())
    assert "| latents, in tar shards |" in loader.report(milliseconds)


def test_the_loader_s_baseline_does_the_published_work(tmp_path):
    """Its onsets, by librosa, are those of our arithmetic as released; its window and features are the files'."""
    folder = Folder(tmp_path).add("a", 1, seconds=8, clicks=(1.2, 4.7, 6.1), rate=44100, channels=2)
    data = dataset_config(folder)
    audio, metadata = published_dataset.PublishedDataset(data.datasets[0], loader.released_config(data))[0]
    sound = audio[:, : 8 * 44100]
    assert audio.shape == (2, 30 * 44100) and metadata["semantic"].shape == (8, 512)
    assert torch.allclose(metadata["rhythm"], released_odf(to_mono(sound), 44100), atol=1e-3)


def test_features_benchmark_takes_the_work_apart(tmp_path):
    video = toys.write_video(tmp_path / "a.mp4", 2)
    features.main([str(video), "--encoder", "hog", "--rounds", "1", "--output", str(tmp_path / "performance.md")])
    text = (tmp_path / "performance.md").read_text()
    for part in ("decoding, once", "encoder", "all of it", "colour", "cuts", "motion"):
        assert f"| {part} | " in text


@pytest.mark.slow
def test_training_benchmark_writes_table_and_plot(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CLIPS", (1, 2))
    monkeypatch.setattr(training, "WIDTHS", (64,))
    (tmp_path / "toy.json").write_text(json.dumps(toys.toy_raw_config(depth=1)))
    training.main(
        [
            "--model-config",
            str(tmp_path / "toy.json"),
            "--clips",
            "2",
            "--rounds",
            "1",
            "--output",
            str(tmp_path / "performance.md"),
        ]
    )
    text = (tmp_path / "performance.md").read_text()
    assert "| published arrangement |" in text and "| width 64 |" in text
    assert (tmp_path / "training_speed.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_training_keeps_memory_in_proportion_and_less_with_checkpointing():
    raw = toys.toy_raw_config(depth=4)
    alone, four = (training.TrainingStep(raw, device="cpu", clips=clips).megabytes() for clips in (1, 4))
    assert 3 * alone < four < 4 * alone
    found = training.compare(raw, clips=1, rounds=1, device="cpu")
    assert found["ours, gradient checkpointing"].megabytes < 0.6 * found["ours"].megabytes


def test_startup_report_has_both_ratios():
    seconds = {
        startup.TORCH: (2.0, 2.0),
        startup.PIPELINE: (3.0, 2.5),
        startup.COMMAND: (9.0, 8.0),
        startup.WORK: (4, 4),
    }
    text = startup.report({name: [taken] * 2 for name, taken in seconds.items()}, "a.mp4")
    assert "import torch | 1.50 (1.50–1.50) | 1.25 (1.25–1.25) | 1.5 |" in text
    assert "its work, without imports | 2.25 (2.25–2.25) | 2.00 (2.00–2.00) | 2.5 |" in text


@pytest.mark.slow
def test_gpu_check_runs_all_of_it_at_toy_size_on_a_cpu(tmp_path):
    out = tmp_path / "gpu.md"
    flags = ["--size", "toy", "--device", "cpu", "--rounds", "1", "--batches", "2", "--output", str(out)]
    done = subprocess.run(
        ["bash", "scripts/gpu_check.sh", *flags],
        cwd=ROOT,
        env=os.environ | {"DIFF_V2M_PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.with_suffix(".json").read_text())
    assert {row["name"] for row in found["steps"]["rows"]} >= {"float32", "bf16", "fp16", "int8"}
    assert found["steps"]["rows"][0]["difference"] < 1e-5
    assert [row["name"] for row in found["clip"]][::2] == ["default settings", "student, 8 evaluations"]
    assert found["training"][0]["clips"] == 2 and "| bf16 |" in out.read_text()


def test_gpu_check_without_a_gpu_is_one_line():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="--device cuda: torch finds no CUDA device"):
        gpu.run(gpu.parse([]))
