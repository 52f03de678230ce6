"""A running average of the weights beside the weights that learn."""

from collections.abc import Callable
from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class EmaModel(nn.Module, Generic[M]):
    """A network and, if asked for, the exponential moving average (EMA) of its weights and statistics.

    Both are one module, so that a checkpoint holds both. The average is always in eval mode and never learns.

    Args:
        live: the network that learns.
        decay: of the average, per step; None keeps none.
    """

    def __init__(self, live: M, decay: float | None) -> None:
        super().__init__()
        self.live, self.decay = live, decay
        self.average: M | None = None if decay is None else deepcopy(live).requires_grad_(False).eval()

    @property
    def fixed_shapes(self) -> list[str]:
        """Methods of the network that learns whose inputs have the same shapes in all steps (``compiling``)."""
        return [f"live.{name}" for name in getattr(self.live, "fixed_shapes", ())]

    @property
    def final(self) -> M:
        """What is validated and kept: the average where there is one."""
        return self.live if self.average is None else self.average

    def train(self, mode: bool = True) -> "EmaModel[M]":
        """Sets the mode of the network that learns."""
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights as they stand before ``step``.

        The decay grows as (1 + step) / (10 + step) until it reaches its own value, so that the first weights,
        which are random, are soon forgotten (as ``tf.train.ExponentialMovingAverage`` does).
        """
        if self.average is None:
            return
        assert self.decay is not None
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        mean, now = self.average.state_dict(), self.live.state_dict()
        moving = [name for name, tensor in mean.items() if tensor.is_floating_point()]
        # all at once: a GPU would take longer to be told of each than to do it
        torch._foreach_lerp_([mean[name] for name in moving], [now[name] for name in moving], share)
        for name in mean.keys() - set(moving):
            mean[name].copy_(now[name])


class BetterModel(EmaModel[M]):
    """A network with its running average, of which the one that validates better is kept.

    Which one that is belongs to the weights, so that the best weights of a run know it.
    """

    average_is_better: torch.Tensor

    def __init__(self, live: M, decay: float) -> None:
        super().__init__(live, decay)
        self.register_buffer("average_is_better", torch.tensor(True))

    @property
    def final(self) -> M:
        """What is kept."""
        return super().final if self.average_is_better else self.live

    def validate(self, scores: Callable[[M], dict[str, float]], monitor: str) -> dict[str, float]:
        """Returns the scores of the better one, and ``monitor`` of both under their names."""
        assert self.average is not None
        both = {"average": scores(self.average), "live": scores(self.live)}
        better = max(both, key=lambda name: both[name][monitor])
        self.average_is_better.fill_(better == "average")
        return both[better] | {f"{monitor}_{name}": values[monitor] for name, values in both.items()}
