"""What every forecaster is, learned or not.

Shapes: B clips, T context frames, h horizon, H height, W width; frames have a last axis of 3 colours.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.labels import IGNORE
from maskcast.models.forecasting.batches import Batch, BatchSource, Pictures
from maskcast.models.forecasting.input import Input


class Predictor(ABC):
    """Continues clips: what baselines and learned forecasters share."""

    input: Input = Input.MASKS

    @abstractmethod
    def forecast(self, context: Tensor, horizon: int) -> Tensor:
        """Continues clips.

        Args:
            context: (B, T, H, W) masks, in which 255 counts as class 0, or (B, T, H, W, 3) frames, as ``input``
                says; uint8. It stays as it is.
            horizon: h, frames to forecast.

        Returns:
            (B, h, ...) uint8 of the same kind; masks hold no 255.
        """

    def forecast_with_confidence(self, context: Tensor, horizon: int) -> tuple[Tensor, Tensor | None]:
        """Returns the same masks, and the probability of each pixel's class as uint8, 255 = 1; None if unknown."""
        return self.forecast(context, horizon), None

    def future(self, context: Tensor, horizon: int, seed: int) -> Tensor:
        """Returns one of the futures that may come; of a model that draws none, the forecast.

        The same seed draws the same for a clip, whatever other clips are with it.
        """
        return self.forecast(context, horizon)


class Forecaster(Predictor, nn.Module):
    """A forecaster that learns."""

    same_each_step: ClassVar[bool] = False
    """Whether all that ``loss`` does on the host is the same for batches of the same shapes, and never waits for a
    GPU: then a step can be recorded."""

    def batch_source(self, store: ClipStore, clips: Sequence[Clip]) -> BatchSource:
        """Returns what it learns from, of some clips of a store: the batches that ``loss`` takes.

        Args:
            store: what ``input.source`` picked.
            clips: of that store.
        """
        return Pictures(store, clips, self.input)

    @abstractmethod
    def loss(self, context: Batch, target: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss of forecasting ``target`` after ``context``, and its parts.

        What is drawn comes from torch's random state. Among processes that train together it is the loss of the
        whole batch, of which each has its ``own_part`` (see ``maskcast.distributed``).
        """

    def prepare(self, store: ClipStore, clips: Sequence[Clip]) -> None:
        """Takes from the training clips what is measured instead of learned; see ``batch_source``."""

    @abstractmethod
    def reset_to_persistence(self) -> None:
        """Makes it repeat the last seen frame or mask, as before any training."""

    def reset_to_constant_velocity(self) -> None:
        """Makes it move every object at its velocity; one that moves no objects is reset to persistence."""
        self.reset_to_persistence()


def known(ids: Tensor) -> Tensor:
    """Returns class ids with background where they are unknown."""
    return ids.masked_fill(ids == IGNORE, 0)
