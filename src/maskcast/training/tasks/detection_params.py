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
    """Score from which on the teacher's box is a pseudo label."""
    weight: float = Field(default=4.0, gt=0)
    """Weight of the loss of pseudo labels."""
    burn_in_steps: int = Field(ge=0)
    """Steps of supervised training before the teacher is trusted."""
    strong: StrongParams = StrongParams()
    """What the student's view has more than the teacher's."""


class DetectorTraining(Params):
    """What a detector is, sees and learns by."""

    model: DetectorConfig = FasterRcnnConfig()
    """Architecture and its sizes."""
    augment: BoxAugmentParams = BoxAugmentParams()
    """How training images are varied."""
    repeat_threshold: float | None = Field(default=None, gt=0, le=1)
    """Images with a class that less than this fraction of them has are drawn more often; null draws all alike."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of the running average of the weights, which is then validated and kept; null keeps none."""
    unlabeled: UnlabeledParams | None = None
    """Learning from the unlabelled images of the data set; null leaves them alone."""
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
