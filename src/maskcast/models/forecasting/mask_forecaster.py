"""Past masks to future masks: a network over patches of the picture that reads the context once.

Its forecast is the last seen mask, each
object moved along its path, plus corrections at full resolution; paths stay and corrections are 0 until it has
learned something, so that an untrained network is the copy baseline.

Shapes: B clips, T context frames, h horizon, S steps drawn, K classes, N objects, C channels, H height, W width,
I rows and J columns of the pixels that are drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.distributed import all_sum, own_part, world_size
from maskcast.labels import IGNORE
from maskcast.models.config import ModelConfig
from maskcast.models.forecasting.label_codec import EmbeddedClasses, OneHotClasses
from maskcast.models.forecasting.translator import Translator
from maskcast.models.objects.motion import ObjectMotion
from maskcast.models.objects.scene import Scene, observe
from maskcast.models.objects.tracks import Lesson, find_classes
from maskcast.models.objects.warp import Renderer, as_bytes, by_class, front_object
from maskcast.models.recurrent.cells import without_autocast
from maskcast.models.recurrent.stack import Recurrent

OBJECT_HIDDEN = 64  # width of an object's memory
EMBEDDING = 16  # width of a class embedding, and of the corrections that are compared with it


@dataclass(frozen=True)
class Pixels:
    """Which pixels of a batch enter a training step's cross entropy; all of this is drawn anew at every step."""

    steps: int
    """Future frames; feedback needs them all."""
    stride: int
    """Every how many rows and columns."""
    clips: int
    """Clips, where objects move and so learn their paths from all clips; else all clips count."""


