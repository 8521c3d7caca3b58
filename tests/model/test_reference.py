"""Our code against numbers that the published code computed, case by case.

The folder is tests/reference, or the one that DIFF_V2M_REFERENCE names: same layout, other cases of the same kinds.

    tiny_config.json                   the tiny model that all cases but one are about
    a_state_dict/*_keys.json           names and shapes of its weights, and of the released checkpoint's
    a_state_dict/tiny_wrapper.safetensors   its weights, which the recipe regenerates (optional: 25 MB)
    b_conditioner/KIND_….npz           features in, tokens out
    d_dit/FUSION[_nocolor].npz, opt_OPTION.npz, intermediates_FUSION_tT.npz, rotary_freqs_N.npz, x.npz
    e_sampler/sampleSTEPS.npz, vae.npz
    f_training/*.npz                   training steps, validation_step.npz
    g_dataset/CLIP.{flac,npz}, batch_….npz    rhythm targets as released

Every case present is run, and prints `case  output  max_abs_diff`. A file of a kind that is not known here fails.
"""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import soundfile
import torch
from helpers import reference_cases as ref
from helpers.released_rhythm import released_normalize, released_odf, released_resize
from safetensors import safe_open
from torch import Tensor

from diff_v2m.config import ModelConfig, RhythmCurriculum, load_model_config
from diff_v2m.features import rhythm
from diff_v2m.model.conditioners import Conditioners, Conditions
from diff_v2m.model.diffusion import add_noise, alphas_sigmas, sample_ddim
from diff_v2m.model.dit import LatentDiffusion
from diff_v2m.training.diffusion_module import DiffusionModule, probability_of_true_rhythm
from diff_v2m.training.losses import training_losses

ATOL, RTOL = 2e-4, 1e-4


def cases(kind: str, *, without: tuple[str, ...] = ()) -> list[str]:
    """Names of the case files of one kind; an empty folder gives no cases."""
    names = [path.stem for path in sorted((ref.FOLDER / kind).glob("*.npz"))]
    return [name for name in names if not name.startswith(without)]


@pytest.fixture
def check(request, capsys):
    """check(output, ours, theirs): compare, and print the largest difference whatever the outcome."""
    case = request.node.callspec.params.get("case", request.node.name)

    def compare(output: str, ours, theirs, *, atol: float = ATOL, rtol: float = RTOL) -> None:
        ours, theirs = (torch.as_tensor(np.asarray(x)).double() for x in (ours, theirs))
        assert ours.shape == theirs.shape, f"{case} {output}: shape {tuple(ours.shape)}, expected {tuple(theirs.shape)}"
        difference = (ours - theirs).abs().max().item()
        with capsys.disabled():
            print(f"\n{case:32s} {output:28s} {difference:.1e}", end="")
        assert torch.allclose(ours, theirs, atol=atol, rtol=rtol), f"{case} {output}: differs by {difference:.2e}"

    return compare


@pytest.fixture(autouse=True)
def _no_grad(request):
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


# --- a: names and shapes -----------------------------------------------------------------------------------------


def checkpoint_shapes(config: ModelConfig) -> dict[str, list[int]]:
    """Names and shapes in a checkpoint of the training wrapper: the system, the averaged DiT, two loss weights."""
    with torch.device("meta"):
        return {name: list(value.shape) for name, value in DiffusionModule(config).state_dict().items()}


def test_tiny_state_dict_names_and_shapes():
    theirs = json.loads(ref.locate("a_state_dict/tiny_wrapper_keys.json").read_text())
    config = ref.config_of_dit_case("FiLM_choose")
    assert checkpoint_shapes(config) == {key: value["shape"] for key, value in theirs.items()}
    for key, value in theirs.items():
        assert value["recipe"] is None or ref.recipe(key, value["shape"]) == tuple(value["recipe"]), key


def test_released_state_dict_names_and_shapes():
    theirs = json.loads(ref.locate("a_state_dict/released_config_lightning_state_dict_keys.json").read_text())
    config = load_model_config(ref.OURS.parents[1] / "configs/model/diff_v2m.json")
    assert len(theirs) == 2517
    assert checkpoint_shapes(config) == {key: shape for key, (shape, _) in theirs.items()}


def test_stored_weights_if_any_are_the_recipe():
    model = ref.model_of("FiLM_choose").state_dict()
    for path in ref.FOLDER.glob("a_state_dict/*.safetensors"):
        with safe_open(path, "pt") as stored:
            for name, value in model.items():
                assert torch.equal(stored.get_tensor(f"diffusion.{name}"), value), name


