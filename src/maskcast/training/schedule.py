"""How long, how fast and on how many processes to train."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from maskcast.stage import StageParams


class TrainingParams(StageParams):
    """How long and how fast to train; an epoch is ``steps_per_epoch`` batches and ends with a validation."""

    epochs: int = Field(ge=1)
    """Number of epochs at most."""
    steps_per_epoch: int = Field(ge=1)
    """Optimiser steps between two validations."""
    batch_size: int = Field(ge=1)
    """Samples per step, of all processes together."""
    learning_rate: float = Field(gt=0)
    """Peak of the schedule: linear warm-up, then cosine per step (AdamW)."""
    min_learning_rate: float = Field(default=1e-8, ge=0)
    """Where the cosine ends."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.005, ge=0)
    """Decoupled weight decay of AdamW, on tensors of two or more dimensions."""
    clip_grad_norm: float | None = Field(default=1.0, gt=0)
    """Clips the global norm of the gradient; null leaves it alone."""
    patience: int = Field(default=15, ge=0)
    """Epochs without a better validation score before training stops; 0 never stops."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Autocast to bf16 (weights and sums stay fp32) or everything in fp32."""
    seed: int = Field(default=0, ge=0)
    """Decides initial weights, samples and augmentation."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between checkpoints; a killed run goes on from the last one."""
    processes: int = Field(default=1, ge=1, exclude=True)
    """Processes on each node, one per GPU; they share the batch and learn the same as one would."""
    nodes: int = Field(default=1, ge=1, exclude=True)
    """Machines; more than 1 makes a Kubeflow TrainJob, from within a pod of the cluster."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.batch_size % (self.processes * self.nodes):
            raise ValueError(
                f"batch_size {self.batch_size} cannot be divided among nodes x processes = "
                f"{self.nodes} x {self.processes}"
            )
        return self

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.epochs * self.steps_per_epoch


def learning_rate(params: TrainingParams, step: int) -> float:
    """Returns the rate at ``step``: linear warm-up to the peak, then half a cosine down to the minimum."""
    if step < params.warmup_steps:
        return params.learning_rate * (step + 1) / params.warmup_steps
    done = (step - params.warmup_steps) / max(1, params.steps - params.warmup_steps)
    span = params.learning_rate - params.min_learning_rate
    return params.min_learning_rate + span * 0.5 * (1 + math.cos(math.pi * done))
