"""Training windows of a segmenter: frames of labelled training clips with their masks.

Legend: B samples, T frames per sample, H height, W width, C = 3 channels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from maskcast.data.augment.colours import draw_colour_transform, recolour
from maskcast.data.augment.frames import augment
from maskcast.data.augment.mirror import check_swaps
from maskcast.data.clip_store.labelled_frames import TrainingIndex
from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.data.clip_store.table import FRAMES, masks_layer
from maskcast.data.compositing import BACKGROUNDS, Backgrounds
from maskcast.distributed import rank_indices
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap
from maskcast.reading import pluralize
from maskcast.seed import rng
from maskcast.training.tasks.segmentation_generated import GeneratedMasks
from maskcast.training.tasks.segmentation_params import SegmentationTraining
from maskcast.training.tasks.segmentation_propagated import PropagatedLabels
from maskcast.training.tasks.segmentation_recoloured import is_recoloured
from maskcast.training.tasks.segmentation_unlabeled import Views

Places = Sequence[tuple[int, int]]  # index of the clip and first frame of each window


class Windows(NamedTuple):
    """A batch of windows: frames and their masks, uint8."""

    frames_BTHWC: Tensor
    masks: tuple[Tensor, ...]
    """(B, T, H, W) of each map."""
    views: Views | None = None
    """Views of the unlabelled windows of the same step."""


class LabelledWindows:
    """Windows with labels, drawn uniformly from all labelled training clips.

    Args:
        store: the clips.
        maps: label maps to learn.
        params: length and augmentation of windows.
        generated: generated masks of unlabelled clips, from which windows are drawn as well.

    Raises:
        MaskcastError: if no training clip has frames, masks of all maps and the length of a window, the generated
            masks cannot be used, or labels of a map cannot be propagated.
    """

    def __init__(
        self,
        store: ClipStore,
        maps: Sequence[LabelMap],
        params: SegmentationTraining,
        generated: Path | None = None,
    ) -> None:
        self.store, self.params = store, params
        self.clips = labelled_clips(store, maps, "train")
        self.length, skip = (1, 0) if params.window is None else (params.window.total, params.window.burn_in)
        self._masks = {label_map: store.of(label_map.name) for label_map in maps}
        self._swaps = store.mirror_swaps
        if params.augment.hflip:
            check_swaps(maps, self._swaps, str(store.root))
        if params.mirror and self._swaps:
            one, other = self._swaps[0]
            raise MaskcastError(
                f"{store.root}: {one!r} and {other!r} swap in flipped frames; set train_masker.mirror to false"
            )
        self._backgrounds = Backgrounds(store) if BACKGROUNDS in store.meta else None
        self._index = TrainingIndex(store, self.clips, maps, self.length, skip=skip)
        if not len(self._index):
            raise MaskcastError(
                f"{store.root}: no training clip has the {pluralize(self.length, 'frame')} of "
                f"window.burn_in + window.frames, and labels in the last {self.length - skip} of them; lower "
                "these or prepare longer clips"
            )
        if (generated is None) != (params.generated is None):
            raise MaskcastError(
                "train_masker: --masks and the param generated must be set together: set both to train on masks "
                "that another masker generated, or neither"
            )
        self._generated: GeneratedMasks | None = None
        if generated is not None and params.generated is not None:
            self._generated = GeneratedMasks(store, generated, maps, params.generated, self.length)
        self._propagated: PropagatedLabels | None = None
        if params.propagated is not None:
            self._propagated = PropagatedLabels(store, self.clips, maps, params.propagated, self.length, skip)

    def batch(self, step: int) -> Windows:
        """Returns this process's windows, augmented: a pure function of (seed, step)."""
        confident = self._confident_places(step)
        samples = [self._sample(step, index, confident) for index in self._order()]
        frames, *masks = (torch.from_numpy(np.stack(layer)) for layer in zip(*samples, strict=True))
        return Windows(frames, tuple(masks))

    @property
    def recoloured(self) -> int:
        """How many samples of this process's batch are recoloured; they come first."""
        return sum(is_recoloured(index, self.params.recoloured) for index in self._order())

    @property
    def recoloured_share(self) -> float:
        """The share of recoloured samples in the batch of all processes."""
        size = self.params.training.batch_size
        return sum(is_recoloured(index, self.params.recoloured) for index in range(size)) / size

    def _order(self) -> list[int]:
        own = rank_indices(self.params.training.batch_size)
        return sorted(own, key=lambda index: not is_recoloured(index, self.params.recoloured))

    def _confident_places(self, step: int) -> Places | None:
        """Returns a window of generated masks for each sample of a batch, if a share is dropped per batch."""
        if self._generated is None or not self._generated.drops_per_batch:
            return None
        training = self.params.training
        return self._generated.draw_most_confident(rng(training.seed, step), training.batch_size)

    def _sample(self, step: int, index: int, confident: Places | None) -> list[np.ndarray]:
        """Returns the frames (T, H, W, C) of a window and its masks (T, H, W) of each map."""
        random = rng(self.params.training.seed, step, index)
        clip, window, masks = self._draw_window(random, step, None if confident is None else confident[index])
        frames_THWC = self.store.frames(clip)[window]
        if self._backgrounds is not None:
            frames_THWC = self._backgrounds.composite(clip, window, frames_THWC, random)
        try:
            frames_THWC, masks = augment(frames_THWC, masks, self.params.augment, random, self._swaps)
        except Exception as error:  # an augmentation of another package may raise anything
            error.add_note(f"at step {step}, in frames {window.start} to {window.stop - 1} of clip {clip.id!r}")
            raise
        if self.params.recoloured is not None and is_recoloured(index, self.params.recoloured):
            drawn = draw_colour_transform(self.params.recoloured, frames_THWC.shape, random)
            frames_THWC = recolour(frames_THWC, drawn)
        return [frames_THWC, *masks.values()]

    def _draw_window(
        self, random: np.random.Generator, step: int, confident: tuple[int, int] | None
    ) -> tuple[Clip, slice, dict[LabelMap, np.ndarray]]:
        """Returns a clip, a window of its frames, and the masks of each map in that window.

        Args:
            random: of the sample.
            step: of the training.
            confident: clip and first frame of the window to take if it is one of generated masks; None draws it.
        """
        generated = self._generated
        if generated is not None and random.random() < self.params.generated_share(step):
            k, t = confident or generated.index.at(int(random.integers(len(generated.index))))
            window = slice(t, t + self.length)
            return generated.clips[k], window, generated.masks(generated.clips[k], window)
        propagated = self._propagated
        if propagated is not None and random.random() < min(propagated.params.share, self._even_share(propagated)):
            k, t = propagated.index.at(int(random.integers(len(propagated.index))))
            window = slice(t, t + self.length)
            return propagated.clips[k], window, propagated.masks(k, window)
        k, t = self._index.at(int(random.integers(len(self._index))))
        window = slice(t, t + self.length)
        masks = {label_map: store.masks(self.clips[k], window) for label_map, store in self._masks.items()}
        return self.clips[k], window, masks

    def _even_share(self, near: PropagatedLabels) -> float:
        """Returns the share of windows with propagated labels among all windows."""
        return len(near.index) / (len(near.index) + len(self._index))


