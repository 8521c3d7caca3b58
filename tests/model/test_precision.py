"""Lower precision of the network: close to float32, refused where a device lacks it, batch-invariant or not."""

import pytest
import torch
from helpers import toys

from diff_v2m.common.errors import InputError
from diff_v2m.config import DTYPES
from diff_v2m.data.collate import feature_batch
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.model import precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def toy(tmp_path):
    return DiffV2M.from_pretrained(toys.save_toy_model(tmp_path / "model.safetensors"), device="cpu")


def prediction(toy, others: int) -> torch.Tensor:
    """v (latent, N) of one clip, guided, in a batch with so many others."""
    clips = [toys.toy_features(3.0, seed) for seed in range(1 + others)]
    frames = toy.config.latent_length(toy.config.sample_size)
    noise = torch.randn(4, toy.config.latent_channels, frames, generator=torch.Generator().manual_seed(0))
    network = toy.model.model
    with torch.inference_mode():
        conditions = toy.model.condition(feature_batch(clips, [""] * len(clips), [2] * len(clips)))
        cache = network.precompute(conditions, frames)
        return network.denoise(noise[: len(clips)], torch.full((len(clips),), 0.1), cache, guidance_scale=3.0)[0]


SCHEMES = {"int8": (torch.int8, 0.05), "fp8": (torch.float8_e4m3fn, 0.1)}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_quantization_per_token_is_close_to_float32(toy, scheme):
    """As on CUDA; a CPU computes the same, slowly."""
    dtype, bound = SCHEMES[scheme]
    exact = prediction(toy, 0)
    toy.model.model.lower_precision(torch.bfloat16)
    in_bf16 = prediction(toy, 0)
    precision.quantize_per_token(toy.model.model, dtype)
    rough = prediction(toy, 0)
    assert (rough - exact).norm() < bound * exact.norm() and not torch.equal(rough, in_bf16)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("tokens", [1, 16, 40])
def test_a_quantized_layer_is_the_layer_rounded(scheme, tokens):
    dtype, bound = SCHEMES[scheme]
    layer = torch.nn.Linear(64, 96)
    with torch.no_grad():
        layer.weight[3] *= 1000  # has a scale of its own
    x = torch.randn(2, tokens, 64)
    x[1, 0] = 0
    quantized = precision.QuantizedLinear(layer, dtype)
    exact, rough = layer(x), quantized(x)
    assert rough.shape == exact.shape and rough.dtype == torch.float32
    scale = exact.norm(dim=1, keepdim=True).clamp(min=1)  # each output by its own size
    assert ((rough - exact).abs() < bound * scale + 0.02).all()
    assert torch.equal(quantized(x[:1])[0], rough[0]), "the result depends on the other tokens"


def test_int8_on_a_cpu_is_not_batch_invariant(toy):
    """Why windows then run one at a time."""
    exact = prediction(toy, 0)
    assert torch.allclose(prediction(toy, 3), exact, atol=1e-4)
    precision.set_precision(toy.model.model, "int8", CPU)
    assert not torch.allclose(prediction(toy, 3), prediction(toy, 0), atol=1e-4)
    assert {dtype for dtype in DTYPES if not precision.is_batch_invariant(dtype)} == {"int8", "fp8"}


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_all_large_layers_and_no_others_are_quantized(toy, dtype):
    network = toy.model.model
    linear = {name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
    precision.quantize_per_token(network, dtype)
    small = {name for name, module in network.named_modules() if isinstance(module, precision.QuantizedLinear)}
    assert small == {name for name in linear if any(kind in name for kind in ("self_attn", "cross_attn", ".ff."))}


@pytest.mark.parametrize(
    ("dtype", "device", "message"),
    [
        ("bfloat16", "cuda", "--dtype bfloat16: unknown; expected one of float32, bf16, fp16, int8, fp8"),
        ("fp8", "cpu", "--dtype fp8 is not for cpu; there, use int8"),
        ("int8", "mps", "--dtype int8 is not for mps; there, use bf16"),
    ],
)
def test_what_a_device_cannot_do_is_refused(toy, dtype, device, message):
    with pytest.raises(InputError, match=message):
        precision.set_precision(toy.model.model, dtype, torch.device(device))


def test_fp8_on_a_gpu_that_has_none_is_refused(toy, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    with pytest.raises(InputError, match="--dtype fp8: A100 has no fp8; use int8 or bf16"):
        precision.set_precision(toy.model.model, "fp8", CUDA)


def test_in_bf16_the_batch_changes_no_more_than_bf16_does(toy):
    """Why windows then run together."""
    exact = prediction(toy, 0)
    precision.set_precision(toy.model.model, "bf16", CPU)
    alone = prediction(toy, 0)
    assert (prediction(toy, 3) - alone).norm() < (alone - exact).norm()


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_cpu_without_the_instructions_is_said_once(monkeypatch, caplog, dtype):
    precision._warn_slow.cache_clear()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    for _ in range(2):
        precision.check_precision(dtype, CPU)
    assert len(caplog.records) == 1 and "has no instructions for it" in caplog.text and "int8" in caplog.text
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "avx512_fp16": True})
    precision._warn_slow.cache_clear()
    caplog.clear()
    precision.check_precision(dtype, CPU)
    assert not caplog.records
