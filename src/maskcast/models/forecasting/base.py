"""The base classes of forecasters and of baselines without training.

Shapes: B clips, T context frames, h horizon, H height, W width; frames have a last axis of 3 colours.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.labels import IGNORE
from maskcast.models.forecasting.batches import Batch, BatchSource, PixelBatches
from maskcast.models.forecasting.input import Input


class Predictor(ABC):
    """Base of all that forecasts clips, with or without training."""

    input: Input = Input.MASKS

    @abstractmethod
    def forecast(self, context: Tensor, horizon: int) -> Tensor:
        """Forecasts the frames or masks that follow.

        Args:
            context: uint8 masks (B, T, H, W), in which 255 counts as class 0, or frames (B, T, H, W, 3), depending
                on ``input``. It is not changed.
            horizon: h, number of frames to forecast.

        Returns:
            (B, h, ...) uint8 of the same kind; masks hold no 255.
        """

    def forecast_with_confidence(self, context: Tensor, horizon: int) -> tuple[Tensor, Tensor | None]:
        """Returns the same masks, and the probability of each pixel's class, uint8 (255 = 1), or None."""
        return self.forecast(context, horizon), None

    @property
    def draws_futures(self) -> bool:
        """Whether ``future`` draws futures that differ by seed."""
        return type(self).future is not Predictor.future

    def future(self, context: Tensor, horizon: int, seed: int) -> Tensor:
        """Draws one possible future, in the form of ``forecast``.

        The draw for a clip depends on the seed, not on the other clips in the batch.
        """
        raise NotImplementedError(f"{type(self).__name__} draws no futures")


class Forecaster(Predictor, nn.Module):
    """Base of forecasters that are trained."""

    same_each_step: ClassVar[bool] = False
    """Whether ``loss`` always does the same on the host for equal shapes and never waits for a GPU."""
    learns_masks: ClassVar[bool] = True
    """Whether training changes the forecast masks, not only their confidence."""

    def batch_source(self, store: ClipStore, clips: Sequence[Clip]) -> BatchSource:
        """Returns a source of the batches that ``loss`` takes, for some clips of a store.

        Args:
            store: chosen by ``input.source``.
            clips: of that store.
        """
        return PixelBatches(store, clips, self.input)

    def target_source(self, store: ClipStore, clips: Sequence[Clip], context: ClipStore) -> BatchSource:
        """Returns a source of the targets, if their store is another than that of the ``context``."""
        return self.batch_source(store, clips)

    @abstractmethod
    def loss(self, context: Batch, target: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss of forecasting ``target`` after ``context``, and its terms.

        Random numbers come from the states of torch, NumPy and Python. With several processes it is the loss of
        the whole batch, of which each process has its ``rank_indices`` (see ``maskcast.distributed``).
        """

    def prepare(self, store: ClipStore, clips: Sequence[Clip]) -> None:
        """Measures values on the training clips that are not learned by gradient; see ``batch_source``."""

    @abstractmethod
    def reset_to_persistence(self) -> None:
        """Resets it to repeating the last context frame or mask, as before training."""

    def reset_to_constant_velocity(self) -> None:
        """Resets it to moving every object at constant velocity; to persistence if it does not move objects."""
        self.reset_to_persistence()


def known(ids: Tensor) -> Tensor:
    """Returns class ids in which unknown pixels are background."""
    return ids.masked_fill(ids == IGNORE, 0)
