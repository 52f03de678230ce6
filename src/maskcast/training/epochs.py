"""The progress of a run (its step and the best weights so far), and what is done at the end of each epoch."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from maskcast.errors import MaskcastError
from maskcast.progress import report, say
from maskcast.training.schedule import Schedule
from maskcast.training.step_metrics import divergence_error, start_error
from maskcast.training.task import Task


@dataclass
class Progress:
    """The state of a run without its current weights and its optimiser."""

    best: dict[str, float]
    best_weights: dict[str, Tensor]
    step: int = 0
    best_epoch: int = 0
    stale: int = 0
    stopped: bool = False
    seconds: float = 0.0
    losses: float = 0.0  # sum of the losses since the last epoch
    curve: list[dict[str, float]] = field(default_factory=list)

    def end_epoch(self, task: Task, params: Schedule) -> None:
        """Validates, keeps the weights if they are better, and stops a training that no longer improves.

        Raises:
            MaskcastError: if a score, or weights that would be kept, are not finite although the losses were: the
                last step made them so.
        """
        epoch = self.step // params.steps_per_epoch
        task.model.eval()
        with torch.no_grad():
            scores = task.validate()
        if not_finite := [name for name, value in scores.items() if not math.isfinite(value)]:
            evidence = f"{not_finite[0]} {scores[not_finite[0]]:g} in validation"
            raise divergence_error(self.step - 1, evidence) if self.step else start_error(evidence)
        report({f"val/{name}": value for name, value in scores.items()}, step=self.step)
        trained = {"loss": self.losses / params.steps_per_epoch} if epoch else {}
        self.curve.append({"epoch": epoch, **trained, **scores})
        self.losses = 0.0
        confirmed = epoch == 0 or task.improves_on_start()
        monitor = task.monitor
        better = monitor is None or not self.best or (confirmed and scores[monitor] > self.best[monitor])
        if better:
            self.best, self.best_epoch, self.stale = scores, epoch, 0
            self.best_weights = weights_of(task.model)
            if not all(tensor.isfinite().all() for tensor in self.best_weights.values()):
                raise divergence_error(self.step - 1, "weights that are not finite")
            task.check_rebuilt()
        elif epoch > max(params.last_phase, -(-task.burn_in_steps // params.steps_per_epoch)):
            self.stale += 1
            self.stopped = 0 < params.patience <= self.stale
        unconfirmed = "" if confirmed else " (not surely better than the start)"
        mark = " (best so far)" if better else " (stopping early)" if self.stopped else unconfirmed
        shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        say(f"epoch {epoch}/{params.total_epochs}: {shown}{mark}")


def check_start(model: nn.Module) -> None:
    """Checks the weights before the first step.

    Raises:
        MaskcastError: a parameter or buffer has values that are not finite.
    """
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise MaskcastError(
                f"model: {name} has values that are not finite before the first step, with which "
                "a model cannot be loaded; initialise it, or register a constant with persistent=False"
            )


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Returns a copy of the weights, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
