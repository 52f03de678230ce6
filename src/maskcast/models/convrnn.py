"""Encoder-forecasters on masks: a convolutional recurrent network that carries its state through the forecast.

The network reads the context once and then goes on for any horizon. Its forecast is the last seen mask, each object
moved along its path, plus corrections at full resolution; paths stay and corrections are 0 until it has learned
something, so that an untrained network is the copy baseline. Shapes: B clips, T context frames, h horizon, S steps
rendered, K classes, N objects, C channels, H height, W width.
"""

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.data.clips import IGNORE
from maskcast.models.base import ModelConfig
from maskcast.models.cells import ConvGRUCell, ConvLSTMCell, Peepholes
from maskcast.models.codec import EmbeddedClasses, OneHotClasses
from maskcast.models.motion import ObjectMotion, Path, Surroundings, path_loss, still
from maskcast.models.recurrent import Recurrent
from maskcast.models.render import Renderer, by_class, front_object
from maskcast.models.tracks import Tracks, find_objects, track

EMBEDDING = 16  # width of a class embedding, and of the corrections that are compared with it
OBJECT_HIDDEN = 64  # width of an object's memory


class MaskForecasterConfig(ModelConfig):
    """What the forecasters of masks share."""

    stride: Literal[1, 2, 4, 8] = 8
    """Pixels per cell of the recurrent state, along each axis."""
    hidden: int = Field(default=32, ge=1)
    """Channels of the recurrent state."""
    layers: int = Field(default=1, ge=1)
    """Recurrent layers."""
    kernel: Literal[1, 3, 5, 7] = 3
    """Size of the recurrent convolutions."""
    motion: Literal["object", "none"] = "object"
    """Move every object of the last seen mask along a learned path, or leave it where it was."""
    embedding: Literal["learned", "onehot"] = "learned"
    """What the network sees of a class id, and speaks in: a learned vector, or one channel per class."""
    residual: bool = True
    """Forecast changes of the last seen mask, or every pixel anew."""
    feedback: bool = False
    """Show the network its own forecast (straight-through, so that gradients pass), or let it go on blind."""
    loss_steps: int = Field(default=2, ge=1)
    """Future frames, drawn at random, whose pixels enter a training step's loss; feedback needs them all."""
    loss_stride: int = Field(default=2, ge=1)
    """Every how many rows and columns of them, from a random offset."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.motion == "object" and (self.feedback or not self.residual):
            raise ValueError(
                "motion: object moves the last seen mask; with it use residual: true, feedback: false"
            )
        if self.embedding == "onehot" and self.stride != 1:
            raise ValueError("embedding: onehot is for stride: 1")
        return self

    def build(self, num_classes: int) -> "MaskForecaster":
        """Returns the network."""
        return MaskForecaster(self, num_classes)

    def recurrent(self, channels: int) -> Recurrent:
        """Returns the recurrent layers over an input of ``channels``."""
        raise TypeError(f"{type(self).__name__} does not say what its recurrent layers are")


class ConvLSTMConfig(MaskForecasterConfig):
    """ConvLSTM on masks."""

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


class ConvGRUConfig(MaskForecasterConfig):
    """ConvGRU on masks."""

    arch: Literal["convgru"] = "convgru"

    def recurrent(self, channels: int) -> Recurrent:
        """Returns the recurrent layers over an input of ``channels``."""
        widths = [channels] + [self.hidden] * (self.layers - 1)
        return Recurrent([ConvGRUCell(width, self.hidden, self.kernel) for width in widths])


class MaskForecaster(nn.Module):
    """Past masks to future masks."""

    input = "masks"

    def __init__(self, config: MaskForecasterConfig, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.codec: EmbeddedClasses | OneHotClasses
        if config.embedding == "onehot":
            self.codec = OneHotClasses(num_classes, config.hidden, start_at_zero=config.residual)
        else:
            self.codec = EmbeddedClasses(num_classes, config.hidden, config.stride, EMBEDDING)
        self.rnn = config.recurrent(self.codec.channels)
        self.render = Renderer() if config.residual else None
        self.motion = ObjectMotion(OBJECT_HIDDEN, config.hidden) if config.motion == "object" else None

    @torch.no_grad()
    def forecast(self, context_BTHW: Tensor, horizon: int) -> Tensor:
        """Returns the (B, horizon, H, W) uint8 masks that follow (B, T, H, W) uint8 ones; 255 counts as class 0."""
        roll = self._roll(context_BTHW, horizon)
        steps = [self._logits(roll, [step])[:, 0].argmax(1) for step in range(horizon)]
        return torch.stack(steps, dim=1).to(torch.uint8)

    def loss(self, context_BTHW: Tensor, target_BhHW: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of forecasting ``target_BhHW`` after ``context_BTHW``, and its parts.

        It is the cross entropy over some future frames (drawn by torch's random state) and, where objects move,
        the error of their paths over all of them. Targets of 255 are left out.
        """
        horizon, stride = target_BhHW.shape[1], self.config.loss_stride
        roll = self._roll(context_BTHW, horizon)
        count = horizon if self.config.feedback else min(self.config.loss_steps, horizon)
        steps = sorted(torch.randperm(horizon)[:count].tolist())
        rows, columns = (slice(int(start), None, stride) for start in torch.randint(stride, (2,)))
        logits_BSKIJ = self._logits(roll, steps, rows, columns)
        target_BSIJ = target_BhHW[:, steps, rows, columns].long()
        total = cross_entropy = F.cross_entropy(
            logits_BSKIJ.flatten(0, 1), target_BSIJ.flatten(0, 1), ignore_index=IGNORE
        )
        parts = {"cross_entropy": float(cross_entropy.detach())}
        if self.motion is not None:
            future = track(target_BhHW, roll.object_BN, self.num_classes)
            place, size = path_loss(roll.path, roll.tracks, future)
            total = total + place + 0.5 * size
            parts |= {"place": float(place.detach()), "size": float(size.detach())}
        return total, parts

    def _roll(self, context_BTHW: Tensor, horizon: int) -> "_Roll":
        """Returns states and paths over the horizon."""
        context_BTHW = context_BTHW.masked_fill(context_BTHW == IGNORE, 0)
        last_BHW = context_BTHW[:, -1]
        seen_BTCHW = self.codec.see(context_BTHW.flatten(0, 1)).unflatten(0, context_BTHW.shape[:2])
        object_BN = find_objects(last_BHW, self.num_classes)
        tracks = track(context_BTHW, object_BN, self.num_classes)
        roll = _Roll(last_BHW, object_BN, tracks, still(tracks, horizon), [])

        def feed(state_BCHW: Tensor) -> Tensor:
            probability = self._logits(replace(roll, states=[state_BCHW]), [0])[:, 0].softmax(1)
            hard = F.one_hot(probability.argmax(1), self.num_classes).movedim(-1, 1)
            return self.codec.see_soft(hard + probability - probability.detach())

        states = self.rnn(seen_BTCHW, horizon, feed if self.config.feedback else None)
        if self.motion is None:
            return replace(roll, states=states)
        with torch.autocast(context_BTHW.device.type, enabled=False):
            around = Surroundings(states, *last_BHW.shape[-2:], self.config.stride)
            return replace(roll, states=states, path=self.motion(tracks, horizon, around))

    def _logits(
        self, roll: "_Roll", steps: list[int], rows: slice = slice(None), columns: slice = slice(None)
    ) -> Tensor:
        """Returns the logits (B, S, K, I, J) of the picked steps, rows and columns."""
        states = torch.stack([roll.states[step] for step in steps], dim=1).flatten(0, 1)
        guide_BSIJ = roll.last_BHW[:, None].expand(-1, len(steps), -1, -1)
        fine = slice(None, None, self.codec.fine)
        if self.render is None:
            return self._correct(states, guide_BSIJ[..., fine, fine], rows, columns)
        with torch.autocast(states.device.type, enabled=False):
            path = roll.path.at(steps)
            if self.motion is None:
                guide_BSIJ = guide_BSIJ[..., fine, fine]
            else:
                with torch.no_grad():
                    covered = self.render(roll.last_BHW, roll.object_BN, roll.tracks, path, fine, fine)
                    guide_BSIJ = front_object(covered, roll.object_BN)
            moved = self.render(roll.last_BHW, roll.object_BN, roll.tracks, path, rows, columns)
            base = by_class(moved, roll.object_BN, self.num_classes, -self.render.sharpness)
        return base + self._correct(states, guide_BSIJ, rows, columns)

    def _correct(self, states: Tensor, guide_BSIJ: Tensor, rows: slice, columns: slice) -> Tensor:
        logits = self.codec.correct(states, guide_BSIJ.flatten(0, 1), rows, columns)
        return logits.unflatten(0, guide_BSIJ.shape[:2])


@dataclass(frozen=True)
class _Roll:
    """A forecast before it is drawn."""

    last_BHW: Tensor
    object_BN: Tensor
    tracks: Tracks
    path: Path
    states: list[Tensor]  # (B, C, H/stride, W/stride) per step
