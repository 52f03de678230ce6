"""Params of the loss, and of what a second round has: phases and more; nothing here imports torch."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from maskcast.models.segmentation.config import LossConfig
from maskcast.models.segmentation.configs import MaskLossConfig
from maskcast.params import Params
from maskcast.plugins import with_plugins
from maskcast.training.schedule import TrainingParams, phase_at

if TYPE_CHECKING:
    Loss = LossConfig
else:
    Loss = with_plugins(MaskLossConfig, "maskcast.losses", LossConfig, "name", "standard")


class AdversarialParams(Params):
    """A discriminator that learns, beside the segmenter, to tell what it finds from what is true.

    It is shown the maps of kind classes of labelled samples, and only in steps that draw no generated masks.
    """

    weight: float = Field(default=0.1, ge=0)
    """Weight of the segmenter's adversarial loss: the cross entropy of its masks being taken for real."""
    width: int = Field(default=32, ge=1)
    """Channels of the discriminator's first convolution; each of the next three has twice as many."""


class GeneratedParams(Params):
    """Learning from masks that another masker generated of unlabelled clips."""

    share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the samples drawn from generated masks; the others are drawn from labelled clips."""
    threshold: float = Field(default=0.8, ge=0, le=1)
    """Minimum confidence for the class of a pixel to be learnt, as precisely as
    `generate_masks.confidence_levels` tells confidences apart; opacity is learnt at every pixel."""
    drop: float = Field(default=0.0, ge=0, lt=1)
    """Share of the clips to leave out: those whose masks have the lowest ``mean_confidence``."""
    drop_of: Literal["set", "batch"] = "set"
    """`set` drops that share of all clips once; `batch` drops it from the clips drawn for each batch."""


class SegmentationPhase(Params):
    """A stretch of training. What it does not say is as in the rest of the params."""

    epochs: int = Field(ge=1)
    """Length of the phase; the lengths of all phases add up to ``training.epochs``."""
    rate: float = Field(default=1.0, gt=0)
    """Factor on the scheduled learning rate."""
    generated: float | None = Field(default=None, ge=0, le=1)
    """Share of the samples drawn from generated masks: 0 trains on labels only, 1 on generated masks only."""
    loss: Loss | None = None
    """Loss of label maps of kind classes."""
    adversarial: float | None = Field(default=None, ge=0)
    """Weight of the adversarial loss."""


class PhasedTraining(TrainingParams):
    """A schedule whose rate has a factor in each phase."""

    phases: list[SegmentationPhase] = Field(exclude=True)
    """In order."""

    @property
    def last_phase(self) -> int:
        """First epoch of the last phase, counted from 0."""
        return self.total_epochs - self.phases[-1].epochs

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step."""
        number = phase_at([phase.epochs for phase in self.phases], step // self.steps_per_epoch)
        return super().rate(step) * self.phases[number].rate
