"""CUDA without a GPU: torch's fake tensors check the devices and dtypes of every operation, and cannot be read back by
the host. No kernel runs; the other tests check the numbers.
"""

import dataclasses
from functools import partial

import pytest
import torch
from helpers import toys
from helpers.host_reads import HostReads
from torch._subclasses.fake_tensor import FakeTensorMode

from diff_v2m.config import parse_model_config
from diff_v2m.data.collate import feature_batch
from diff_v2m.model import precision
from diff_v2m.model.dit import LatentDiffusion
from diff_v2m.model.fusion import FUSIONS
from diff_v2m.training.losses import training_losses

CUDA = torch.device("cuda")


@pytest.fixture
def fake():
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def model_on_cuda(**dit):
    raw = toys.toy_raw_config()
    raw["model"]["diffusion"]["config"] |= dit
    config = parse_model_config(raw)
    with CUDA:
        return config, LatentDiffusion(config)


def batch_on_cuda(fake, rhythm: bool):
    clips = [toys.toy_features(3.0, seed) for seed in range(2)]
    batch = feature_batch(clips, ["a", "b"], [2, 0])
    if rhythm:
        batch = dataclasses.replace(batch, rhythm=torch.randn(2, batch.mask.shape[1], 1))
    return batch._each(fake.from_tensor).to(CUDA)  # as a data loader's would come


def noise_for(config):
    return torch.randn(2, config.latent_channels, config.latent_length(config.sample_size), device=CUDA)


def on_the_cpu(side, t):
    """`fusion_at`, which reads t: a fake tensor cannot be read."""
    assert t.device.type == "cpu"
    return side


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bf16", "fp16", "int8", "fp8"])
def test_sampling_keeps_to_its_device_and_reads_nothing_back(fake, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    config, model = model_on_cuda()
    network = model.eval().requires_grad_(False).model
    precision.set_precision(network, dtype, CUDA)
    x = noise_for(config)
    with torch.no_grad():
        conditions = model.condition(batch_on_cuda(fake, rhythm=False))
        cache = network.precompute(conditions, x.shape[-1])
        fusion = network.model.transformer.fusion
        for side in fusion.sides or [fusion]:
            monkeypatch.setattr(network.model.transformer, "fusion_at", partial(on_the_cpu, side))
            for scale in (1.0, 3.0):
                with HostReads() as reads:
                    v = network.denoise(x, torch.full((2,), 0.1), cache, guidance_scale=scale)
                assert not reads.found
                assert v.device.type == "cuda" and v.dtype == torch.float32 and v.shape == x.shape
        audio = model.decode(v, chunk=20)
    assert audio.device.type == "cuda" and audio.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fusion", "mixed"),
    [*((name, torch.bfloat16) for name in FUSIONS), ("gate", None), ("gate", torch.float16)],
)
def test_a_loss_keeps_to_its_device_and_reads_nothing_back(fake, fusion, mixed, monkeypatch):
    """Up to the backward pass, for which torch wants a real GPU."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    config, model = model_on_cuda(attention_weight_type=fusion)
    latents, t = noise_for(config), torch.rand(2, device=CUDA)
    project, seen = model.model.model.transformer.project_in, []
    project.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    with torch.autocast("cuda", mixed or torch.bfloat16, enabled=mixed is not None):
        conditions = model.train().condition(batch_on_cuda(fake, rhythm=True))
        losses = training_losses(model.model, conditions, latents, torch.randn_like(latents), t, joint_dropout=0.1)
    assert seen == [mixed or torch.float32]
    assert losses.total.device.type == "cuda" and losses.total.dtype == torch.float32 and losses.total.requires_grad


def test_fake_tensors_refuse_mixed_devices_and_host_reads(fake):
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(2, device=CUDA) + torch.ones(2)
    with pytest.raises(Exception, match="_local_scalar_dense"):
        torch.ones(2, device=CUDA).sum().item()