# --- b: conditioners ---------------------------------------------------------------------------------------------


def conditioner_outputs(conditions: Conditions, module: Conditioners, batch) -> dict[str, Tensor]:
    """Our conditions under the reference's names. A stream of ours also holds the two scalar tokens."""
    streams = dict(zip(("semantic", "fake_rhythm", "color"), conditions.streams, strict=True))
    streams["rhythm"] = conditions.true_rhythm_stream
    out = {"out/fake_rhythm_loss": conditions.predicted_rhythm, "out/real_rhythm_loss": conditions.true_rhythm}
    for name, stream in streams.items():
        out[f"out/{name}/0"], out[f"out/{name}/1"] = stream.tokens[:, : ref.ROWS], stream.mask[:, : ref.ROWS].float()
    values = {"class": batch.class_label, "seconds_start": batch.seconds_start, "seconds_total": batch.seconds_total}
    for name, value in values.items():
        out[f"out/{name}/0"], out[f"out/{name}/1"] = module.conditioners[name](value), torch.ones(len(batch), 1)
    for i, name in enumerate(("semantic", "rhythm", "fake_rhythm", "color")):
        out[f"cond_inputs/cross_attn_cond/{i}"] = streams[name].tokens
        out[f"cond_inputs/cross_attn_mask/{i}"] = streams[name].mask.float()
    out["cond_inputs/global_cond"] = conditions.global_cond
    return out


@pytest.mark.parametrize("case", cases("b_conditioner"))
def test_conditioners(case, check):
    stored = ref.arrays(f"b_conditioner/{case}.npz")
    config = ref.config_of_conditioner_case(case, stored)
    module = ref.fill(Conditioners(config.model, latent_rate=config.latent_rate), "diffusion.conditioner.")
    expected_size = ref.description("b_conditioner")["cases"].get(case, {}).get("n_params_conditioner")
    assert expected_size in (None, sum(p.numel() for p in module.parameters()))

    batch = ref.batch_of(stored, len(stored["out/semantic/0"]), case.split("_")[0])
    ours = conditioner_outputs(module(batch), module, batch)
    for name in sorted(stored):
        if not name.startswith("in/"):
            check(name, ours[name], stored[name])


# --- d: the DiT --------------------------------------------------------------------------------------------------


def latents() -> Tensor:
    return torch.from_numpy(ref.arrays("d_dit/x.npz")["x"])


def parse_dit_output(name: str) -> tuple[list[float], float, float]:
    """t0.5_cfg3_phi0.75, t0.2_nocfg, t_mixed_0.05_0.5_cfg3 → times, guidance scale, phi of `rescaled`."""
    guidance = r"(_nocfg|_cfg(?P<scale>[\d.]+))?(_phi(?P<phi>[\d.]+))?"
    match = re.fullmatch(rf"t(_mixed_)?(?P<t>[\d.]+(_[\d.]+)*){guidance}", name)
    if match is None:
        raise ValueError(f"the reference output {name} is of a kind this test does not know")
    scale, phi = (float(match[key]) if match[key] else default for key, default in (("scale", 1.0), ("phi", 0.0)))
    return [float(t) for t in match["t"].split("_")], scale, phi


def rescaled(guided: Tensor, plain: Tensor, phi: float) -> Tensor:
    """The published option that brings the deviation of the guided prediction back to the plain one's."""
    return guided * (phi * plain.std(1, keepdim=True) / guided.std(1, keepdim=True) + 1 - phi)


@pytest.mark.parametrize("case", cases("d_dit", without=("x", "rotary_freqs_", "intermediates_")))
def test_dit(case, check):
    model = ref.model_of(case)
    conditions = model.condition(ref.clips(2)[0])
    for name, theirs in ref.arrays(f"d_dit/{case}.npz").items():
        times, scale, phi = parse_dit_output(name)
        t = torch.tensor(times).expand(2) if len(times) == 1 else torch.tensor(times)
        ours = model.model(latents(), t, conditions, guidance_scale=scale)
        check(name, rescaled(ours, model.model(latents(), t, conditions), phi) if phi else ours, theirs)


