"""Distillation: a student that learns its teacher's guided result, resumes, exports, and is used as any model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import toys
from helpers.kill_nine import differences
from helpers.training_toys import checkpoint, logged, make_place, raw_config, run

import infer
from diff_v2m.checkpoints.files import save_model
from diff_v2m.checkpoints.loading import load_model
from diff_v2m.common.errors import InputError
from diff_v2m.config import parse_model_config
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.generation.settings import SamplingSettings
from diff_v2m.model.dit import LatentDiffusion
from diff_v2m.training.diffusion_module import DiffusionModule

STEPS = 4


@pytest.fixture(scope="module", autouse=True)
def latents_of_unit_deviation():
    """Those of a trained autoencoder have it, those of a toy do not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            DiffusionModule,
            "latents_of",
            lambda module, batch, generator: torch.randn((len(batch), 64, 63), generator=generator),
        )
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Features scaled as real ones are, and a learning rate that ends at zero."""
    root = make_place(tmp_path_factory.mktemp("distillation"))
    for number, path in enumerate(sorted((root / "set/clip").iterdir())):
        made = toys.toy_features(len(np.load(path)), number)
        np.save(path, made.semantic)
        np.save(root / "set/color" / path.name, made.color)
    raw = raw_config()
    raw["training"]["optimizer_configs"]["diffusion"] = {
        "optimizer": {"type": "AdamW", "config": {"lr": 0.003}},
        "scheduler": {"type": "CosineLR", "config": {"warmup_steps": 2, "total_steps": 40}},
    }
    (root / "model.json").write_text(json.dumps(raw))
    return root


def save_teacher(path: Path, seed: int = 0, **changes: object) -> Path:
    """A toy model on which guidance has an effect. changes: of its `diffusion` or of the `config` in that."""
    raw = raw_config()
    change_diffusion(raw, changes)
    config = parse_model_config(raw)
    torch.manual_seed(seed)
    model = LatentDiffusion(config)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_model(model, config, path, dtype=None)
    return path


def change_diffusion(raw: dict, changes: dict) -> None:
    diffusion = raw["model"]["diffusion"]
    for key, value in changes.items():
        (diffusion if key == "diffusion_objective" else diffusion["config"])[key] = value


@pytest.fixture(scope="module")
def teacher(place) -> Path:
    return save_teacher(place / "teacher.safetensors")


def distill(place: Path, folder: Path, teacher: Path, *flags: object) -> Path:
    return run(place, folder, "--distill", teacher, *flags)


@pytest.fixture(scope="module")
def student(place, teacher) -> Path:
    return distill(place, place / "student", teacher, "--student-steps", STEPS, "--max-steps", 40)


def latents(path: Path, scale: float, **settings: object) -> torch.Tensor:
    """Of three clips of other features than those of training."""
    model = DiffV2M.from_pretrained(path, device="cpu")
    clips = [toys.toy_features(toys.WINDOW, seed) for seed in (7, 8, 9)]
    made = model.compose(clips, ["a", "b", "c"], guidance_scale=scale, **settings)
    return torch.stack([torch.from_numpy(one.latents).float() for one in made])


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).square().mean() / theirs.square().mean()).sqrt().item()


def test_the_share_of_true_rhythm_is_that_of_the_curriculum(place, teacher):
    losses = []
    for share in (0.0, 1.0):
        raw = json.loads((place / "model.json").read_text())
        raw["training"]["rhythm_curriculum"]["true_share"] = share
        (place / "shared.json").write_text(json.dumps(raw))
        folder = place / f"share {share}"
        distill(place, folder, teacher, "--model-config", place / "shared.json", "--max-steps", 1)
        losses.append(logged(folder)[0])
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_a_student_comes_near_its_teachers_guided_result_at_every_scale(place, teacher, student):
    """Nearer than the steps that it starts from, and than the teacher itself in as many steps."""
    untrained = distill(place, place / "untrained", teacher, "--student-steps", STEPS, "--max-steps", 1)
    weak, strong = (latents(teacher, scale, steps=40) for scale in (1.0, 5.0))
    for scale, exact in ((1.0, weak), (5.0, strong)):
        found = distance(latents(student, scale), exact)
        assert found < 0.8 * distance(latents(untrained, scale), exact), scale
        assert found < 0.9 * distance(latents(teacher, scale, steps=STEPS, sampler="ddim"), exact), scale
    assert distance(latents(student, 5.0), strong) < distance(latents(student, 1.0), strong)
    assert distance(latents(student, 1.0), weak) < distance(latents(student, 5.0), weak)


@pytest.mark.slow
def test_a_resumed_student_is_the_undisturbed_one(place, teacher, tmp_path):
    flags = ("--student-steps", STEPS, "--val-every", 3, "--val-dataset-config", place / "data.json")
    whole = distill(place, tmp_path / "whole", teacher, *flags, "--max-steps", 7)
    assert list(logged(whole, "val/loss")) == [2, 5] and logged(whole, "val/mse_t0.25").keys() == {2, 5}
    for steps in (2, 7):
        distill(place, tmp_path / "pieces", teacher, *flags, "--max-steps", steps, "--recover")
    assert differences(whole, tmp_path / "pieces") == []
    assert not any(key.startswith("teacher") for key in checkpoint(whole)["state_dict"])
    other = save_teacher(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(InputError, match=r"other.safetensors: the run's student has another teacher.*--distill"):
        distill(place, tmp_path / "pieces", other, *flags, "--max-steps", 9, "--recover")


@pytest.mark.slow
def test_conditions_and_pretransform_stay_those_of_the_teacher(teacher, student):
    (theirs, _), (ours, config) = load_model(teacher), load_model(student)
    assert config.model.diffusion.student.steps == STEPS
    for part in ("conditioner", "pretransform"):
        for name, tensor in getattr(theirs, part).state_dict().items():
            assert torch.allclose(tensor, getattr(ours, part).state_dict()[name], atol=1e-3), name


@pytest.mark.slow
def test_infer_uses_a_student_with_its_own_steps_and_one_evaluation_each(student, tmp_path, caplog):
    model = DiffV2M.from_pretrained(student, device="cpu")
    evaluations = []
    model.model.model.model.register_forward_hook(lambda module, inputs, out: evaluations.append(len(inputs[0])))
    model.compose([toys.toy_features(3.0)], ["clip"])
    assert evaluations == [1] * STEPS
    video = toys.write_video(tmp_path / "a.mp4", 2.0)
    flags = [str(video), "--ckpt-path", str(student), "--output-dir", str(tmp_path / "out"), "--device", "cpu"]
    assert infer.main(flags) == 0
    manifest = json.loads((tmp_path / "out/a.json").read_text())
    assert manifest["steps"] == STEPS and manifest["sampler"].startswith("ddim")
    assert (
        infer.main([*flags, "--steps", str(STEPS), "--sampler", "ddim", "--guidance-scale", "4.5", "--overwrite"]) == 0
    )
    for asked, reason in (
        (["--steps", "30"], f"steps 30: this model is a student for {STEPS} steps; omit --steps"),
        (["--sampler", "dpmpp-3m"], "sampler dpmpp-3m: this model is a student for ddim steps"),
        (["--guidance-scale", "7"], "guidance scale 7: this model is a student for 1 to 5; choose one of these"),
        (["--guidance-interval", "0.2", "1"], "guidance interval: this model is a student"),
    ):
        caplog.clear()
        assert infer.main([*flags, *asked, "--overwrite"]) == 1
        (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert reason in line


@pytest.mark.slow
def test_a_student_teaches_one_of_half_its_steps(place, student, tmp_path):
    half = distill(place, tmp_path / "half", student, "--max-steps", 20)
    assert load_model(half)[1].model.diffusion.student.steps == STEPS // 2
    losses = logged(half)
    assert losses[19] < losses[0]
    with pytest.raises(
        InputError, match=r"--student-steps 3: the teacher is a student for 4 steps; expected a divisor"
    ):
        distill(place, tmp_path / "third", student, "--student-steps", 3)
    with pytest.raises(InputError, match=r"model.diffusion.student: a student is trained with --distill"):
        raw = json.loads((half / "model_config.json").read_text())
        (tmp_path / "student.json").write_text(json.dumps(raw))
        run(place, tmp_path / "plain", "--model-config", tmp_path / "student.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [{"diffusion_objective": "rectified_flow"}, {"attention_weight_type": "FiLM_choose", "pre_norm": False}]
)
def test_any_objective_and_fusion_has_a_student(place, tmp_path, kind):
    teacher = save_teacher(tmp_path / "teacher.safetensors", **kind)
    raw = json.loads((place / "model.json").read_text())
    change_diffusion(raw, kind)
    (tmp_path / "model.json").write_text(json.dumps(raw))
    flags = ("--model-config", tmp_path / "model.json", "--student-steps", 2, "--max-steps", 20)
    folder = distill(place, tmp_path / "run", teacher, *flags)
    untrained = distill(place, tmp_path / "untrained", teacher, *flags[:-1], 1)
    exact = latents(teacher, 3.0, steps=40)
    assert distance(latents(folder, 3.0), exact) < 0.9 * distance(latents(untrained, 3.0), exact)


def test_a_student_of_another_model_is_refused(place, teacher, tmp_path):
    raw = raw_config()
    raw["model"]["diffusion"]["config"]["num_heads"] = 4
    (tmp_path / "other.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match=r"other.json: model.diffusion.config.num_heads is 4, in the teacher 2"):
        distill(place, tmp_path / "run", teacher, "--model-config", tmp_path / "other.json")


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        ({"guidance_range": [3, 3]}, "guidance_range: expected two ascending scales, got 3 and 3"),
        ({"guidance": 9.0}, "guidance: expected a scale of guidance_range, 1 to 5; got 9"),
        ({"steps": 0}, "steps: expected a number of at least 1, got 0"),
    ],
)
def test_a_students_config_is_checked(member, problem):
    raw = raw_config()
    raw["model"]["diffusion"]["student"] = member
    with pytest.raises(InputError, match=problem):
        parse_model_config(raw, "toy")


def test_settings_of_a_model_that_is_no_student_are_as_before():
    config = parse_model_config(raw_config(), "toy")
    assert SamplingSettings().resolve(config) == SamplingSettings(steps=20, sampler="adams", guidance_scale=3.0)
    asked = SamplingSettings(steps=7, sampler="ddim", guidance_scale=1.0, guidance_interval=(0.1, 0.9))
    assert asked.resolve(config) == asked
