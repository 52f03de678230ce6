"""A forecaster that converts masks to objects, forecasts their trajectories, and paints them as masks.

The last observed shape of an object is moved, scaled and painted, nearer objects in front. Only trajectories are
learned, from tracks, which are a thousandth of the size of the masks, so training is cheap. No camera is given:
the ground plane is estimated from the sizes of objects across the image.

Shapes: B clips, T context frames, h horizon, S packed and N scene objects, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.models.forecasting.base import Forecaster, known
from maskcast.models.forecasting.batches import Batch, BatchSource, ObjectTracks, prepare_motion
from maskcast.models.forecasting.numbered_objects import NumberedObjects, number_batch
from maskcast.models.limits import strips
from maskcast.models.objects.motion import ObjectMotion
from maskcast.models.objects.parts import max_objects
from maskcast.models.objects.picks import ALL
from maskcast.models.objects.scene import Scene, observe
from maskcast.models.objects.warp import as_bytes, paint, probability

TEMPORARY_IMAGES = 8  # temporary images per object while they are merged


class ObjectForecaster(Forecaster):
    """Forecasts masks by the trajectories of the objects in them.

    Args:
        hidden: width of an object's memory.
        num_classes: K, background included.
        whole: complete cut observations to whole objects.
        several: each connected part of a class is an object of its own; else each class is one object.
    """

    same_each_step = True

    def __init__(self, hidden: int, num_classes: int, *, whole: bool, several: bool) -> None:
        super().__init__()
        self.num_classes, self.several = num_classes, several
        self.motion = ObjectMotion(hidden, num_classes, whole=whole)

    def batch_source(self, store: ClipStore, clips: Sequence[Clip]) -> BatchSource:
        """Returns a source of tracks."""
        return ObjectTracks(self._objects_of(store), clips, self.motion.completion)

    def target_source(self, store: ClipStore, clips: Sequence[Clip], context: ClipStore) -> BatchSource:
        """Returns a source of tracks whose objects have the numbers of those in the context."""
        return ObjectTracks(self._objects_of(store, context), clips, self.motion.completion)

    def prepare(self, store: ClipStore, clips: Sequence[Clip]) -> None:
        """Fits the ground plane, and trains the completion of cut observations."""
        prepare_motion(self.motion, self._objects_of(store), clips)

    def reset_to_persistence(self) -> None:
        """Resets it to forecasting the last mask."""
        self.motion.reset_to_persistence()

    def reset_to_constant_velocity(self) -> None:
        """Resets it to objects of constant velocity."""
        self.motion.reset_to_constant_velocity()

    def forecast(self, context_BTHW: Tensor, horizon: int) -> Tensor:
        """Returns the (B, horizon, H, W) uint8 masks that follow (B, T, H, W) uint8 ones; 255 counts as class 0.

        Only objects of the last frames are forecast, because it cannot know which others enter later.
        """
        scene = self._observe(context_BTHW, horizon)
        if torch.compiler.is_compiling():  # an exported graph has no loop over clips
            return self._paint(scene)
        return self._painted(scene, horizon, with_confidence=False)[0]

    def future(self, context_BTHW: Tensor, horizon: int, seed: int) -> Tensor:
        """Returns masks like ``forecast``, with randomly drawn trajectories (``objects.futures``)."""
        return self._painted(self._observe(context_BTHW, horizon, seed), horizon, with_confidence=False)[0]

    def forecast_with_confidence(self, context_BTHW: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Returns the same masks, and the probability of each pixel's class, (B, horizon, H, W) uint8, 255 = 1."""
        return self._painted(self._observe(context_BTHW, horizon), horizon, with_confidence=True)

    def loss(self, context: Batch, target: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss of the trajectories after packed tracks (B, T, S, 8), and its terms."""
        assert isinstance(context, Tensor) and isinstance(target, Tensor)
        return self.motion.loss(context, target)

    def _objects_of(self, store: ClipStore, context: ClipStore | None = None) -> ClipStore:
        """Returns the store, or a view of it whose masks hold object numbers, as in the ``context`` if given."""
        return NumberedObjects(store, context) if self.several else store

    def _observe(self, context_BTHW: Tensor, horizon: int, seed: int | None = None) -> Scene:
        ids_BTHW, count = known(context_BTHW), self.num_classes
        if self.several:
            ids_BTHW, count = number_batch(ids_BTHW, count), count * max_objects(count)
        return observe(ids_BTHW, count, self.motion, horizon, seed)

    def _painted(self, scene: Scene, horizon: int, *, with_confidence: bool) -> tuple[Tensor, Tensor]:
        """Returns the masks (B, h, H, W) of a scene and, if asked for, each pixel's class probability, uint8.

        One clip, and a part of its steps and rows, is painted at once, so that memory is bounded.
        """
        clips, height, width = scene.last_mask.shape
        masks = torch.empty(clips, horizon, height, width, dtype=torch.uint8).to(scene.last_mask.device)
        confidence = torch.empty_like(masks)
        for clip in range(clips):
            for steps, rows in strips(horizon, height, width, TEMPORARY_IMAGES * scene.object_BN.shape[1]):
                part = scene.pick(slice(clip, clip + 1), steps)
                ids = self._paint(part, rows)
                masks[clip, steps, rows] = ids[0]
                if with_confidence:
                    objects = part.masks, part.object_BN % self.num_classes, part.seen, part.trajectory
                    confidence[clip, steps, rows] = as_bytes(probability(*objects, ids, rows)[0])
        return masks, confidence

    def _paint(self, scene: Scene, rows: slice = ALL) -> Tensor:
        class_BN = scene.object_BN % self.num_classes
        return paint(scene.masks, class_BN, scene.seen, scene.trajectory, rows).to(torch.uint8)
