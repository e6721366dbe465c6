from __future__ import annotations

import pytest
import torch
from torch import nn

from mmalign.trainers.average import WeightAverage


def test_the_mean_follows_and_steps_aside():
    weight = nn.Parameter(torch.tensor([0.0]))
    average = WeightAverage([weight], 0.5)
    for value in (4.0, 8.0, 2.0):  # 4, then 6, then 4
        with torch.no_grad():
            weight.fill_(value)
        average.update()
    with average.applied():
        assert weight.item() == pytest.approx(4.0)
    assert weight.item() == 2.0
    average.apply_mean()
    assert weight.item() == pytest.approx(4.0)


def test_at_first_little_of_the_mean_stays_with_a_ramp():
    weight = nn.Parameter(torch.tensor([0.0]))
    average = WeightAverage([weight], 0.9, ramp=True)
    for value in (4.0, 15.0):  # the second of two steps: 2 / 11 of the mean stays
        with torch.no_grad():
            weight.fill_(value)
        average.update()
    average.apply_mean()
    assert weight.item() == pytest.approx(4 * 2 / 11 + 15 * 9 / 11)


def test_before_any_step_there_is_no_mean_to_apply():
    weight = nn.Parameter(torch.tensor([3.0]))
    average = WeightAverage([weight], 0.9)
    with torch.no_grad():
        weight.fill_(5.0)
    average.apply_mean()
    assert weight.item() == 5.0


def test_weights_come_back_after_a_failure():
    weight = nn.Parameter(torch.tensor([1.0]))
    average = WeightAverage([weight], 0.5)
    average.update()
    with torch.no_grad():
        weight.fill_(9.0)
    with pytest.raises(KeyError), average.applied():
        raise KeyError
    assert weight.item() == 9.0
