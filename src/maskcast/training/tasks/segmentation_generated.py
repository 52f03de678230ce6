"""Training on masks that another masker generated, as if they were labels (a second training round).

Legend: T frames, H height, W width.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.frame_index import FrameIndex, spread
from maskcast.data.clip_store.labelled_frames import LABELLED_FRAMES, labelled_frames
from maskcast.data.clip_store.reader import ALL, Clip, ClipStore
from maskcast.data.clip_store.table import masks_layer
from maskcast.data.shared_frames import TRAINING_SPLITS
from maskcast.errors import MaskcastError
from maskcast.inference.predictions import least_probability
from maskcast.labels import IGNORE, LabelMap
from maskcast.progress import say
from maskcast.reading import pluralize
from maskcast.training.tasks.segmentation_phases import GeneratedParams

MAX_CHECKED_CLIPS = 100  # clips that are checked for foreground to learn from
THRESHOLD_TOLERANCE = 0.02  # a greater difference in what is learnt is told; that of the defaults is 0.014


class GeneratedMasks:
    """Clips without labels or with partial labels, and confident generated masks for them from another store.

    Frames with labels keep their labels.

    Args:
        store: the clips.
        root: masks that ``generate_masks`` wrote for them.
        maps: label maps to learn.
        params: thresholds of confidence.
        length: frames per window.

    Raises:
        MaskcastError: if there are no such clips, the masks have other classes or no confidence, or none has
            confident foreground.
    """

    def __init__(
        self, store: ClipStore, root: Path, maps: Sequence[LabelMap], params: GeneratedParams, length: int
    ) -> None:
        self.params, generated = params, ClipStore(root)
        self._masks = {label_map: generated.of(label_map.name) for label_map in maps}
        self._labels = {label_map: store.of(label_map.name) for label_map in maps}
        for label_map, masks in self._masks.items():
            if masks.label_map != label_map:
                raise MaskcastError(
                    f"{root}: its masks {label_map.name!r} are of other classes than those of {store.root}; "
                    "generate masks of these clips"
                )
        layers = {masks_layer(label_map.name) for label_map in maps}
        kinds = {"labelled", "unlabelled"} if store.meta.get(LABELLED_FRAMES) else {"unlabelled"}
        candidates = store.where(
            lambda group: group.has_frames and group.split in TRAINING_SPLITS and group.kind in kinds
        )
        self.clips = [
            clip
            for clip in candidates
            if (clip.kind == "unlabelled" or LABELLED_FRAMES in clip.meta)
            and clip.id in generated
            and layers <= generated.get(clip.id).layers.keys()
        ]
        self._clip_confidence = _confidences(root, generated, self.clips) if params.drop else None
        if self._clip_confidence is not None and params.drop_of == "set":
            kept = np.sort(
                _most_confident(self._clip_confidence, len(self.clips) - int(params.drop * len(self.clips)))
            )
            self.clips, self._clip_confidence = [self.clips[k] for k in kept], None
        self.index = FrameIndex(self.clips, length)
        if not len(self.index):
            raise MaskcastError(
                f"{root}: has no masks of {pluralize(length, 'frame')} of an unlabelled clip of {store.root} "
                f"(its clips: {store.holds()}); generate masks of these clips, or train without masks"
            )
        self._least_confidence = round(255 * params.threshold)
        if any(label_map.kind == "classes" for label_map in maps):
            self._report_threshold(generated)
        if not any(_has_objects(self.masks(clip)) for clip in spread(self.clips, MAX_CHECKED_CLIPS)):
            raise MaskcastError(
                f"{root}: no object has a confidence above train_masker.generated.threshold "
                f"{params.threshold:g}; lower it, or train the first masker for longer"
            )

    @property
    def drops_per_batch(self) -> bool:
        """Whether more windows than needed are drawn for a batch, of which the most confident are kept."""
        return self._clip_confidence is not None

    def draw_most_confident(self, random: np.random.Generator, count: int) -> list[tuple[int, int]]:
        """Draws windows, drops the share of them that is least confident, and returns the others.

        Args:
            random: generator; its state is advanced.
            count: number of windows to return.

        Returns:
            Index of the clip and first frame of each window, in the order in which they were drawn.
        """
        assert self._clip_confidence is not None
        drawn = random.integers(len(self.index), size=math.ceil(count / (1 - self.params.drop)))
        places = [self.index.at(int(frame)) for frame in drawn]
        kept = _most_confident(self._clip_confidence[[k for k, _ in places]], count)
        return [places[k] for k in np.sort(kept)]

    def masks(self, clip: Clip, frames: slice = ALL) -> dict[LabelMap, np.ndarray]:
        """Returns the masks (T, H, W) of each map; in maps of classes, uncertain pixels are ``IGNORE``."""
        masks_of = {}
        for label_map, store in self._masks.items():
            generated_clip = store.get(clip.id)
            masks_THW = store.masks(generated_clip, frames)
            if label_map.kind == "classes":
                confident_THW = store.confidence(generated_clip, frames) >= self._least_confidence
                masks_THW = np.where(confident_THW, masks_THW, np.uint8(IGNORE))
            labels = self._labels[label_map]
            if labelled := labelled_frames(labels, clip):
                labelled_T = np.isin(np.arange(clip.num_frames)[frames], labelled)
                masks_THW = np.where(labelled_T[:, None, None], labels.masks(clip, frames), masks_THW)
            masks_of[label_map] = masks_THW
        return masks_of

    def _report_threshold(self, generated: ClipStore) -> None:
        """Reports the threshold in effect, if the levels of confidence do not have the given one."""
        levels = generated.meta.get("confidence_levels")  # masks of other programs do not record them
        if levels is None:
            return
        least = least_probability(self._least_confidence, levels)
        if abs(least - self.params.threshold) > THRESHOLD_TOLERANCE:
            say(
                f"{generated.root}: has {levels} levels of confidence, so train_masker.generated.threshold "
                f"{self.params.threshold:g} learns pixels from {least:.3f} on; for a finer threshold raise "
                "generate_masks.confidence_levels, up to 256"
            )


def _confidences(root: Path, generated: ClipStore, clips: Sequence[Clip]) -> np.ndarray:
    """Returns the mean confidence of the masks of each clip, float64.

    Raises:
        MaskcastError: if it is missing for a clip.
    """
    confidences = [generated.get(clip.id).meta.get("mean_confidence") for clip in clips]
    if None in confidences:
        raise MaskcastError(
            f"{root}: clip {clips[confidences.index(None)].id!r} has no mean_confidence, which "
            "train_masker.generated.drop needs; run generate_masks, or set drop to 0"
        )
    return np.array(confidences, np.float64)


def _most_confident(confidences: np.ndarray, count: int) -> np.ndarray:
    """Returns the indices of the ``count`` greatest values; among equal ones the first."""
    return np.argsort(-confidences, kind="stable")[:count]


def _has_objects(masks: dict[LabelMap, np.ndarray]) -> bool:
    return any(
        bool(((masks_THW != 0) & ((masks_THW != IGNORE) | (label_map.kind == "alpha"))).any())
        for label_map, masks_THW in masks.items()
    )
