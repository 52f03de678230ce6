"""The forecasters there are, and what can be chosen of each. Nothing here imports torch.

A new one: a module with its config, whose ``build`` imports what it needs, and a place in ``ForecasterConfig``; or
a plugin.
"""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from maskcast.models.config import ModelConfig
from maskcast.params import is_false
from maskcast.plugins import with_plugins

if TYPE_CHECKING:
    from maskcast.models.forecasting.base import Forecaster
    from maskcast.models.forecasting.label_codec import EmbeddedClasses, OneHotClasses
    from maskcast.models.forecasting.mask_forecaster import MaskForecaster
    from maskcast.models.forecasting.translator import Translator
    from maskcast.models.recurrent.stack import Recurrent

EMBEDDING = 16  # width of a class embedding, and of the corrections that are compared with it
OBJECT_HIDDEN = 64  # width of an object's memory
Side = Annotated[int, Field(ge=1)]


class MaskForecasterConfig(ModelConfig):
    """What all forecasters of masks share that learn pixels."""

    stride: Literal[1, 2, 4, 8] = 8
    """Pixels per cell of the network's state, along each axis."""
    hidden: int = Field(default=32, ge=1)
    """Channels of the state."""
    motion: Literal["object", "none"] = "object"
    """Masks only: move every object of the last seen mask along a learned trajectory, or leave it where it was."""
    loss_steps: int = Field(default=2, ge=1)
    """Future frames, drawn at random, whose pixels enter a training step's loss; feedback needs them all."""
    loss_stride: int = Field(default=2, ge=1, le=16)
    """Every how many rows and columns of them, from a random offset."""
    loss_clips: int = Field(default=2, ge=1)
    """Clips of a batch whose pixels enter the loss where objects move; trajectories are learned from all."""
    whole: bool = Field(default=False, exclude_if=is_false)
    """Masks only: complete what the border or another object cuts to whole objects; learned first."""

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
            raise ValueError("whole: true completes objects that move; with it use motion: object")
        return self


class RecurrentConfig(MaskForecasterConfig):
    """What ConvLSTM and ConvGRU share."""

    input: Literal["masks", "frames"] = "masks"
    """Forecast masks from masks, or frames from frames."""
    layers: int = Field(default=1, ge=1, le=100)
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
        if self.input == "frames" and self.whole:
            raise ValueError("whole: true completes objects of masks; with it use input: masks")
        if self.embedding == "onehot" and self.stride != 1:
            raise ValueError("embedding: onehot is for stride: 1")
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
            codec = EmbeddedClasses(num_classes, self.hidden, self.stride, EMBEDDING)
        dynamics = self.recurrent(codec.channels)
        return self.around(dynamics, codec, residual=self.residual, feedback=self.feedback)

    def recurrent(self, channels: int) -> "Recurrent":
        """Returns the recurrent layers over an input of ``channels``."""
        raise TypeError(f"{type(self).__name__} does not say what its recurrent layers are")


class ConvLSTMConfig(RecurrentConfig):
    """Encoder-forecaster of ConvLSTM layers."""

    arch: Literal["convlstm"] = "convlstm"
    peepholes: Literal["none", "channel", "full"] = "none"
    """Let the gates see the cell: one weight per channel, or per channel and place."""
    size: tuple[Side, Side] | None = None
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
    """Channels of each frame's state; the network is as wide as all of them."""
    blocks: int = Field(default=4, ge=1, le=100)
    """Blocks of attention."""
    context: int = Field(default=11, ge=1)
    """Frames that are looked at, of a longer context the last ones."""
    horizon: int = Field(default=11, ge=1)
    """Frames forecast at most."""

    def build(self, num_classes: int) -> "Forecaster":
        """Returns the network."""
        from maskcast.models.forecasting.label_codec import EmbeddedClasses
        from maskcast.models.forecasting.translator import Translator

        codec = EmbeddedClasses(num_classes, self.hidden, self.stride, EMBEDDING)
        return self.around(Translator(self.hidden, self.context, self.horizon, self.blocks), codec)


class ObjectsConfig(ModelConfig):
    """Objects that move, learned from their tracks."""

    arch: Literal["objects"] = "objects"
    hidden: int = Field(default=OBJECT_HIDDEN, ge=1)
    """Width of an object's memory."""
    whole: bool = Field(default=False, exclude_if=is_false)
    """Complete what the border or another object cuts to whole objects; learned first, from whole sights."""
    several: bool = Field(default=False, exclude_if=is_false)
    """Take each connected part of a class for an object of its own, followed through time; else a class is one."""

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
