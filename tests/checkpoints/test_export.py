"""python -m diff_v2m.checkpoints export: a training checkpoint → one set of its weights, ready for inference."""

from pathlib import Path

import pytest
from helpers.toy_weights import autoencoder_json, equal, filled, lightning, toy_json, toy_model, wrapper_state

from diff_v2m.checkpoints.__main__ import main, parse, run
from diff_v2m.checkpoints.files import save_model
from diff_v2m.checkpoints.loading import load_model
from diff_v2m.common.errors import InputError
from diff_v2m.config import parse_model_config
from diff_v2m.model.autoencoder import OobleckVAE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    config = parse_model_config(toy_json())
    path = tmp_path_factory.mktemp("trained") / "last.ckpt"
    return lightning(path, wrapper_state(toy_model(config)), model_config=config.raw)


@pytest.mark.parametrize("weights", ["ema", "online"])
def test_one_set_of_weights_with_its_config(trained, tmp_path, weights):
    out = tmp_path / "out/model.safetensors"
    main(["export", str(trained), str(out), "--weights", weights, "--dtype", "float32"])
    exported, config = load_model(out)
    assert equal(exported, load_model(trained, weights=weights)[0].state_dict()) and config.raw == toy_json()


def test_the_autoencoder_of_another_file(trained, tmp_path):
    config = parse_model_config(toy_json())
    vae = filled(OobleckVAE(config.pretransform.config))
    save_model(vae, parse_model_config(autoencoder_json(config)), tmp_path / "vae.safetensors", dtype=None)
    out = tmp_path / "model.safetensors"
    main(
        [
            "export",
            str(trained),
            str(out),
            "--dtype",
            "float32",
            "--pretransform-ckpt-path",
            str(tmp_path / "vae.safetensors"),
        ]
    )
    exported, before = load_model(out)[0], load_model(trained)[0]
    assert equal(exported.pretransform, vae.state_dict()) and not equal(before.pretransform, vae.state_dict())
    assert equal(exported.model, before.model.state_dict())


def test_half_the_size(trained, tmp_path):
    for dtype in ("float32", "fp16"):
        main(["export", str(trained), str(tmp_path / f"{dtype}.safetensors"), "--dtype", dtype])
    sizes = [(tmp_path / f"{dtype}.safetensors").stat().st_size for dtype in ("fp16", "float32")]
    assert sizes[0] < 0.75 * sizes[1]


def test_mistakes(trained, tmp_path):
    with pytest.raises(InputError, match="nowhere.ckpt: no such weights file"):
        run(parse(["export", "nowhere.ckpt", str(tmp_path / "a.safetensors")]))
    with pytest.raises(InputError, match="a.bin: expected a name that ends in .safetensors"):
        run(parse(["export", str(trained), str(tmp_path / "a.bin")]))
    assert not list(tmp_path.iterdir())
