"""Masks to objects, objects through time, objects to masks: no pixel is learned, so that training is cheap.

What was seen of an object last is moved, scaled and painted, the nearer one in front. Trajectories are learned
from tracks alone, which are a thousandth of the size of the masks. No camera is given: how the ground lies in the
picture is read from how objects shrink.

Shapes: B clips, T context frames, h horizon, S and N objects, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.models.bounds import strips
from maskcast.models.forecasting.base import Forecaster, known
from maskcast.models.forecasting.batches import Batch, BatchSource, ObjectTracks, prepare_motion
from maskcast.models.forecasting.several import NumberedObjects, numbered
from maskcast.models.objects.motion import ObjectMotion
from maskcast.models.objects.parts import most_objects
from maskcast.models.objects.picks import ALL
from maskcast.models.objects.scene import Scene, observe
from maskcast.models.objects.warp import as_bytes, paint, probability

COPIES = 8  # of a picture of each object, while they become one


class ObjectForecaster(Forecaster):
    """Forecasts masks by the trajectories of the objects in them.

    Args:
        hidden: width of an object's memory.
        num_classes: K, background included.
        whole: complete cut sights to whole objects.
        several: each connected part of a class is an object of its own; else a class is one.
    """

    same_each_step = True

    def __init__(self, hidden: int, num_classes: int, *, whole: bool, several: bool) -> None:
        super().__init__()
        self.num_classes, self.several = num_classes, several
        self.motion = ObjectMotion(hidden, num_classes, whole=whole)

    def batch_source(self, store: ClipStore, clips: Sequence[Clip]) -> BatchSource:
        """Returns tracks."""
        return ObjectTracks(self._objects_of(store), clips, self.motion.completion)

    def prepare(self, store: ClipStore, clips: Sequence[Clip]) -> None:
        """Finds the ground plane, and learns to complete cut sights."""
        prepare_motion(self.motion, self._objects_of(store), clips)

    def reset_to_persistence(self) -> None:
        """Makes it forecast the last seen mask."""
        self.motion.reset_to_persistence()

    def reset_to_constant_velocity(self) -> None:
        """Makes it forecast that every object keeps its velocity."""
        self.motion.reset_to_constant_velocity()

    @torch.no_grad()
    def forecast(self, context_BTHW: Tensor, horizon: int) -> Tensor:
        """Returns the (B, horizon, H, W) uint8 masks that follow (B, T, H, W) uint8 ones; 255 counts as class 0.

        Objects of the last frames are forecast only: what enters later cannot be known.
        """
        scene = self._observe(context_BTHW, horizon)
        if torch.compiler.is_compiling():  # a graph has no loop over clips
            return self._paint(scene)
        return self._painted(scene, horizon, sure=False)[0]

    @torch.no_grad()
    def future(self, context_BTHW: Tensor, horizon: int, seed: int) -> Tensor:
        """Returns masks as ``forecast`` does, of objects that go where they may go (``objects.futures``)."""
        return self._painted(self._observe(context_BTHW, horizon, seed), horizon, sure=False)[0]

    @torch.no_grad()
    def forecast_with_confidence(self, context_BTHW: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Returns the same masks, and the probability of each pixel's class, (B, horizon, H, W) uint8, 255 = 1."""
        return self._painted(self._observe(context_BTHW, horizon), horizon, sure=True)

    def loss(self, context: Batch, target: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss of the trajectories after packed tracks (B, T, S, 8), and its parts."""
        assert isinstance(context, Tensor) and isinstance(target, Tensor)
        return self.motion.loss(context, target)

    def _objects_of(self, store: ClipStore) -> ClipStore:
        """Returns a store whose masks hold ids of objects."""
        return NumberedObjects(store) if self.several else store

    def _observe(self, context_BTHW: Tensor, horizon: int, seed: int | None = None) -> Scene:
        ids_BTHW, count = known(context_BTHW), self.num_classes
        if self.several:
            ids_BTHW, count = numbered(ids_BTHW, count), count * most_objects(count)
        return observe(ids_BTHW, count, self.motion, horizon, seed)

    def _painted(self, scene: Scene, horizon: int, *, sure: bool) -> tuple[Tensor, Tensor]:
        """Returns the masks (B, h, H, W) of a scene and, if asked, the probability of each pixel's class, uint8.

        One clip, some steps, and some rows are painted at once, so that memory is bounded.
        """
        clips, height, width = scene.last_mask.shape
        masks = torch.empty(clips, horizon, height, width, dtype=torch.uint8).to(scene.last_mask.device)
        confidence = torch.empty_like(masks)
        for clip in range(clips):
            for some, rows in strips(horizon, height, width, COPIES * scene.object_BN.shape[1]):
                steps = slice(some[0], some[-1] + 1)
                one = scene.pick(slice(clip, clip + 1), steps)
                ids = self._paint(one, rows)
                masks[clip, steps, rows] = ids[0]
                if sure:
                    known = one.masks, one.object_BN % self.num_classes, one.seen, one.trajectory
                    confidence[clip, steps, rows] = as_bytes(probability(*known, ids, rows)[0])
        return masks, confidence

    def _paint(self, scene: Scene, rows: slice = ALL) -> Tensor:
        class_BN = scene.object_BN % self.num_classes
        return paint(scene.masks, class_BN, scene.seen, scene.trajectory, rows).to(torch.uint8)
