"""A running average of a network's weights, kept beside the weights that are trained."""

from collections.abc import Callable
from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class EmaModel(nn.Module, Generic[M]):
    """A network and, optionally, the exponential moving average (EMA) of its weights and batch-norm statistics.

    Both are parts of one module, so that a checkpoint holds both. The average is always in eval mode and gets no
    gradients.

    Args:
        live: the network that is trained.
        decay: of the average, per step; None keeps no average.
    """

    def __init__(self, live: M, decay: float | None) -> None:
        super().__init__()
        self.live, self.decay = live, decay
        self.average: M | None = None if decay is None else deepcopy(live).requires_grad_(False).eval()

    @property
    def fixed_shapes(self) -> list[str]:
        """Methods of the live network whose inputs have the same shapes in all steps (see ``compiling``)."""
        return [f"live.{name}" for name in getattr(self.live, "fixed_shapes", ())]

    @property
    def final(self) -> M:
        """The network that is validated and kept: the average, if there is one."""
        return self.live if self.average is None else self.average

    def train(self, mode: bool = True) -> "EmaModel[M]":
        """Sets the mode of the live network only."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Updates the average with the weights as they are after a number of ``steps``.

        The decay grows as (1 + steps) / (10 + steps) until it reaches its own value, so that the first weights,
        which are random, are soon forgotten (as ``tf.train.ExponentialMovingAverage`` does).
        """
        if self.average is None:
            return
        assert self.decay is not None
        share = 1 - min(self.decay, (1 + steps) / (10 + steps))
        mean, now = self.average.state_dict(), self.live.state_dict()
        # a weight that is used twice has two names, but moves once
        moving = list({t.data_ptr(): name for name, t in mean.items() if t.is_floating_point()}.values())
        # one call for all tensors: on a GPU a launch for each would take longer than the work itself
        torch._foreach_lerp_([mean[name] for name in moving], [now[name] for name in moving], share)
        for name, tensor in mean.items():
            if not tensor.is_floating_point():
                tensor.copy_(now[name])


class BetterModel(EmaModel[M]):
    """A network and its running average; the one with the better validation score is kept.

    Which of the two it is, is stored in a buffer, so that it is saved and restored with the best weights.
    """

    average_is_better: torch.Tensor

    def __init__(self, live: M, decay: float) -> None:
        super().__init__(live, decay)
        self.register_buffer("average_is_better", torch.tensor(True))

    @property
    def final(self) -> M:
        """The network that is kept."""
        return super().final if self.average_is_better else self.live

    def validate(self, scores: Callable[[M], dict[str, float]], monitor: str) -> dict[str, float]:
        """Returns the scores of the better network, and ``monitor`` of both under names of their own."""
        assert self.average is not None
        both = {"average": scores(self.average), "live": scores(self.live)}
        better = max(both, key=lambda name: both[name][monitor])
        self.average_is_better.fill_(better == "average")
        return both[better] | {f"{monitor}_{name}": values[monitor] for name, values in both.items()}
