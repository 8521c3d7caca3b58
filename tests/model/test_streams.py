"""Streams by name, and condition dropout."""

import torch
from helpers.toy_blocks import streams

from diff_v2m.model.streams import Streams, drop_streams


def ones(*, color: bool = True) -> Streams:
    return streams(4000, color=color).map(lambda s: s._replace(tokens=torch.ones(4000, 1, 1)))


def dropped(given: Streams, each: float, joint: float, seed: int = 0) -> torch.Tensor:
    """(streams, clips) bool."""
    torch.manual_seed(seed)
    return torch.stack([s.tokens.flatten() == 0 for s in drop_streams(given, each, joint)[0].present()])


def test_each_stream_is_dropped_alone_and_joint_dropout_drops_all():
    gone = dropped(ones(), 0.1, 0.0)
    assert (gone.float().mean(1) - 0.1).abs().max() < 0.02
    assert gone.all(0).float().mean() < 0.01
    gone = dropped(ones(), 0.0, 0.3)
    assert abs(gone.all(0).float().mean() - 0.3) < 0.03 and torch.equal(gone.any(0), gone.all(0))


def test_random_numbers_are_drawn_in_the_released_order():
    """Semantic, rhythm, colour slot, then all together: a seed keeps its results."""
    torch.manual_seed(3)
    semantic, rhythm, color, joint = (
        torch.bernoulli(torch.full((4000, 1, 1), share)) for share in (0.2, 0.2, 0.2, 0.1)
    )
    expected = torch.stack([semantic, rhythm, color]).flatten(1).bool() | joint.flatten().bool()
    assert torch.equal(dropped(ones(), 0.2, 0.1, seed=3), expected)
    assert torch.equal(dropped(ones(color=False), 0.2, 0.0, seed=3), torch.stack([semantic, rhythm]).flatten(1).bool())


def test_absent_streams_stay_absent():
    given = streams(color=False)
    assert given.map(lambda s: s).color is None and len(given.present()) == 2
    doubled = given.semantic.with_unconditional()
    assert torch.equal(doubled.tokens[:2], given.semantic.tokens) and not doubled.tokens[2:].any()
    assert doubled.mask.shape == (4, doubled.tokens.shape[1])