@pytest.mark.parametrize("case", [c for c in cases("d_dit") if c.startswith("intermediates_")])
def test_dit_inside(case, check):
    fusion, t = re.fullmatch(r"intermediates_(.+)_t([\d.]+)", case).groups()
    model = ref.model_of(fusion)
    dit = model.model.model
    seen: dict[str, list[Tensor]] = {}
    names = {name for key in ref.arrays(f"d_dit/{case}.npz") for name in [key.split("#")[0]]}
    hooks = []
    for name in names:
        module = dit.get_submodule(name if hasattr(dit, name.split(".")[0]) else f"transformer.{name}")
        hooks.append(module.register_forward_hook(lambda _, __, out, name=name: seen.setdefault(name, []).append(out)))
    model.model(latents(), torch.full((2,), float(t)), model.condition(ref.clips(2)[0]))
    for hook in hooks:
        hook.remove()
    for key, theirs in ref.arrays(f"d_dit/{case}.npz").items():
        name, _, call = key.partition("#")
        ours = seen[name][int(call or 0)]
        ours = ours[0] if isinstance(ours, tuple) else ours
        if name == "project_out":
            theirs = theirs[:, 1:]  # we drop the global token before the projection
        check(key, ours.reshape(theirs.shape), theirs)


@pytest.mark.parametrize("case", [c for c in cases("d_dit") if c.startswith("rotary_freqs_")])
def test_rotary_frequencies(case, check):
    stored = ref.arrays(f"d_dit/{case}.npz")
    module = ref.model_of("FiLM_choose").model.model.transformer.rotary_pos_emb
    check("inv_freq", module.inv_freq, stored["inv_freq"])
    cos, sin = module(len(stored["freqs"]))  # the published table holds every angle twice
    check("cos", cos.repeat(1, 2), np.cos(stored["freqs"]))
    check("sin", sin.repeat(1, 2), np.sin(stored["freqs"]))
    assert set(stored) == {"inv_freq", "freqs"}


# --- e: sampler and autoencoder ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("case", cases("e_sampler", without=("vae",)))
def test_sampler(case, check):
    steps = int(re.fullmatch(r"sample(\d+)", case)[1])
    stored = ref.arrays(f"e_sampler/{case}.npz")
    noise = torch.from_numpy(stored["noise"])

    def sample(steps: int, scale: float = 3.0, ema: bool = False, callback=None) -> Tensor:
        model = ref.model_of("FiLM_choose", ema=ema)
        conditions = model.condition(ref.clips(2)[0])
        return sample_ddim(
            lambda x, t: model.model(x, t, conditions, guidance_scale=scale), noise, steps, callback=callback
        )

    trajectory = []
    result = sample(steps, callback=lambda i, t, x, denoised: trajectory.append((t, alphas_sigmas(t)[1], x, denoised)))
    for name, theirs in stored.items():
        variant = re.fullmatch(r"latents(_with_ema_weights)?(_(?P<steps>\d+)steps)?(_cfg(?P<scale>[\d.]+))?", name)
        if name == "noise":
            continue
        if name == "latents":
            check(name, result, theirs)
        elif variant:
            scale = float(variant["scale"] or 3)
            check(name, sample(int(variant["steps"] or steps), scale, ema=variant[1] is not None), theirs)
        elif name.startswith("traj_"):
            index = ["traj_t", "traj_sigma", "traj_x", "traj_denoised"].index(name)
            check(name, torch.stack([step[index] for step in trajectory]), theirs)
        elif name == "audio":
            check(name, ref.model_of("FiLM_choose").decode(result), theirs)
        elif item := re.fullmatch(r"pcm16_item(\d+)", name):
            audio = stored["audio"][int(item[1])]
            check(name, (audio / np.abs(audio).max() * 32767).astype(np.int16), theirs, atol=1)
        else:
            pytest.fail(f"the reference output {name} is of a kind this test does not know")


@pytest.mark.parametrize("case", [c for c in cases("e_sampler") if c.startswith("vae")])
def test_autoencoder(case, check):
    stored = {name: torch.from_numpy(value) for name, value in ref.arrays(f"e_sampler/{case}.npz").items()}
    vae = ref.model_of("FiLM_choose").pretransform
    mean, std = vae.posterior(stored["audio_in"])
    check("pre_bottleneck", vae.model["encoder"](stored["audio_in"]), stored["pre_bottleneck"])
    check("latents", mean + std * stored["eps"], stored["latents"])
    check("kl", (mean.square() + std.square() - std.square().log() - 1).sum(1).mean(), stored["kl"])
    check("decoded", vae.decode(stored["latents"]), stored["decoded"])
    for name in stored.keys() - {"audio_in", "pre_bottleneck", "eps", "latents", "kl", "decoded"}:
        # The audio of this one is not stored: only how many frames the encoder's strides leave can be compared.
        length = int(re.fullmatch(r"odd_length_(\d+)_pre_bottleneck", name)[1])
        assert vae.model["encoder"](torch.zeros(1, 2, length)).shape == stored[name].shape, name


