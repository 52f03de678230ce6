"""The forecasters there are, and what can be chosen of each. Nothing here imports torch.

A new one: a module with its config, whose ``build`` imports what it needs, and a place in ``ForecasterConfig``; or
a plugin.
"""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from maskcast.models.config import ModelConfig
from maskcast.plugins import with_plugins

if TYPE_CHECKING:
    from maskcast.models.forecasting.base import Forecaster
    from maskcast.models.forecasting.label_codec import EmbeddedClasses, OneHotClasses
    from maskcast.models.forecasting.mask_forecaster import MaskForecaster
    from maskcast.models.forecasting.translator import Translator
    from maskcast.models.recurrent.stack import Recurrent

OBJECT_HIDDEN = 64  # width of an object's memory
Side = Annotated[int, Field(ge=1)]


class MaskForecasterConfig(ModelConfig):
    """What all forecasters of masks share that learn pixels."""

    stride: Literal[1, 2, 4, 8] = 8
    """Pixels per cell of the network's state, along each axis."""
    hidden: int = Field(default=32, ge=1)
    """Channels of the state."""
    motion: Literal["object", "none"] = "object"
    """Masks only: `object` moves each object of the last seen mask along a learned trajectory; `none` leaves it in
    place."""
    loss_steps: int = Field(default=2, ge=1)
    """Number of future frames, drawn at random, in the pixel loss of a training step; `feedback` needs all of
    them."""
    loss_stride: int = Field(default=2, ge=1, le=16)
    """The pixel loss uses every n-th row and column of these frames, from a random offset."""
    loss_clips: int = Field(default=2, ge=1)
    """Clips of a batch in the pixel loss with `motion: object`; trajectories are learned from all clips."""
    whole: bool = False
    """Masks only: complete objects that the image border or another object cuts off; this is learned first."""

    def around(
        self,
        dynamics: "Recurrent | Translator",
        codec: "EmbeddedClasses | OneHotClasses",
        *,
        residual: bool = True,
        feedback: bool = False,
    ) -> "MaskForecaster":
        """Returns the forecaster around a network."""
        from maskcast.models.forecasting.mask_forecaster import MaskForecaster
        from maskcast.models.forecasting.pixels import Pixels
        from maskcast.models.objects.motion import ObjectMotion

        pixels = Pixels(self.loss_steps, self.loss_stride, self.loss_clips)
        motion = None
        if self.motion == "object":
            motion = ObjectMotion(OBJECT_HIDDEN, codec.num_classes, whole=self.whole)
        return MaskForecaster(codec, dynamics, residual=residual, motion=motion, feedback=feedback, pixels=pixels)

    @model_validator(mode="after")
    def _moving(self) -> Self:
        if self.whole and self.motion == "none":
            raise ValueError("whole: true needs motion: object")
        return self


