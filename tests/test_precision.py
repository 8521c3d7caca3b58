"""Lower precision of the network: near, no matter of a clip's company, refused where it cannot work."""

import pytest
import torch
import toys

from diff_v2m import precision
from diff_v2m.dataset import feature_batch
from diff_v2m.errors import InputError
from diff_v2m.generation import DiffV2M

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def toy(tmp_path):
    return DiffV2M.from_pretrained(toys.save_toy_model(tmp_path / "model.safetensors"), device="cpu")


def prediction(toy, company: int) -> torch.Tensor:
    """v (latent, N) of one clip, guided, made together with so many others."""
    clips = [toys.toy_features(3.0, seed) for seed in range(1 + company)]
    frames = toy.config.latent_length(toy.config.sample_size)
    noise = torch.randn(4, toy.config.latent_channels, frames, generator=torch.Generator().manual_seed(0))
    network = toy.model.model
    with torch.inference_mode():
        conditions = toy.model.condition(feature_batch(clips, [""] * len(clips), [2] * len(clips)))
        prepared = network.prepare(conditions, frames)
        return network.denoise(noise[: len(clips)], torch.full((len(clips),), 0.1), prepared, guidance_scale=3.0)[0]


def test_what_cuda_gets_in_int8_is_near(toy):
    """torchao's int8 works on a CPU too, only slowly."""
    exact = prediction(toy, 0)
    precision.quantize_by_token(toy.model.model, "int8")
    assert 0 < (prediction(toy, 0) - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("way", ["layer", "token"])
def test_company_would_change_quantized_clips(toy, way):
    """Why windows are then made one at a time."""
    exact = prediction(toy, 0)
    assert torch.allclose(prediction(toy, 3), exact, atol=1e-4)
    if way == "layer":
        precision.quantize_by_layer(toy.model.model)
    else:
        precision.quantize_by_token(toy.model.model, "int8")
    assert not torch.allclose(prediction(toy, 3), prediction(toy, 0), atol=1e-4)
    coarse = {dtype for dtype in ("float32", "bf16", "fp16", "int8", "fp8") if precision.rounds_coarsely(dtype)}
    assert coarse == {"int8", "fp8"}


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_all_large_layers_and_no_others_are_quantized(toy, scheme, monkeypatch):
    import torchao.quantization

    found = []
    monkeypatch.setattr(torchao.quantization, "quantize_", lambda part, config: found.append((part, config)))
    network = toy.model.model
    precision.quantize_by_token(network, scheme)
    large = {id(module) for part, _ in found for module in part.modules() if isinstance(module, torch.nn.Linear)}
    linear = {name: m for name, m in network.named_modules() if isinstance(m, torch.nn.Linear)}
    kinds = ("self_attn", "cross_attn", ".ff.")
    assert large == {id(m) for name, m in linear.items() if any(kind in name for kind in kinds)}
    assert {type(config).__name__ for _, config in found} == {
        {"int8": "Int8DynamicActivationInt8WeightConfig", "fp8": "Float8DynamicActivationFloat8WeightConfig"}[scheme]
    }


@pytest.mark.parametrize(
    ("dtype", "device", "message"),
    [("fp8", "cpu", "--dtype fp8 is not for cpu; there, use int8"),
     ("int8", "mps", "--dtype int8 is not for mps; there, use bf16")],
)  # fmt: skip
def test_what_a_device_cannot_do_is_refused(toy, dtype, device, message):
    with pytest.raises(InputError, match=message):
        precision.set_precision(toy.model.model, dtype, torch.device(device))


def test_fp8_on_a_gpu_that_has_none_is_refused(toy, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    with pytest.raises(InputError, match="--dtype fp8: A100 has no fp8; use int8 or bf16"):
        precision.set_precision(toy.model.model, "fp8", CUDA)


def test_what_is_left_unquantized():
    assert precision.stored("int8", CPU) == precision.stored("float32", CUDA) == torch.float32
    assert precision.stored("int8", CUDA) == precision.stored("fp8", CUDA) == torch.bfloat16
    assert precision.stored("fp16", CPU) == torch.float16
