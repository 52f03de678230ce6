"""Params of training a detector. Nothing here imports torch."""

from pydantic import Field, model_validator

from maskcast.data.augment.boxes import BoxAugmentParams, StrongParams
from maskcast.models.detection.configs import DetectorConfig, FasterRcnnConfig
from maskcast.params import Batch, Params
from maskcast.training.schedule import SgdPhases


class UnlabeledParams(Params):
    """Learning from images without boxes, by pseudo labels."""

    batch_size: Batch
    """Unlabelled images per step."""
    threshold: float = Field(default=0.7, gt=0, lt=1)
    """Minimum score of a teacher's box to become a pseudo label."""
    weight: float = Field(default=4.0, gt=0)
    """Weight of the loss on pseudo labels."""
    burn_in_steps: int = Field(ge=0)
    """Steps of supervised training before the teacher's pseudo labels are used."""
    strong: StrongParams = StrongParams()
    """Augmentation of the student's view, on top of the teacher's."""


class DetectorTraining(Params):
    """What a detector is, sees and learns by."""

    model: DetectorConfig = FasterRcnnConfig()
    """Architecture and its sizes."""
    augment: BoxAugmentParams = BoxAugmentParams()
    """Augmentation of training images."""
    repeat_threshold: float | None = Field(default=None, gt=0, le=1)
    """Images with a class that occurs in less than this fraction of the images are drawn more often (repeat factor
    sampling); null draws all equally often."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of an exponential moving average of the weights, which is then validated and kept; null keeps
    none."""
    unlabeled: UnlabeledParams | None = None
    """Semi-supervised training on the unlabelled images of the data set, too; null trains on labelled images
    only."""
    training: SgdPhases
    """Schedule; a sample of ``batch_size`` is one labelled image."""
    val_batch_size: Batch = 8
    """Images detected at once in validation."""

    @model_validator(mode="after")
    def _teacher_exists(self) -> "DetectorTraining":
        if self.unlabeled is not None:
            if self.ema is None:
                raise ValueError("unlabeled needs a teacher: set ema, e.g. to 0.9996")
            if self.training.world_size > 1:
                raise ValueError("unlabeled trains on one process: set training.processes and training.nodes to 1")
        return self
