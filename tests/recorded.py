"""Stands in for a CUDA graph on a CPU: a replay does the work again, into the memory of the first time."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from maskcast.models.cuda_graphs import GraphedCallable
from maskcast.training import learner
from maskcast.training.learner import MAX_GRAPHS, WARM_UP_STEPS


class GraphRecorder:
    """Records the work on a model.

    Attributes:
        replays: how many there were.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self.replays = model, 0

    def __call__(self, work: Callable[[], Any]) -> tuple[tuple[Tensor, Any], Callable[[], None]]:
        before = {name: value.clone() for name, value in self._model.state_dict().items()}
        state = torch.get_rng_state()
        found = work()
        grads = self._grads()
        self._model.load_state_dict(before)  # recording does nothing else
        torch.set_rng_state(state)

        def replay() -> None:
            self.replays += 1
            for parameter in self._model.parameters():
                parameter.grad = None
            loss, numbers = work()
            found[0].copy_(loss)
            for name, number in numbers.items():
                found[1][name].copy_(number)
            for kept, grad in zip(grads, self._grads(), strict=True):
                assert (kept is None) == (grad is None)
                if kept is not None and grad is not None:
                    kept.copy_(grad)

        return found, replay

    def _grads(self) -> list[Tensor | None]:
        return [parameter.grad for parameter in self._model.parameters()]


class Learner(learner.Learner):
    """Takes recorded steps on a CPU; ``recorder`` is that of the last one that was made."""

    recorder: GraphRecorder

    def __init__(self, task: Any, *given: Any) -> None:
        super().__init__(task, *given)
        type(self).recorder = GraphRecorder(task.model)
        self._recorded = GraphedCallable(
            self._gradients,
            self.recorder,
            parameters=self._parameters,
            warm_up_calls=WARM_UP_STEPS,
            max_graphs=MAX_GRAPHS,
        )
