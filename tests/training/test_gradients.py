"""A global batch has the same gradient in one or two processes, at once or accumulated. The loss falls."""

from pathlib import Path

import pytest
import torch
from helpers.data_folder import dataset_config
from helpers.training_toys import TheSet, make_place
from torch import distributed, multiprocessing, nn

from diff_v2m.config import load_model_config
from diff_v2m.data.batch import Batch
from diff_v2m.data.loader import build_dataloader
from diff_v2m.training.diffusion_module import DiffusionModule
from diff_v2m.training.losses import training_losses

pytestmark = pytest.mark.slow

CLIPS = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp("gradients"))


def build(place: Path) -> DiffusionModule:
    """The same weights every time, none of them zero: a zero hides the gradient of others."""
    torch.manual_seed(0)
    module = DiffusionModule(load_model_config(place / "model.json")).train()
    with torch.no_grad():
        for parameter in module.diffusion.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return module


def batch_of(place: Path, module: DiffusionModule, size: int, number: int) -> Batch:
    """Clips number · size … of the first four; all of them fill the window."""
    loader = build_dataloader(dataset_config(TheSet(place)), module.config, batch_size=size, training=False)
    return list(loader)[number]


class Loss(nn.Module):
    """What `training_step` computes, with noise and times given: the module that DDP wraps."""

    def __init__(self, module: DiffusionModule):
        super().__init__()
        self.diffusion = module.diffusion

    def forward(self, batch: Batch, number: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        latents, noise = torch.randn(2, CLIPS, 64, 63, generator=generator)
        own = slice(number * len(batch), (number + 1) * len(batch))
        t, use_true = torch.tensor([0.1, 0.15, 0.6, 0.9])[own], torch.tensor([True, False, True, False])[own]
        conditions = self.diffusion.condition(batch).with_rhythm(use_true)
        return training_losses(self.diffusion.model, conditions, latents[own], noise[own], t).total


def gradients(module: nn.Module) -> dict[str, torch.Tensor]:
    named = module.named_parameters()
    return {name.removeprefix("module."): p.grad.clone() for name, p in named if p.grad is not None}


@pytest.fixture(scope="module")
def whole(place) -> dict[str, torch.Tensor]:
    module = build(place)
    loss = Loss(module)
    loss(batch_of(place, module, CLIPS, 0), 0).backward()
    return gradients(loss)


def assert_same(ours: dict[str, torch.Tensor], whole: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == whole.keys() and len(whole) > 50
    total = torch.stack([gradient.norm() for gradient in whole.values()]).norm()
    for name, gradient in whole.items():  # some are next to nothing: what is left where attention is all but uniform
        assert (ours[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-6 * total, name


def test_accumulating_four_is_a_batch_of_four(place, whole):
    module = build(place)
    loss = Loss(module)
    for number in range(CLIPS):
        (loss(batch_of(place, module, 1, number), number) / CLIPS).backward()
    assert_same(gradients(loss), whole)


def one_of_two(rank: int, place: Path, folder: Path) -> None:
    """A process of a distributed run, on its half of the clips."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    module = build(place)
    loss = nn.parallel.DistributedDataParallel(Loss(module))
    # the loader deals clips out in turns: this process has rank, rank + 2
    batch = batch_of(place, module, CLIPS // 2, 0)
    assert batch.names == [f"c{rank}", f"c{rank + 2}"]
    loss(batch, rank).backward()
    if rank == 0:
        torch.save(gradients(loss), folder / "gradients.pt")
    distributed.destroy_process_group()


def test_two_processes_have_the_gradient_of_one(place, tmp_path):
    multiprocessing.spawn(one_of_two, (place, tmp_path), nprocs=2)
    module = build(place)
    loss, batch = Loss(module), batch_of(place, module, CLIPS, 0)
    order = [0, 2, 1, 3]  # the clips as the two processes had them
    loss(taken(batch, order), 0).backward()
    assert_same(torch.load(tmp_path / "gradients.pt", weights_only=True), gradients(loss))


def taken(batch: Batch, order: list[int]) -> Batch:
    values = {key: value[order] if isinstance(value, torch.Tensor) else value for key, value in vars(batch).items()}
    return Batch(**values | {"names": [batch.names[i] for i in order]})


def test_checkpointing_changes_memory_and_not_the_gradient(place, whole):
    module = build(place)
    module.diffusion.model.model.transformer.gradient_checkpointing = True
    loss = Loss(module)
    loss(batch_of(place, module, CLIPS, 0), 0).backward()
    assert_same(gradients(loss), whole)


def test_the_loss_of_one_batch_falls(place):
    module = build(place)
    loss, batch = Loss(module), batch_of(place, module, CLIPS, 0)
    optimizer = torch.optim.AdamW([p for p in loss.parameters() if p.requires_grad], lr=2e-3)
    seen = []
    for _ in range(25):
        optimizer.zero_grad()
        value = loss(batch, 0)
        value.backward()
        optimizer.step()
        seen.append(float(value))
    assert seen[-1] < 0.7 * seen[0], seen
