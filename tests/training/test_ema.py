"""The moving average of the weights: the released values, without reading from the device."""

import pytest
import torch
from ema_pytorch import EMA
from helpers.host_reads import HostReads
from helpers.training_toys import raw_config
from torch import nn

from diff_v2m.checkpoints.files import save_state
from diff_v2m.checkpoints.loading import load_model
from diff_v2m.common.errors import InputError
from diff_v2m.config import parse_model_config
from diff_v2m.training.diffusion_module import DiffusionModule
from diff_v2m.training.ema import MovingAverage, decay


class Part(nn.Module):
    """A weight, a frozen one and a buffer."""

    def __init__(self):
        super().__init__()
        self.weight, self.frozen = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("table", torch.zeros(1))


def test_the_decay_rises_as_released():
    """As released, after n updates 0, 0, .4054, .5613, … .9944 at 1000; .9999 from 215,443 on."""
    assert [decay(n) for n in (1, 2, 3, 4, 1000)] == pytest.approx([0, 0, 0.4054, 0.5613, 0.9944], abs=1e-4)
    assert decay(215_442) < 0.9999 and decay(216_000) == 0.9999


def test_the_average_equals_the_released_one():
    """Weight by weight the same as ema_pytorch's, also after being saved and loaded; under the same names."""
    model = Part()
    released = EMA(model, beta=0.9999, power=3 / 4, update_every=1, update_after_step=1, include_online_model=False)
    ours = MovingAverage(model)
    for n in range(1, 13):
        with torch.no_grad():
            model.weight.copy_(torch.randn(3))
            model.table.fill_(n)
        released.update()
        ours.update()
        if n == 6:
            saved, ours = ours.state_dict(), MovingAverage(model)
            ours.load_state_dict(saved)
        theirs = released.state_dict()
        assert theirs.keys() == ours.state_dict().keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.state_dict().items()), n
        assert ours.state_dict()["step"].dtype == theirs["step"].dtype


def test_frozen_weights_are_shared_and_gradients_are_not_kept():
    model = Part()
    average = MovingAverage(model)
    assert average.ema_model.frozen is model.frozen and average.ema_model.weight is not model.weight
    assert not average.ema_model.weight.requires_grad and model.weight.requires_grad


def test_an_update_does_not_ask_the_device():
    average = MovingAverage(Part())
    with HostReads() as reads:
        for _ in range(5):
            average.update()
    assert reads.found == []


@pytest.mark.parametrize("conditioner", [False, True])
def test_it_covers_what_the_config_says(conditioner):
    raw = raw_config()
    raw["training"]["ema_conditioner"] = conditioner
    module = DiffusionModule(parse_model_config(raw))
    names = {key.split(".")[1] for key in module.state_dict() if key.startswith("diffusion_ema.")}
    assert names == {"ema_model", "initted", "step"} | ({"ema_conditioner"} if conditioner else set())
    with torch.no_grad():
        for parameter in module.diffusion.parameters():
            parameter.fill_(1.0)
    averaged = module.averaged
    assert not all(bool((p == 1).all()) for p in averaged.model.parameters())
    assert all(bool((p == 1).all()) for p in averaged.conditioner.parameters()) is not conditioner
    module.diffusion_ema.restart()
    assert all(bool((p == 1).all()) for p in averaged.parameters())


def test_files_hold_an_average_of_the_conditioners_where_there_is_one(tmp_path):
    """Loaded, and saved as one set of weights: the average of both, or what was trained of both."""
    raw = raw_config()
    raw["training"]["ema_conditioner"] = True
    module = DiffusionModule(parse_model_config(raw))
    with torch.no_grad():
        for parameter in module.diffusion.parameters():
            parameter.add_(1.0)
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": module.state_dict(), "model_config": raw}, path)
    for weights, expected in (("ema", module.averaged), ("online", module.diffusion)):
        loaded, config = load_model(path, weights=weights)
        kept, name = expected.state_dict(), "conditioner.conditioners.class.int_embedder.weight"
        assert all(torch.equal(tensor, kept[name]) for name, tensor in loaded.state_dict().items())
    assert not torch.equal(module.averaged.state_dict()[name], module.diffusion.state_dict()[name])
    save_state(torch.load(path, weights_only=True)["state_dict"], config, tmp_path / "one.safetensors", dtype=None)
    one, both = load_model(tmp_path / "one.safetensors")[0].state_dict(), load_model(path)[0].state_dict()
    assert all(torch.equal(one[name], tensor) for name, tensor in both.items())


def test_without_an_average_none_can_cover_the_conditioners():
    raw = raw_config()
    raw["training"] |= {"use_ema": False, "ema_conditioner": True}
    with pytest.raises(InputError, match="training.ema_conditioner: true needs use_ema true"):
        parse_model_config(raw)
