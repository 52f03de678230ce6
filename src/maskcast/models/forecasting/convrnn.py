"""ConvLSTM and ConvGRU forecasters: what can be chosen, and how a network is put together from it."""

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import nn

from maskcast.models.forecasting.frame_forecaster import FrameForecaster
from maskcast.models.forecasting.label_codec import EmbeddedClasses, OneHotClasses
from maskcast.models.forecasting.mask_forecaster import EMBEDDING, MaskForecasterConfig
from maskcast.models.recurrent.cells import ConvGRUCell, ConvLSTMCell, Peepholes
from maskcast.models.recurrent.stack import Recurrent


class RecurrentConfig(MaskForecasterConfig):
    """What ConvLSTM and ConvGRU share."""

    input: Literal["masks", "frames"] = "masks"
    """Forecast masks from masks, or frames from frames."""
    layers: int = Field(default=1, ge=1)
    """Recurrent layers."""
    kernel: Literal[1, 3, 5, 7] = 3
    """Size of the recurrent convolutions."""
    embedding: Literal["learned", "onehot"] = "learned"
    """Masks only: what the network sees of a class and speaks in: a learned vector, or a channel per class."""
    residual: bool = True
    """Masks only: forecast changes of the last seen mask, or every pixel anew."""
    feedback: bool = False
    """Masks only: show the network its own forecast (straight-through, so that gradients pass)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.motion == "object" and (self.feedback or not self.residual):
            raise ValueError(
                "motion: object moves the last seen mask; with it use residual: true, feedback: false"
            )
        if self.embedding == "onehot" and self.stride != 1:
            raise ValueError("embedding: onehot is for stride: 1")
        return self

    def build(self, num_classes: int) -> nn.Module:
        """Returns the network."""
        if self.input == "frames":
            return FrameForecaster(self.recurrent(self.hidden), self.hidden, self.stride, self.loss_steps)
        codec: EmbeddedClasses | OneHotClasses
        if self.embedding == "onehot":
            codec = OneHotClasses(num_classes, self.hidden, start_at_zero=self.residual)
        else:
            codec = EmbeddedClasses(num_classes, self.hidden, self.stride, EMBEDDING)
        dynamics = self.recurrent(codec.channels)
        return self.around(dynamics, codec, residual=self.residual, feedback=self.feedback)

    def recurrent(self, channels: int) -> Recurrent:
        """Returns the recurrent layers over an input of ``channels``."""
        raise TypeError(f"{type(self).__name__} does not say what its recurrent layers are")


class ConvLSTMConfig(RecurrentConfig):
    """Encoder-forecaster of ConvLSTM layers."""

    arch: Literal["convlstm"] = "convlstm"
    peepholes: Peepholes = "none"
    """Let the gates see the cell: one weight per channel, or per channel and place."""
    size: tuple[int, int] | None = None
    """Height and width of the frames, for full peepholes."""
    norm: Literal["gates", "batch"] = "gates"
    """GroupNorm on the gates, or BatchNorm after each layer."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Of candidate and output."""

    @model_validator(mode="after")
    def _sized(self) -> Self:
        if (self.peepholes == "full") != (self.size is not None):
            raise ValueError(
                "peepholes: full needs size: [height, width] of the frames; other peepholes have none"
            )
        return self

    def recurrent(self, channels: int) -> Recurrent:
        """Returns the recurrent layers over an input of ``channels``."""
        height, width = (-(-side // self.stride) for side in self.size or (1, 1))
        cells = [
            ConvLSTMCell(
                channels if layer == 0 else self.hidden,
                self.hidden,
                self.kernel,
                norm=self.norm == "gates",
                activation=self.activation,
                peepholes=self.peepholes,
                size=(height, width),
            )
            for layer in range(self.layers)
        ]
        return Recurrent(cells, batch_norm=self.norm == "batch")


class ConvGRUConfig(RecurrentConfig):
    """Encoder-forecaster of ConvGRU layers."""

    arch: Literal["convgru"] = "convgru"

    def recurrent(self, channels: int) -> Recurrent:
        """Returns the recurrent layers over an input of ``channels``."""
        widths = [channels] + [self.hidden] * (self.layers - 1)
        return Recurrent([ConvGRUCell(width, self.hidden, self.kernel) for width in widths])
