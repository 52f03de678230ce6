"""The running average of the weights, by hand."""

import pytest
import torch
from torch import nn

from maskcast.training.ema import EmaModel


def weight(module: nn.Module) -> float:
    return next(module.parameters()).item()


def test_the_average_by_hand() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 0.0)
    averaged = EmaModel(layer, decay=0.2)
    assert averaged.final is not averaged.live
    nn.init.constant_(averaged.live.weight, 1.0)
    averaged.update(0)  # decay (1 + 0) / (10 + 0) = 0.1
    assert weight(averaged.final) == pytest.approx(0.9)
    averaged.update(1)  # (1 + 1) / (10 + 1) = 0.1818
    assert weight(averaged.final) == pytest.approx(0.9 * 2 / 11 + 9 / 11)
    before = weight(averaged.final)
    nn.init.constant_(averaged.live.weight, 0.0)
    averaged.update(1000)  # its own value, 0.2
    assert weight(averaged.final) == pytest.approx(0.2 * before)


def test_statistics_of_norms_are_averaged_and_counters_copied() -> None:
    averaged = EmaModel(nn.BatchNorm1d(2), decay=0.5)
    averaged.live.running_mean += 4.0
    averaged.live.num_batches_tracked += 3
    averaged.update(100)
    assert averaged.final.running_mean.tolist() == [2, 2]
    assert averaged.final.num_batches_tracked.item() == 3


def test_the_average_neither_learns_nor_leaves_eval_mode() -> None:
    averaged = EmaModel(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), decay=0.9).train()
    assert averaged.live.training and not averaged.final.training and not averaged.final[1].training
    learning = [parameter for parameter in averaged.parameters() if parameter.requires_grad]
    assert len(learning) == 2
    assert not averaged.eval().live.training


def test_without_a_decay_there_is_no_average() -> None:
    averaged = EmaModel(nn.Linear(1, 1), decay=None)
    averaged.update(3)
    assert averaged.final is averaged.live
    assert len(averaged.state_dict()) == 2


def test_both_are_one_state() -> None:
    one, other = EmaModel(nn.Linear(1, 1), 0.5), EmaModel(nn.Linear(1, 1), 0.5)
    one.update(0)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.final.weight, one.final.weight)
