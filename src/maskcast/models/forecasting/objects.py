"""Masks to objects, objects through time, objects to masks: no pixel is learned, so that training is cheap.

A class id is an object (a semantic class of many things is one object that changes its shape). What was seen of an
object last is moved, scaled and painted, the nearer one in front; its path is learned from tracks alone, which are
a thousandth of the masks. No camera is given: how the ground lies in the picture is read from how objects shrink.

Shapes: B clips, T context frames, h horizon, S and N objects, H height, W width.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from maskcast.models.config import ModelConfig
from maskcast.models.objects.motion import ObjectMotion
from maskcast.models.objects.scene import Scene, observe
from maskcast.models.objects.warp import as_bytes, paint, probability


class ObjectForecaster(nn.Module):
    """Forecasts masks by the paths of the objects in them.

    Args:
        hidden: width of an object's memory.
        num_classes: K, background included.
    """

    input, learns_from = "masks", "tracks"

    def __init__(self, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.motion = ObjectMotion(hidden, num_classes)

    def rest(self) -> None:
        """Makes it forecast the last seen mask, as before any training."""
        self.motion.rest()

    def coast(self) -> None:
        """Makes it forecast that every object keeps its velocity."""
        self.motion.coast()

    @torch.no_grad()
    def forecast(self, context_BTHW: Tensor, horizon: int) -> Tensor:
        """Returns the (B, horizon, H, W) uint8 masks that follow (B, T, H, W) uint8 ones; 255 counts as class 0.

        Objects of the last frames are forecast only: what enters later cannot be known.
        """
        scene = observe(context_BTHW, self.num_classes, self.motion, horizon)
        if torch.compiler.is_compiling():  # a graph has no loop over clips
            return _paint(scene)
        return torch.cat([_paint(scene.pick(slice(clip, clip + 1))) for clip in range(len(context_BTHW))])

    @torch.no_grad()
    def forecast_with_confidence(self, context_BTHW: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Returns the same masks, and the probability of each pixel's class, (B, horizon, H, W) uint8, 255 = 1."""
        scene = observe(context_BTHW, self.num_classes, self.motion, horizon)
        masks, confidence = [], []
        for clip in range(len(context_BTHW)):
            one = scene.pick(slice(clip, clip + 1))
            masks.append(_paint(one))
            likely = probability(one.masks, one.object_BN, one.sight, one.path, masks[-1])
            confidence.append(as_bytes(likely))
        return torch.cat(masks), torch.cat(confidence)

    def loss(self, context_BTS8: Tensor, target_BhS8: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of the paths after packed tracks (``models.tracks.PACKED``), and its parts."""
        return self.motion.loss(context_BTS8, target_BhS8)


def _paint(scene: Scene) -> Tensor:
    """Paints clips, best one by one: all objects of a clip at all steps are large enough for the memory."""
    return paint(scene.masks, scene.object_BN, scene.sight, scene.path).to(torch.uint8)


class ObjectsConfig(ModelConfig):
    """Objects that move, learned from their tracks."""

    arch: Literal["objects"] = "objects"
    hidden: int = Field(default=64, ge=1)
    """Width of an object's memory."""

    def build(self, num_classes: int) -> nn.Module:
        """Returns the network."""
        return ObjectForecaster(self.hidden, num_classes)