def labelled_clips(store: ClipStore, maps: Sequence[LabelMap], split: str) -> Sequence[Clip]:
    """Returns the labelled clips of a split that have frames and masks of all maps.

    Raises:
        MaskcastError: if there is none.
    """
    store.select(split, "labelled")  # raises an error that lists what there is, if there is none
    needed = {FRAMES, *(masks_layer(label_map.name) for label_map in maps)}
    clips = store.where(
        lambda group: (group.split, group.kind) == (split, "labelled") and needed <= set(group.layers)
    )
    if not clips:
        requirement = "frames" if len(maps) == 1 else f"frames and masks of {', '.join(one.name for one in maps)}"
        raise MaskcastError(
            f"{store.root}: no labelled clip of split {split!r} has {requirement}; "
            f"prepare clips with {requirement} to train a masker"
        )
    return clips


def chosen_maps(store: ClipStore, names: Sequence[str] | None) -> tuple[LabelMap, ...]:
    """Returns the label maps of a store with these names, or all that can be learnt.

    Raises:
        MaskcastError: if a map does not exist, or none can be learnt.
    """
    if names is not None:
        return tuple(store.of(name).label_map for name in names)
    maps = tuple(label_map for label_map in store.maps.values() if label_map.kind != "instances")
    if not maps:
        raise MaskcastError(f"{store.root}: has no label map of kind classes or alpha; prepare clips with one")
    return maps