class RecurrentConfig(MaskForecasterConfig):
    """What ConvLSTM and ConvGRU share."""

    input: Literal["masks", "frames"] = "masks"
    """Forecast masks from masks, or frames from frames."""
    layers: int = Field(default=1, ge=1, le=100)
    """Recurrent layers."""
    kernel: Literal[1, 3, 5, 7] = 3
    """Kernel size of the recurrent convolutions."""
    embedding: Literal["learned", "onehot"] = "learned"
    """Masks only: how classes are encoded at input and output: a learned vector, or one channel per class."""
    residual: bool = True
    """Masks only: forecast changes of the last seen mask; false forecasts every pixel from scratch."""
    feedback: bool = False
    """Masks only: feed the network its own forecast (straight-through, so that gradients pass)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.motion == "object" and (self.feedback or not self.residual):
            raise ValueError("motion: object needs residual: true and feedback: false")
        if self.input == "frames" and self.whole:
            raise ValueError("whole: true needs input: masks")
        if self.embedding == "onehot" and self.stride != 1:
            raise ValueError("embedding: onehot needs stride: 1")
        return self

    def build(self, num_classes: int) -> "Forecaster":
        """Returns the network."""
        from maskcast.models.forecasting.frame_forecaster import FrameForecaster
        from maskcast.models.forecasting.label_codec import EmbeddedClasses, OneHotClasses

        if self.input == "frames":
            return FrameForecaster(self.recurrent(self.hidden), self.hidden, self.stride, self.loss_steps)
        codec: EmbeddedClasses | OneHotClasses
        if self.embedding == "onehot":
            codec = OneHotClasses(num_classes, self.hidden, start_at_zero=self.residual)
        else:
            codec = EmbeddedClasses(num_classes, self.hidden, self.stride)
        dynamics = self.recurrent(codec.channels)
        return self.around(dynamics, codec, residual=self.residual, feedback=self.feedback)

    def recurrent(self, channels: int) -> "Recurrent":
        """Returns the recurrent layers over an input of ``channels``."""
        raise TypeError(f"{type(self).__name__} must implement recurrent")


class ConvLSTMConfig(RecurrentConfig):
    """Encoder-forecaster of ConvLSTM layers."""

    arch: Literal["convlstm"] = "convlstm"
    peepholes: Literal["none", "channel", "full"] = "none"
    """Peephole connections from the cell to the gates: one weight per channel, or per channel and position."""
    size: tuple[Side, Side] | None = None
    """Height and width of the frames, for full peepholes."""
    norm: Literal["gates", "batch"] = "gates"
    """GroupNorm on the gates, or BatchNorm after each layer."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Activation of candidate and output."""

    @model_validator(mode="after")
    def _sized(self) -> Self:
        if (self.peepholes == "full") != (self.size is not None):
            raise ValueError(
                "peepholes: full needs size: [height, width] of the frames; other peepholes have none"
            )
        return self

    def recurrent(self, channels: int) -> "Recurrent":
        """Returns the recurrent layers over an input of ``channels``."""
        from maskcast.models.recurrent.cells import ConvLSTMCell
        from maskcast.models.recurrent.stack import Recurrent

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

    def recurrent(self, channels: int) -> "Recurrent":
        """Returns the recurrent layers over an input of ``channels``."""
        from maskcast.models.recurrent.cells import ConvGRUCell
        from maskcast.models.recurrent.stack import Recurrent

        widths = [channels] + [self.hidden] * (self.layers - 1)
        return Recurrent([ConvGRUCell(width, self.hidden, self.kernel) for width in widths])


class SimVPConfig(MaskForecasterConfig):
    """All future frames in one pass, by gated spatiotemporal attention (SimVP v2)."""

    arch: Literal["simvp"] = "simvp"
    hidden: int = Field(default=16, ge=1)
    """Channels of each frame's state; the network has the channels of all frames together."""
    blocks: int = Field(default=4, ge=1, le=100)
    """Number of attention blocks."""
    context: int = Field(default=11, ge=1)
    """Number of context frames; of a longer context only the last ones are used."""
    horizon: int = Field(default=11, ge=1)
    """The most frames that it can forecast."""

    def build(self, num_classes: int) -> "Forecaster":
        """Returns the network."""
        from maskcast.models.forecasting.label_codec import EmbeddedClasses
        from maskcast.models.forecasting.translator import Translator

        codec = EmbeddedClasses(num_classes, self.hidden, self.stride)
        return self.around(Translator(self.hidden, self.context, self.horizon, self.blocks), codec)


class ObjectsConfig(ModelConfig):
    """Objects that move, learned from their tracks."""

    arch: Literal["objects"] = "objects"
    hidden: int = Field(default=OBJECT_HIDDEN, ge=1)
    """Width of an object's memory."""
    whole: bool = False
    """Complete objects that the image border or another object cuts off; learned first, from uncut objects."""
    several: bool = False
    """Treat each connected component of a class as an object of its own and track it; false treats each class as
    one object."""

    def build(self, num_classes: int) -> "Forecaster":
        """Returns the network."""
        from maskcast.models.forecasting.object_forecaster import ObjectForecaster

        return ObjectForecaster(self.hidden, num_classes, whole=self.whole, several=self.several)


class FlowConfig(ModelConfig):
    """The last mask moved on along the optical flow of the masks; learns little beside how long flow lasts."""

    arch: Literal["flow"] = "flow"

    def build(self, num_classes: int) -> "Forecaster":
        """Returns the network."""
        from maskcast.models.forecasting.flow_forecaster import FlowForecaster

        return FlowForecaster(num_classes)


_Own = ConvLSTMConfig | ConvGRUConfig | SimVPConfig | ObjectsConfig | FlowConfig
if TYPE_CHECKING:
    ForecasterConfig = _Own
else:
    ForecasterConfig = with_plugins(_Own, "maskcast.forecasters", ModelConfig, "arch")
