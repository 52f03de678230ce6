"""The validation of a segmenter: what it finds in the labelled validation clips, its scores and examples.

Legend: T frames, H height, W width, C = 3 channels.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from maskcast.data.clips import Clip, ClipStore
from maskcast.distributed import all_counts, own_part
from maskcast.errors import MaskcastError
from maskcast.evaluation.map_scores import counts_of, map_scores, no_counts
from maskcast.inference.found import Found, joined, length, sliced
from maskcast.inference.segment import segment_by
from maskcast.inference.worker import Worker
from maskcast.labels import LabelMap
from maskcast.models.segmentation.base import Segmenter
from maskcast.training.tasks.segmentation_params import SegmentationTraining
from maskcast.training.tasks.segmentation_windows import labelled_clips

PICTURED = 4  # clips


class Shown(NamedTuple):
    """Masks (T, H, W) of one map."""

    label_map: LabelMap
    truth: np.ndarray
    found: np.ndarray


class Validation:
    """The labelled validation clips, segmented as generate_masks would do it.

    Args:
        store: the clips.
        maps: what is scored.
        params: which frames, and how.

    Raises:
        MaskcastError: if no validation clip has frames and masks of all maps, or none has foreground.
    """

    def __init__(self, store: ClipStore, maps: Sequence[LabelMap], params: SegmentationTraining) -> None:
        self.store, self.maps, self.params = store, maps, params
        self.clips = labelled_clips(store, maps, "val")
        self._masks = [store.of(one.name) for one in maps]
        self._need_foreground()

    def scores(self, segmenter: Segmenter) -> dict[str, float]:
        """Returns ``jaccard`` and ``accuracy`` over the pooled validation frames, the mean over the maps.

        Where there are several maps, the scores of each carry its name, too.
        """
        counts = [no_counts(label_map) for label_map in self.maps]
        worker = self.worker(segmenter)
        for k in own_part(len(self.clips)):
            clip = self.clips[k]
            for frames, found in self.found(worker, clip):
                for n, label_map in enumerate(self.maps):
                    truth = self._masks[n].masks(clip, frames)
                    counts[n] += counts_of(label_map, truth, found[label_map.name].masks)
        each = {
            one.name: map_scores(one, all_counts(sums, segmenter))
            for one, sums in zip(self.maps, counts, strict=True)
        }
        if len(each) == 1:
            return next(iter(each.values()))
        mean = {score: float(np.mean([one[score] for one in each.values()])) for score in ("jaccard", "accuracy")}
        return mean | {f"{score}_{name}": value for name, one in each.items() for score, value in one.items()}

    def worker(self, segmenter: Segmenter) -> Worker:
        """Returns what looks for masks in one clip after the other."""
        return Worker(segmenter, self.params.training.precision, objects=False)

    def found(self, worker: Worker, clip: Clip) -> Iterator[tuple[slice, Found]]:
        """Yields what is found in every ``val_frame_step``-th frame of a clip, as generate_masks would find it.

        A model with state sees the frames between, too.

        Yields:
            Which frames of the clip, and what is found in them.
        """
        step = self.params.val_frame_step
        seen, kept = (1, step) if worker.segmenter.stateful else (step, 1)
        first, frames_THWC = 0, self.store.frames(clip)[::seen]
        for piece in segment_by(worker, [frames_THWC], batch_size=self.params.training.batch_size):
            skip, stop = -first % kept, first + length(piece)
            if first + skip < stop:
                yield slice((first + skip) * seen, stop * seen, step), sliced(piece, slice(skip, None, kept))
            first = stop

    def examples(self, segmenter: Segmenter) -> Iterator[tuple[str, np.ndarray, list[Shown]]]:
        """Yields the ids of some validation clips, their frames (T, H, W, C), and the masks of each map."""
        every = slice(None, None, self.params.val_frame_step)
        worker = self.worker(segmenter)
        for clip in self.clips[:PICTURED]:
            found = joined([piece for _, piece in self.found(worker, clip)])
            shown = [
                Shown(one, store.masks(clip, every), found[one.name].masks)
                for one, store in zip(self.maps, self._masks, strict=True)
            ]
            yield clip.id, self.store.frames(clip)[every], shown

    def _need_foreground(self) -> None:
        """Makes sure, before any training, that validation has something to tell models apart by."""
        every = slice(None, None, self.params.val_frame_step)
        for one, store in zip(self.maps, self._masks, strict=True):
            counts = no_counts(one)
            for clip in self.clips:
                truth = store.masks(clip, every)
                counts += counts_of(one, truth, truth)
                if not math.isnan(map_scores(one, counts)["jaccard"]):
                    break
            else:
                raise MaskcastError(
                    f"{store.root}: no validation clip has foreground in its {one.name}, so no score can tell one "
                    "masker from another; give split val clips with foreground"
                )