class MaskForecaster(nn.Module):
    """Past masks to future masks."""

    input = "masks"

    def __init__(
        self,
        codec: EmbeddedClasses | OneHotClasses,
        dynamics: Recurrent | Translator,
        *,
        residual: bool,
        motion: bool,
        feedback: bool,
        pixels: Pixels,
    ) -> None:
        super().__init__()
        self.codec, self.dynamics, self.num_classes = codec, dynamics, codec.num_classes
        self.feedback, self.pixels = feedback, pixels
        self.render = Renderer() if residual else None
        self.motion = ObjectMotion(OBJECT_HIDDEN, codec.num_classes) if motion else None
        self.learns_from = "tracks and masks" if motion else "masks"

    def rest(self) -> None:
        """Makes it forecast the last seen mask, as before any training; what is not residual stays as it is."""
        if self.render is not None:
            self.codec.rest()
        if self.motion is not None:
            self.motion.rest()

    def coast(self) -> None:
        """Makes it forecast that every object keeps its velocity, where it moves objects; else as ``rest``."""
        self.rest()
        if self.motion is not None:
            self.motion.coast()

    def forecast(self, context_BTHW: Tensor, horizon: int) -> Tensor:
        """Returns the (B, horizon, H, W) uint8 masks that follow (B, T, H, W) uint8 ones; 255 counts as class 0.

        A residual network forecasts classes of the context only: what enters later cannot be known.
        """
        if torch.compiler.is_compiling():
            return self._forecast_as_graph(context_BTHW, horizon)
        return torch.stack([masks_hHW for masks_hHW, _ in self._forecast(context_BTHW, horizon)])

    def forecast_with_confidence(self, context_BTHW: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Returns the same masks, and the probability of each pixel's class, (B, horizon, H, W) uint8, 255 = 1."""
        masks, confidence = [], []
        for masks_hHW, logits_hKHW in self._forecast(context_BTHW, horizon):
            masks.append(masks_hHW)
            confidence.append(as_bytes((logits_hKHW.amax(1) - logits_hKHW.logsumexp(1)).exp_()))
        return torch.stack(masks), torch.stack(confidence)

    @torch.no_grad()
    def _forecast_as_graph(self, context_BTHW: Tensor, horizon: int) -> Tensor:
        """Returns what ``forecast`` does, by shapes that do not depend on data: all clips and classes at once."""
        context_BTHW = _known(context_BTHW)
        scene = observe(context_BTHW, self.num_classes, self.motion, horizon)
        logits_BhKHW = self._logits(scene, self._run(scene, context_BTHW, horizon), range(horizon))
        if self.render is not None:
            absent_BK = F.pad(find_classes(context_BTHW, self.num_classes)[:, 1:] == 0, (1, 0))
            logits_BhKHW = logits_BhKHW.masked_fill(absent_BK[:, None, :, None, None], float("-inf"))
        return logits_BhKHW.argmax(2).to(torch.uint8)

    @torch.no_grad()
    def _forecast(self, context_BTHW: Tensor, horizon: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields masks (h, H, W) uint8 of each clip, and logits (h, K, H, W) of the classes that they may show."""
        context_BTHW = _known(context_BTHW)
        scene = observe(context_BTHW, self.num_classes, self.motion, horizon)
        states = self._run(scene, context_BTHW, horizon)
        for clip in range(len(context_BTHW)):
            one = slice(clip, clip + 1)
            classes = None if self.render is None else self._classes_of(context_BTHW[one])
            logits_hKHW = self._logits(
                scene.pick(one), [state[one] for state in states], list(range(horizon)), classes=classes
            )[0]
            best_hHW = logits_hKHW.max(1).indices  # argmax over this axis takes 6 times as long on a CPU
            masks_hHW = best_hHW if classes is None else classes[best_hHW]
            yield masks_hHW.to(torch.uint8), logits_hKHW

    def loss(self, context: Tensor | Lesson, target: Tensor | Lesson) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of forecasting ``target`` after ``context``, and its parts.

        It is the cross entropy over some pixels (see ``Pixels``, drawn by torch's random state) and, where objects
        move, the error of the paths of all clips, learned from their tracks. Targets of 255 are left out. Among
        processes that train together it is the loss of the whole batch, of which each has its ``own_part``.
        """
        if self.motion is None:
            assert isinstance(context, Tensor) and isinstance(target, Tensor)
            return self._pixel_loss(context, target, len(context))
        assert isinstance(context, Lesson) and isinstance(target, Lesson)
        counted = len(own_part(min(self.pixels.clips, world_size() * len(context.tracks_BTS8))))
        some = slice(max(1, counted))  # one too many runs through, but does not count
        pixels, parts = self._pixel_loss(context.masks_CTHW[some], target.masks_CTHW[some], counted)
        paths, errors = self.motion.loss(context.tracks_BTS8, target.tracks_BTS8)
        return pixels + paths, parts | errors

    def _pixel_loss(
        self, context_BTHW: Tensor, target_BhHW: Tensor, counted: int
    ) -> tuple[Tensor, dict[str, float]]:
        """Returns the cross entropy over the pixels drawn of the first ``counted`` clips."""
        pixels, horizon = self.pixels, target_BhHW.shape[1]
        context_BTHW = _known(context_BTHW)
        scene = observe(context_BTHW, self.num_classes, self.motion, horizon)
        states = self._run(scene, context_BTHW, horizon)
        steps = list(range(horizon))
        if not self.feedback:
            steps = sorted(torch.randperm(horizon)[: pixels.steps].tolist())
        offsets = torch.randint(pixels.stride, (2,)).tolist()
        rows, columns = (slice(offset, None, pixels.stride) for offset in offsets)
        logits_BSKIJ = self._logits(scene, states, steps, rows, columns)
        target_BSIJ = target_BhHW[:, steps, rows, columns].long()
        target_BSIJ[counted:] = IGNORE
        summed = F.cross_entropy(
            logits_BSKIJ.flatten(0, 1), target_BSIJ.flatten(0, 1), ignore_index=IGNORE, reduction="sum"
        )
        mean = all_sum(summed) / all_sum((target_BSIJ != IGNORE).sum()).clamp(min=1)
        return mean, {"cross_entropy": float(mean.detach())}

    def _classes_of(self, context_BTHW: Tensor) -> Tensor:
        """Returns the class ids in the context, ascending, class 0 always among them."""
        (seen,) = find_classes(context_BTHW, self.num_classes)
        seen[0] = 1
        return seen.nonzero().flatten()

    def _run(self, scene: Scene, context_BTHW: Tensor, horizon: int) -> list[Tensor]:
        """Returns the state (B, C, H/stride, W/stride) of every step of the forecast."""

        def feed(state_BCHW: Tensor) -> Tensor:
            probability = self._logits(scene, [state_BCHW], [0])[:, 0].softmax(1)
            hard = F.one_hot(probability.argmax(1), self.num_classes).movedim(-1, 1)
            return self.codec.see_soft(hard + probability - probability.detach())

        seen_BTCHW = self.codec.see(context_BTHW.flatten(0, 1)).unflatten(0, context_BTHW.shape[:2])
        return self.dynamics(seen_BTCHW, horizon, feed if self.feedback else None)

    def _logits(
        self,
        scene: Scene,
        states: list[Tensor],
        steps: Sequence[int],
        rows: slice = slice(None),
        columns: slice = slice(None),
        classes: Tensor | None = None,
    ) -> Tensor:
        """Returns the logits (B, S, K, I, J) of the picked steps, rows, columns and classes (None: all)."""
        last_BHW = scene.last_mask
        classes = torch.arange(self.num_classes, device=last_BHW.device) if classes is None else classes
        # the state may cover more than the picture, by padding
        rows, columns = (
            slice(pick.start, size, pick.step)
            for pick, size in zip((rows, columns), last_BHW.shape[1:], strict=True)
        )
        state_BSCHW = torch.stack([states[step] for step in steps], dim=1)
        half = slice(None, None, self.codec.fine)
        guide_BSIJ = last_BHW[:, None, half, half].expand(-1, len(steps), -1, -1)
        base: Tensor | float = 0.0
        if self.render is not None:
            with without_autocast(state_BSCHW.device):
                then = scene.masks, scene.sight, scene.path.pick(steps=steps)
                drawn = self.render(*then, rows, columns)
                base = by_class(drawn, scene.object_BN, classes, self.render.absent)
                if self.motion is not None:
                    with torch.no_grad():
                        drawn = self.render(*then, half, half)
                        guide_BSIJ = front_object(drawn, scene.object_BN)
        change = self.codec.correct(state_BSCHW.flatten(0, 1), guide_BSIJ.flatten(0, 1), rows, columns, classes)
        return base + change.unflatten(0, state_BSCHW.shape[:2])


def _known(ids: Tensor) -> Tensor:
    """Returns class ids with background where they are unknown."""
    return ids.masked_fill(ids == IGNORE, 0)


class MaskForecasterConfig(ModelConfig):
    """What all forecasters of masks share that learn pixels."""

    stride: Literal[1, 2, 4, 8] = 8
    """Pixels per cell of the network's state, along each axis."""
    hidden: int = Field(default=32, ge=1)
    """Channels of the state."""
    motion: Literal["object", "none"] = "object"
    """Masks only: move every object of the last seen mask along a learned path, or leave it where it was."""
    loss_steps: int = Field(default=2, ge=1)
    """Future frames, drawn at random, whose pixels enter a training step's loss; feedback needs them all."""
    loss_stride: int = Field(default=2, ge=1)
    """Every how many rows and columns of them, from a random offset."""
    loss_clips: int = Field(default=2, ge=1)
    """Clips of a batch whose pixels enter the loss where objects move; paths are learned from all."""

    def around(
        self,
        dynamics: Recurrent | Translator,
        codec: EmbeddedClasses | OneHotClasses,
        *,
        residual: bool = True,
        feedback: bool = False,
    ) -> MaskForecaster:
        """Returns the forecaster around a network."""
        pixels = Pixels(self.loss_steps, self.loss_stride, self.loss_clips)
        motion = self.motion == "object"
        return MaskForecaster(codec, dynamics, residual=residual, motion=motion, feedback=feedback, pixels=pixels)