# --- f: training and validation steps ----------------------------------------------------------------------------


def training_step(model: LatentDiffusion, stored: dict[str, Tensor], case: dict) -> tuple[dict[str, Tensor], int]:
    """One training step on stored randomness, up to the losses, under the names that the reference uses; and how many
    of its clips are the reference's.
    """
    batch, known = ref.clips(case["B"], case["rhythm"])
    conditions = model.condition(batch)
    if case["seed"] is not None:
        torch.manual_seed(case["seed"])
    draws = torch.rand(case["B"]) if case["rand"] is None else torch.tensor(case["rand"])
    chosen = conditions.with_rhythm(draws < probability_of_true_rhythm(case["epoch"], RhythmCurriculum()))
    mean, std = model.pretransform.posterior(stored["audio"])
    z, noise, t = mean + std * stored["vae_eps"], stored["noise"], stored["t"]
    losses = training_losses(model.model, chosen, z, noise, t, condition_dropout=case["cfg_dropout_prob"])
    alphas, sigmas = alphas_sigmas(t)
    return {
        "noised_inputs": add_noise(z, noise, t),
        "alphas": alphas,
        "sigmas": sigmas,
        "targets": losses.target,
        "output": losses.output,
        "mse": losses.mse,
        "rhythm_loss": losses.rhythm,
        "predict_rhythm": conditions.predicted_rhythm,
        "real_rhythm": conditions.true_rhythm,
        "rhythm_mask": conditions.true_rhythm_mask,
    }, known


def training_case(case: str) -> tuple[LatentDiffusion, dict[str, Tensor], dict]:
    described = ref.description("f_training")["cases"][case]
    stored = {name: torch.from_numpy(value) for name, value in ref.arrays(f"f_training/{case}.npz").items()}
    return ref.model_of(described["attention_weight_type"], described["rhythm"]), stored, described


@pytest.mark.parametrize("case", cases("f_training", without=("validation_step",)))
def test_training_step(case, check):
    model, stored, described = training_case(case)
    ours, known = training_step(model.train(), stored, described)
    for name in stored.keys() - {"audio", "vae_eps", "noise", "t"}:
        check(name, ours[name][:known], stored[name][:known])
    if known == described["B"]:
        check("mse", ours["mse"], described["logged"]["train/mse_loss"])
        check("rhythm loss, masked mean", ours["rhythm_loss"], described["rhythm_loss_alternatives"]["masked_mean"])


