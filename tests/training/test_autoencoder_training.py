"""Training of the audio autoencoder: losses, crops, and real runs of train.py on a handful of clips."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

import train
from diff_v2m.checkpoints.loading import load_vae_weights
from diff_v2m.common.errors import InputError
from diff_v2m.config import parse_dataset_config, parse_model_config
from diff_v2m.model.autoencoder import OobleckVAE
from diff_v2m.training.autoencoder_module import AudioCrops, AutoencoderModule, scale_invariant_sdr

RATE, CROP = 16000, 4096


def raw_config(**training: object) -> dict:
    """configs/model/tiny_vae.json at a size that trains in milliseconds."""
    stack = {"channels": 16, "c_mults": [1, 2], "strides": [4, 4], "use_snake": False}
    return {
        "model_type": "autoencoder",
        "sample_rate": RATE,
        "sample_size": CROP,
        "audio_channels": 1,
        "model": {
            "encoder": {"type": "oobleck", "config": {"in_channels": 16, "latent_dim": 16, **stack}},
            "decoder": {"type": "oobleck", "config": {"out_channels": 16, "latent_dim": 8, **stack}},
            "bottleneck": {"type": "vae"},
            "latent_dim": 8,
            "downsampling_ratio": 256,
            "io_channels": 1,
            "patch_size": 16,
            "normalize_latents": True,
        },
        "training": {
            "optimizer_configs": {"autoencoder": {"optimizer": {"type": "AdamW", "config": {"lr": 0.003}}}},
            "residual_init": 0.1,
            **training,
        },
    }


def tones(seconds: float, seed: int) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    rng = np.random.default_rng(seed)
    return sum(0.2 * np.sin(2 * np.pi * hertz * t + seed) for hertz in rng.uniform(100, 1500, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def wavs(tmp_path_factory) -> Path:
    """Eight clips of a second, and one too short for a crop."""
    folder = tmp_path_factory.mktemp("set") / "wav"
    folder.mkdir()
    for number in range(8):
        soundfile.write(folder / f"{number}.wav", tones(1.0, number), RATE, subtype="PCM_16")
    soundfile.write(folder / "short.wav", tones(0.1, 9), RATE)
    return folder


def data(wavs: Path, random_crop: bool = True) -> dict:
    entry = {"id": "tones", "path": str(wavs), "video_feat": "none", "video_info": "none.json"}
    return {"dataset_type": "audio_video_dir", "random_crop": random_crop, "datasets": [entry]}


def run(folder: Path, wavs: Path, raw: dict, *flags: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps(raw))
    (folder / "data.json").write_text(json.dumps(data(wavs)))
    settings = train.parse(
        [
            "--model-config",
            str(folder / "model.json"),
            "--dataset-config",
            str(folder / "data.json"),
            "--save-dir",
            str(folder.parent),
            "--name",
            folder.name,
            "--batch-size",
            "4",
            "--num-workers",
            "0",
            "--accelerator",
            "cpu",
            "--precision",
            "32",
            "--max-epochs",
            "-1",
            "--log-every",
            "1",
            "--logger",
            "none",
            *map(str, flags),
        ]
    )
    train.run(settings)
    return folder


@pytest.fixture(scope="module")
def trained(wavs, tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("runs") / "vae", wavs, raw_config(), "--max-steps", 6)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


# ---------------------------------------------------------------------------------------------------- losses


@pytest.mark.slow
def test_the_loss_falls_on_one_batch_and_reaches_both_halves():
    torch.manual_seed(0)
    module = AutoencoderModule(parse_model_config(raw_config()))
    audio = torch.from_numpy(np.stack([tones(CROP / RATE, seed) for seed in range(4)]))[:, None]
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.003)
    history = []
    for _ in range(16):
        losses = module.losses(audio)
        total = sum(weight * losses[name] for name, weight in vars(module.weights).items())
        history.append({"total": total.item()} | {name: value.item() for name, value in losses.items()})
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    first, last = history[0], history[-1]
    assert last["total"] < 0.75 * first["total"] and last["spectral"] < 0.75 * first["spectral"]
    assert last["waveform"] < 0.95 * first["waveform"]
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_kl_is_the_divergence_from_a_unit_gaussian():
    module = AutoencoderModule(parse_model_config(raw_config()))
    mean, std = torch.randn(2, 8, 16), torch.rand(2, 8, 16) + 0.1
    module.autoencoder.posterior = lambda audio: (mean, std)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, std), normal(0.0, 1.0))
    # stable-audio-tools sums over channels and omits the factor ½
    found = module.losses(torch.randn(2, 1, CROP))["kl"].item()
    assert found == pytest.approx(2 * expected.sum(1).mean().item(), rel=1e-4)


def test_si_sdr_knows_the_noise_and_not_the_level():
    target, noise = torch.sin(torch.arange(8000) / 10.0)[None, None], torch.cos(torch.arange(8000) / 10.0)[None, None]
    assert scale_invariant_sdr(target + 0.1 * noise, target).item() == pytest.approx(20, abs=0.1)
    assert scale_invariant_sdr(3 * (target + 0.1 * noise), target).item() == pytest.approx(20, abs=0.1)
    assert torch.isfinite(scale_invariant_sdr(target, torch.zeros_like(target))).all()


# ----------------------------------------------------------------------------------------------------- crops


def test_crops_come_from_the_clip_and_short_clips_are_skipped(wavs, caplog):
    config = parse_model_config(raw_config())
    crops = AudioCrops(parse_dataset_config(data(wavs)), config)
    assert len(crops) == 8 and "skipped 1 clips" in caplog.text
    torch.manual_seed(0)
    clip = torch.from_numpy(tones(1.0, 3))
    starts = set()
    for _ in range(3):
        crop = crops[3]
        assert crop.shape == (1, CROP) and crop.dtype == torch.float32
        start = int((clip.unfold(0, 200, 1) - crop[0, :200]).square().sum(1).argmin())
        assert torch.allclose(clip[start : start + CROP], crop[0], atol=1e-3)
        starts.add(start)
    assert len(starts) == 3
    middle = AudioCrops(parse_dataset_config(data(wavs, random_crop=False)), config)
    assert torch.allclose(middle[3][0], clip[(RATE - CROP) // 2 :][:CROP], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "nowhere"}, "cannot list the folder nowhere"),
        ({"path": None}, "path: expected the folder"),
        ({}, "no wav of at least"),
    ],
)
def test_nothing_to_train_on(wavs, tmp_path, change, message):
    raw = data(tmp_path)
    soundfile.write(tmp_path / "short.wav", tones(0.1, 9), RATE)
    raw["datasets"][0] |= change
    with pytest.raises(InputError, match=message):
        AudioCrops(parse_dataset_config(raw), parse_model_config(raw_config()))


def test_hidden_files_are_no_clips(wavs, tmp_path):
    shutil.copytree(wavs, tmp_path / "wav")
    (tmp_path / "wav" / "._0.wav").write_bytes(b"Mac OS X")
    config = parse_model_config(raw_config())
    assert len(AudioCrops(parse_dataset_config(data(tmp_path / "wav")), config)) == 8


# ------------------------------------------------------------------------------------------------- real runs


@pytest.mark.slow
def test_statistics_are_measured_at_the_end_and_exported(trained, wavs):
    state, config = weights(trained), parse_model_config(raw_config())
    vae = OobleckVAE(config.pretransform.config)
    load_vae_weights(vae, trained / "model.safetensors")
    assert torch.equal(vae.latent_std, state["autoencoder.latent_std"])
    crops = AudioCrops(parse_dataset_config(data(wavs)), config)
    with torch.no_grad():
        latents = vae.encode(torch.stack([crops[index % 8] for index in range(64)]))
    assert latents.mean((0, 2)).abs().max() < 0.3 and (latents.std((0, 2)) - 1).abs().max() < 0.3
    unmeasured = (latents * vae.latent_std + vae.latent_mean).std((0, 2))
    assert (unmeasured - 1).abs().max() > 0.3  # or the test above could not fail


@pytest.mark.slow
def test_a_finished_run_that_is_started_again_exports_the_same(trained, wavs, tmp_path):
    folder = tmp_path / "vae"
    shutil.copytree(trained / "checkpoints", folder / "checkpoints")
    run(folder, wavs, raw_config(), "--max-steps", 6, "--recover")
    whole, again = weights(trained), weights(folder)
    for name in whole.keys() - {"autoencoder.latent_mean", "autoencoder.latent_std"}:
        assert torch.equal(again[name], whole[name]), name
    for name in ("autoencoder.latent_mean", "autoencoder.latent_std"):  # of other crops
        assert torch.allclose(again[name], whole[name], atol=0.1), name
    assert not torch.allclose(whole["autoencoder.latent_std"], torch.ones(1), atol=0.1)


@pytest.mark.slow
def test_a_checkpoint_without_statistics_is_no_autoencoder_but_can_be_exported(trained, wavs, tmp_path):
    last = trained / "checkpoints" / "last.ckpt"
    vae = OobleckVAE(parse_model_config(raw_config()).pretransform.config)
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    with pytest.raises(InputError, match="last.ckpt: latent_mean is 0.*--ckpt-path .*last.ckpt --max-steps N"):
        load_vae_weights(vae, last)
    assert all(torch.equal(tensor, before[name]) for name, tensor in vae.state_dict().items())
    with pytest.raises(InputError, match="latent_mean is 0"):
        run(tmp_path / "frozen", wavs, raw_config(freeze_encoder=True), "--pretrained-ckpt-path", last)
    folder = run(tmp_path / "exported", wavs, raw_config(), "--ckpt-path", last, "--max-steps", 6)
    load_vae_weights(vae, folder / "model.safetensors")
    name = "model.decoder.layers.0.weight_v"
    assert torch.equal(vae.state_dict()[name], weights(trained)["autoencoder." + name])


@pytest.mark.slow
def test_statistics_of_starting_weights_are_not_those_of_the_checkpoints(trained, wavs, tmp_path):
    last, start = trained / "checkpoints" / "last.ckpt", trained / "model.safetensors"
    for name, file in (("exported", start), ("checkpoint", last)):
        folder = run(tmp_path / name, wavs, raw_config(), "--max-steps", 1, "--pretrained-ckpt-path", file)
        assert not weights(folder)["autoencoder.latent_mean"].eq(0).any()
        state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        assert not state["autoencoder.latent_mean"].any() and state["autoencoder.latent_std"].eq(1).all()


@pytest.mark.slow
def test_an_export_that_fails_says_how_to_repeat_it(wavs, tmp_path):
    folder = tmp_path / "vae"
    (folder / "model.safetensors").mkdir(parents=True)  # in its place no file can be written
    with pytest.raises(InputError, match="what was trained is in .*last.ckpt.* --recover"):
        run(folder, wavs, raw_config(), "--max-steps", 2)
    (folder / "model.safetensors").rmdir()
    run(folder, wavs, raw_config(), "--max-steps", 2, "--recover")
    assert not weights(folder)["autoencoder.latent_mean"].eq(0).any()


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_weights(trained, wavs, tmp_path):
    folder = run(tmp_path / "vae", wavs, raw_config(), "--max-steps", 3)
    run(folder, wavs, raw_config(), "--max-steps", 6, "--recover")
    whole, pieces = weights(trained), weights(folder)
    for name in whole.keys() - {"autoencoder.latent_mean", "autoencoder.latent_std"}:
        assert torch.allclose(pieces[name], whole[name], atol=1e-5), name


@pytest.mark.slow
def test_the_best_by_validation_is_kept(wavs, tmp_path):
    folder = tmp_path / "vae"
    run(folder, wavs, raw_config(), "--max-steps", 4, "--val-every", 2, "--val-dataset-config", folder / "data.json")
    (best,) = (folder / "checkpoints").glob("best-*.ckpt")
    callbacks = torch.load(best, weights_only=True)["callbacks"]
    (score,) = (state["best_model_score"] for state in callbacks.values() if "best_model_score" in state)
    assert 0 < score < 10
    step = best.stem.partition("=")[2]
    exported = run(tmp_path / "best", wavs, raw_config(), "--ckpt-path", best, "--max-steps", step)
    kept, name = torch.load(best, weights_only=True)["state_dict"], "autoencoder.model.decoder.layers.0.weight_v"
    assert torch.equal(weights(exported)[name], kept[name])
    assert not weights(exported)["autoencoder.latent_mean"].eq(0).any()


@pytest.mark.slow
def test_a_frozen_encoder_stays_bit_identical(trained, wavs, tmp_path):
    start = trained / "model.safetensors"
    config = raw_config(freeze_encoder=True, perceptual_weighting=True)
    folder = run(tmp_path / "decoder", wavs, config, "--max-steps", 2, "--pretrained-ckpt-path", start)
    before, after = weights(trained), weights(folder)
    kept = [name for name in before if name.startswith(("autoencoder.model.encoder.", "autoencoder.latent_"))]
    assert len(kept) > 3 and all(torch.equal(after[name], before[name]) for name in kept)
    decoder = [name for name in before if name.startswith("autoencoder.model.decoder.") and "weight_v" in name]
    assert decoder and not any(torch.equal(after[name], before[name]) for name in decoder)
    vae = OobleckVAE(parse_model_config(config).pretransform.config)
    load_vae_weights(vae, folder / "checkpoints" / "last.ckpt")  # the weighting's filter in it is nobody's weights


def test_a_batch_larger_than_the_data_is_an_error(wavs, tmp_path):
    with pytest.raises(InputError, match="8 clips do not fill one batch of 9"):
        run(tmp_path / "vae", wavs, raw_config(), "--batch-size", 9, "--max-steps", 1)
