"""The exponential moving average of the trained weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

BETA, POWER = 0.9999, 3 / 4


def decay(updates: int) -> float:
    """Decay of the average at this update: 0 at the first two, .99 after 500, .9999 from 215,443 on."""
    return min(max(1 - max(updates - 1, 1) ** -POWER, 0.0), BETA)


class MovingAverage(nn.Module):
    """`ema_model` follows the network; `ema_conditioner` follows the conditioners if the config asks for it.

    Decay and state-dict names are those of ema_pytorch, which the release uses. Unlike ema_pytorch, an update does not
    read the number of updates back from the device. Frozen weights are shared with the model, not copied.
    """

    def __init__(self, model: nn.Module, conditioner: nn.Module | None = None):
        super().__init__()
        self.ema_model = _follower(model)
        self.followed = [(model, self.ema_model)]  # a list keeps the trained weights out of this state dict
        if conditioner is not None:
            self.ema_conditioner = _follower(conditioner)
            self.followed.append((conditioner, self.ema_conditioner))
        self.register_buffer("initted", torch.zeros(1))
        self.register_buffer("step", torch.zeros(1, dtype=torch.int64))
        self.updates = 0  # `step` on the host
        self.register_load_state_dict_post_hook(_restore_updates)

    @torch.no_grad()
    def update(self) -> None:
        """Follow the weights; once per optimiser step. The first three updates copy them."""
        self.updates += 1
        self.step.fill_(self.updates)
        self.initted.fill_(self.updates > 2)
        follow = get_ema_multi_avg_fn(0.0 if self.updates <= 3 else decay(self.updates))
        for pairs in self._pairs():
            follow(*zip(*pairs, strict=True), None)

    @torch.no_grad()
    def restart(self) -> None:
        """Copy the weights into the average; before training."""
        for average, online in chain(*self._pairs()):
            average.copy_(online)

    def _pairs(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """(average, followed) of all parameters, then of all buffers: fsdp2 shards parameters only.

        Looked up at every call, because a strategy may replace the tensors.
        """
        for online, average in self.followed:
            for list_of in (nn.Module.parameters, nn.Module.buffers):
                both = zip(list_of(average), list_of(online), strict=True)
                pairs = [(a.detach(), o.detach()) for a, o in both if a is not o and a.is_floating_point()]
                if pairs:
                    yield pairs


def with_parts(module: nn.Module, **parts: nn.Module) -> nn.Module:
    """A copy of `module` with some children replaced by `parts`; the other children are shared."""
    return copy.deepcopy(module, {id(child): parts.get(name, child) for name, child in module.named_children()})


def _restore_updates(average: MovingAverage, incompatible_keys: object) -> None:
    if not average.step.is_meta:
        average.updates = int(average.step)


def _follower(module: nn.Module) -> nn.Module:
    frozen = {id(parameter): parameter for parameter in module.parameters() if not parameter.requires_grad}
    return copy.deepcopy(module, frozen).requires_grad_(False)
