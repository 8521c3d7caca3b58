"""The moving average of the weights that training keeps beside them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn

BETA, POWER = 0.9999, 3 / 4


def decay(updates: int) -> float:
    """What is kept of the average in this update: 0 in the first two, .99 after 500, .9999 from 215,443 on."""
    return min(max(1 - max(updates - 1, 1) ** -POWER, 0.0), BETA)


class MovingAverage(nn.Module):
    """`ema_model` follows the network, `ema_conditioner` the conditioners where it is asked for (released: it is not).

    Numbers and names are those of ema_pytorch, which the release uses; that one asks the device how many updates there
    were, three times a step, and waits for the answer. Weights that are not trained are shared, not copied.
    """

    def __init__(self, model: nn.Module, conditioner: nn.Module | None = None):
        super().__init__()
        self.ema_model = _follower(model)
        self.followed = [(model, self.ema_model)]  # in a list, so that the state dict has the followers alone
        if conditioner is not None:
            self.ema_conditioner = _follower(conditioner)
            self.followed.append((conditioner, self.ema_conditioner))
        self.register_buffer("initted", torch.zeros(1))
        self.register_buffer("step", torch.zeros(1, dtype=torch.int64))
        self.updates = 0  # `step`, known without asking the device

    @torch.no_grad()
    def update(self) -> None:
        """Once an optimiser step. The first three copy the weights."""
        self.updates += 1
        self.step.fill_(self.updates)
        self.initted.fill_(self.updates > 2)
        share = 1.0 if self.updates <= 3 else 1.0 - decay(self.updates)
        for pairs in self._pairs():
            torch._foreach_lerp_(*zip(*pairs, strict=True), share)

    @torch.no_grad()
    def restart(self) -> None:
        """Take the weights as they are for the average, before training."""
        for average, online in chain(*self._pairs()):
            average.copy_(online)

    def _pairs(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Weights of the average with those they follow, then the buffers (fsdp2 deals out the former alone). Looked
        up each time, as a strategy may replace them."""
        for online, average in self.followed:
            for list_of in (nn.Module.parameters, nn.Module.buffers):
                both = zip(list_of(average), list_of(online), strict=True)
                pairs = [(a.detach(), o.detach()) for a, o in both if a is not o and a.is_floating_point()]
                if pairs:
                    yield pairs

    def _load_from_state_dict(self, *arguments) -> None:
        super()._load_from_state_dict(*arguments)
        if not self.step.is_meta:
            self.updates = int(self.step)


def _follower(module: nn.Module) -> nn.Module:
    frozen = {id(parameter): parameter for parameter in module.parameters() if not parameter.requires_grad}
    return copy.deepcopy(module, frozen).requires_grad_(False)