@pytest.mark.parametrize("case", cases("f_training", without=("validation_step",)))
def test_training_step_gradients(case, check):
    """Norm of every gradient the diffusion loss causes; where the published one is known to be wrong, the right one."""
    model, stored, described = training_case(case)
    model.zero_grad()
    losses, known = training_step(model.train(), stored, described)
    if known < described["B"]:
        return  # inputs of the other clips are not stored
    losses["mse"].backward()
    theirs = described["grad_norms"] | described["grad_norms_correct_where_different"]
    ours = {f"diffusion.{name}": p.grad for name, p in model.named_parameters()}
    # The extractor learns from the rhythm loss, whose published form is not ours.
    names = [name for name, norm in theirs.items() if norm is not None and ".extractor." not in name]
    norms = torch.stack([torch.tensor(0.0) if ours[name] is None else ours[name].norm() for name in names])
    model.zero_grad()
    check(f"{len(names)} gradient norms", norms, [theirs[name] for name in names], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("case", [c for c in cases("f_training") if c.startswith("validation_step")])
def test_validation_step(case, check):
    stored = {name: torch.from_numpy(value) for name, value in ref.arrays(f"f_training/{case}.npz").items()}
    described = json.loads(ref.locate(f"f_training/{case}.json").read_text())
    model = ref.model_of("FiLM_choose").eval()
    batch, known = ref.clips(len(stored["audio"]))
    assert known == len(batch), "the inputs of some of its clips are not stored"
    conditions = model.condition(batch)
    mean, std = model.pretransform.posterior(stored["audio"])
    z = mean + std * stored["vae_eps"]
    losses = []
    for (name, (theirs,)), noise in zip(described["per_timestep"].items(), stored["noises"], strict=True):
        t = torch.full((len(z),), float(name.split("_")[-1]))
        losses.append(training_losses(model.model, conditions, z, noise, t))
        check(name, losses[-1].mse, theirs)
    check("val_loss", torch.stack([step.mse for step in losses]).mean(), described["logged"]["val_loss"])
    check("val_rhythm_loss", losses[-1].rhythm, described["logged"]["val_rhythm_loss"])


# --- g: rhythm targets -------------------------------------------------------------------------------------------


def mono(clip: str) -> tuple[Tensor, int]:
    pcm, rate = soundfile.read(ref.locate(f"g_dataset/{clip}.flac"), dtype="int16")
    return torch.from_numpy(pcm.astype(np.float32) / 32768).mean(dim=1), rate


def released_frames(kind: str, waveform: Tensor, rate: int) -> Tensor:
    if kind == "odf":
        return released_odf(waveform, rate)
    return {"mel": rhythm.mel, "tempo": rhythm.tempogram}[kind](waveform, rate)


@pytest.mark.parametrize("case", cases("g_dataset", without=("batch_",)))
def test_rhythm_targets(case, check):
    stored = ref.arrays(f"g_dataset/{case}.npz")
    waveform, rate = mono(case)
    strength = rhythm.onset_strength(waveform, rate)
    z = rhythm.odf_z(strength)
    ours = {"onset_strength": strength, "odf_z": z, "peaks": rhythm.odf_peaks(z)}
    for kind, first, every in (("odf", "odf_per_sec", 1), ("mel", "mel_first4", 100), ("tempo", "tempo_first4", 500)):
        if not any(name.startswith(kind) for name in stored):
            continue
        frames = released_frames(kind, waveform, rate)
        ours |= {first: frames} if kind == "odf" else {first: frames[:4], f"{kind}_every{every}": frames[::every]}
        if f"{kind}_resized" in stored:
            values, mask = released_resize([frames], rhythm.RHYTHM_DIMS[kind])
            ours |= {f"{kind}_resized": values, f"{kind}_mask": mask}
            ours[f"{kind}_normalised"] = released_normalize(values)
    for name, theirs in stored.items():
        if name != "click_times":  # an input
            # in dB, float32 rounding of the FFT shows 80 dB below the loudest, and differs from CPU to CPU
            quiet = {"atol": 0.05} if name.startswith("mel_") and not name.endswith(("mask", "normalised")) else {}
            check(name, ours[name], theirs, **quiet)


@pytest.mark.parametrize("case", [c for c in cases("g_dataset") if c.startswith("batch_")])
def test_rhythm_targets_of_a_batch(case, check):
    """batch_30_and_12_3: clips stereo30 and stereo12_3 together. A clip whose audio is not in the folder takes part
    with its length alone, and only the others' values are compared.
    """
    stored = ref.arrays(f"g_dataset/{case}.npz")
    names = [f"stereo{part}" for part in case.removeprefix("batch_").split("_and_")]
    for kind in sorted({name.split("_")[0] for name in stored}):
        frames, present = [], []
        for name in names:
            try:
                frames.append(released_frames(kind, *mono(name)))
                present.append(True)
            except FileNotFoundError:
                rows, columns = ref.description("g_dataset")["cases"][name][f"{kind}_shape"]
                frames.append(torch.zeros(rows, columns))
                present.append(False)
        assert any(present), f"{case}: none of {names} is in the folder"
        values, mask = released_resize(frames, rhythm.RHYTHM_DIMS[kind])
        check(f"{kind}_mask", mask, stored[f"{kind}_mask"])
        check(f"{kind}_resized", values[present], stored[f"{kind}_resized"][present])
        normalised = released_normalize(torch.from_numpy(stored[f"{kind}_resized"]))
        check(f"{kind}_normalised", normalised, stored[f"{kind}_normalised"])


# --- nothing skipped ---------------------------------------------------------------------------------------------


def test_every_file_is_a_case():
    """An unknown folder or file would otherwise be ignored."""
    known = {"a_state_dict", "b_conditioner", "d_dit", "e_sampler", "f_training", "g_dataset"}
    folders = {path.name for path in ref.FOLDER.iterdir() if path.is_dir()}
    assert folders <= known, f"unknown kinds of case: {sorted(folders - known)}"
    assert folders, f"{ref.FOLDER} holds no case at all"
    for path in ref.FOLDER.glob("g_dataset/*.flac"):
        assert path.with_suffix(".npz").exists(), f"{path.name} comes without numbers"
