"""Computed memory: known tensors counted right, and a plan that stays within its budget."""

import pytest
import torch
from helpers.toys import ROOT
from torch.nn import functional as F

from diff_v2m.common.errors import InputError
from diff_v2m.config import load_model_config
from diff_v2m.generation.memory import BATCHES, CHUNKS, SLACK, Memory, Plan, peak, size_of


@pytest.fixture(scope="module")
def memory():
    return Memory(load_model_config(ROOT / "configs/model/tiny.json"))


def test_what_lives_at_the_same_time_is_counted_and_views_are_not():
    def work():
        first = torch.empty(1000, device="meta")
        second = first.view(10, 100)[:, :50] + 1  # 500 of its own
        del first
        return second * 2

    assert peak(work) == 4 * (1000 + 500)


def test_in_place_takes_nothing_and_attention_holds_no_scores():
    def work():
        x = torch.empty(1, 2, 300, 8, device="meta")
        return F.scaled_dot_product_attention(x.mul_(2), x, x)

    assert peak(work) == 2 * 4 * 2 * 300 * 8


def test_weights_are_counted_by_their_precision(memory):
    half = Memory(memory.config, torch.bfloat16)
    full = sum(p.nelement() for p in half.model.model.parameters())
    assert 2 * full <= size_of(half.model.model) < 2.2 * full < size_of(memory.model.model)
    assert half.denoising(2) < memory.denoising(2)
    assert half.decoding(None) == memory.decoding(None)


def test_the_encoder_counts_where_it_shares_the_device(memory):
    clip = Memory(load_model_config(ROOT / "configs/model/diff_v2m.json"))
    assert memory.encoder == 0 and clip.encoder == pytest.approx(4 * 87.85e6, rel=1e-3)  # ViT-B/32's picture side
    kept = sum(size_of(part) for part in clip._parts())
    assert clip.needs(Plan()) > SLACK * (kept + clip.encoder + clip.denoising(1))


def test_more_together_takes_more_and_smaller_pieces_less(memory):
    assert memory.denoising(1) < memory.denoising(2) < memory.denoising(4)
    assert memory.decoding(2.0) < memory.decoding(10.0) < memory.decoding(None)
    assert memory.needs(Plan(offload=True)) < memory.needs(Plan())


@pytest.mark.parametrize("offload", [False, True])
def test_a_plan_stays_within_its_budget_and_nearly_uses_it(memory, offload):
    least = memory.needs(Plan(BATCHES[-1], CHUNKS[-1], offload))
    most = memory.needs(Plan(BATCHES[0], None, offload))
    for budget in (least, (least + most) // 2, most):
        plan = memory.fit(budget, offload=offload)
        assert plan.offload is offload and memory.needs(plan) <= budget
    assert plan == Plan(BATCHES[0], None, offload)


def test_a_budget_that_is_too_small_is_refused(memory):
    with pytest.raises(InputError, match="--memory 0.1: .*--offload"):
        memory.fit(0.1e9)
    with pytest.raises(InputError, match="--memory 0.1: .*bf16"):
        memory.fit(0.1e9, offload=True)
