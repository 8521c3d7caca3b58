"""Rotary positions by token number and by time."""

import math

import pytest
import torch

from diff_v2m.model.rotary import RotaryEmbedding, time_rotary


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_rotary_scores_depend_on_the_distance_only():
    rotary = RotaryEmbedding(64)(50)
    q, k = torch.randn(64), torch.randn(64)
    scores = rotary(q.expand(1, 1, 50, 64))[0, 0] @ rotary(k.expand(1, 1, 50, 64))[0, 0].T
    assert torch.allclose(scores[3, 1], scores[40, 38], atol=1e-4)
    assert not torch.allclose(scores[3, 1], scores[3, 2], atol=1e-2)


def test_half_a_head_rotates_but_at_least_32_dimensions():
    assert [RotaryEmbedding(head)(1).cos.shape[-1] for head in (16, 32, 40, 64, 128)] == [8, 16, 16, 16, 32]


def test_time_rotary_separates_neighbouring_seconds_up_to_half_a_minute():
    times = torch.arange(30) + 0.5
    rotary = time_rotary(times, 64, fastest=2.0)
    ones = rotary(torch.ones(1, 1, 30, 64))[0, 0]
    scores = ones @ ones.T
    assert (scores.argmax(1) == torch.arange(30)).all()
    nearest_rival = scores.masked_fill(torch.eye(30).bool(), -math.inf).amax(1)
    assert (scores.diagonal() - nearest_rival > 4).all()  # a softmax over them is all but decided


def test_timeless_tokens_attend_alike_at_all_times():
    rotary = time_rotary(torch.tensor([0.5, 29.5, math.nan]), 64, fastest=2.0)
    q, k = torch.randn(64), torch.randn(64)
    q, k = rotary(q.expand(1, 1, 3, 64))[0, 0], rotary(k.expand(1, 1, 3, 64))[0, 0]
    scores = q @ k.T
    assert torch.allclose(scores[:, 2], scores[0, 2].expand(3))
    assert torch.allclose(scores[2], scores[2, 0].expand(3))
    assert scores[2, 2] != 0
