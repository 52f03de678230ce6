"""The validation of a segmenter on the labelled validation clips: predictions, scores and examples.

Legend: T frames, H height, W width, C = 3 channels.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from maskcast.data.clip_store.frame_index import read_in_slices, slices_of
from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.distributed import all_reduce_counts, rank_indices
from maskcast.errors import MaskcastError
from maskcast.evaluation.map_scores import counts_of, map_scores, zero_counts
from maskcast.evaluation.metrics import as_one_class
from maskcast.inference.predictions import Predictions, concatenate, count_frames, take_frames
from maskcast.inference.segment import segment
from maskcast.inference.worker import Worker
from maskcast.labels import LabelMap
from maskcast.models.base import device_of
from maskcast.models.segmentation.base import Segmenter
from maskcast.training.tasks.segmentation_params import SegmentationTraining
from maskcast.training.tasks.segmentation_windows import labelled_clips

NUM_EXAMPLES = 4  # clips
MEANS = ("jaccard", "accuracy", "jaccard_no_background")  # averaged over the maps, if all maps have them


class MapExample(NamedTuple):
    """Masks (T, H, W) of one map."""

    label_map: LabelMap
    truth: np.ndarray
    predicted: np.ndarray


class Example(NamedTuple):
    """A clip with its validated frames (T, H, W, C), their indices in the clip, and the masks of each map."""

    clip_id: str
    indices: Sequence[int]
    frames: np.ndarray
    maps: list[MapExample]


class Validation:
    """Validates on the labelled validation clips, with the same inference as generate_masks.

    Args:
        store: the clips.
        maps: label maps to score.
        params: of the stage.

    Raises:
        MaskcastError: if no validation clip has frames and masks of all maps, or no mask has foreground.
    """

    def __init__(self, store: ClipStore, maps: Sequence[LabelMap], params: SegmentationTraining) -> None:
        self.store, self.maps, self.params = store, maps, params
        self._masks = [store.of(label_map.name) for label_map in maps]
        self.clips = [clip for clip in labelled_clips(store, maps, "val") if self.frames(clip)]
        self._check_foreground()

    def scores(self, segmenter: Segmenter) -> dict[str, float]:
        """Returns ``jaccard`` and ``accuracy`` over all pixels of the validation frames, averaged over the maps.

        For maps with one class besides the background, ``jaccard_no_background`` is the Jaccard of that class. If
        there are several maps, the scores of each are returned as well, with its name.
        """
        totals = zip(self.maps, self.counts(segmenter), strict=True)
        by_map = {label_map.name: map_scores(label_map, total) for label_map, total in totals}
        if len(by_map) == 1:
            return next(iter(by_map.values()))
        shared = [score for score in MEANS if all(score in scores for scores in by_map.values())]
        mean = {score: float(np.mean([scores[score] for scores in by_map.values()])) for score in shared}
        return mean | {
            f"{score}_{name}": value for name, scores in by_map.items() for score, value in scores.items()
        }

    def counts(self, segmenter: Segmenter) -> list[np.ndarray]:
        """Returns the counts for each map's scores (``map_scores.counts_of``), summed over all processes."""
        counts = [zero_counts(label_map) for label_map in self.maps]
        worker = self.worker(segmenter)
        for k in rank_indices(len(self.clips)):
            clip = self.clips[k]
            for frames, predictions in self.predict(worker, clip):
                for n, label_map in enumerate(self.maps):
                    truth = read_in_slices(frames, partial(self._masks[n].masks, clip))
                    counts[n] += counts_of(label_map, truth, predictions[label_map.name].masks)
        return [all_reduce_counts(own, device_of(segmenter)) for own in counts]

    def majority_class_jaccard(self) -> float:
        """Returns the Jaccard of constant masks of each map's most frequent class; NaN if a map is an alpha."""
        each = []
        for label_map, store in zip(self.maps, self._masks, strict=True):
            if label_map.kind == "alpha":
                return math.nan
            truth = sum(self._truth_counts(label_map, store), zero_counts(label_map))
            each.append(map_scores(label_map, as_one_class(truth))["jaccard"])
        return float(np.mean(each))

    def worker(self, segmenter: Segmenter) -> Worker:
        """Returns a worker that segments one clip after the other."""
        return Worker(segmenter, self.params.training.precision)

    def frames(self, clip: Clip) -> Sequence[int]:
        """Returns every ``val_frame_step``-th labelled frame of a clip."""
        labelled = [labelled_frames(store, clip) for store in self._masks]
        indices = labelled[0] if len(labelled) == 1 else sorted(set().union(*labelled))
        return indices[:: self.params.val_frame_step]

    def predict(self, worker: Worker, clip: Clip) -> Iterator[tuple[Sequence[int], Predictions]]:
        """Yields the predictions for the validated frames of a clip, as generate_masks would make them.

        A model with state also sees the frames in between.

        Yields:
            Indices of frames, and the predictions for them.
        """
        indices, frames_THWC = self.frames(clip), self.store.frames(clip)
        stateful = worker.segmenter.stateful
        chunks = [frames_THWC] if stateful else [frames_THWC[part] for part in slices_of(indices)]
        first = 0
        for piece in segment(worker, chunks, batch_size=self.params.training.batch_size):
            stop = first + count_frames(piece)
            if stateful:
                in_piece = indices[bisect_left(indices, first) : bisect_left(indices, stop)]
                if in_piece:
                    yield in_piece, concatenate([take_frames(piece, part) for part in slices_of(in_piece, first)])
            else:
                yield indices[first:stop], piece
            first = stop

    def examples(self, segmenter: Segmenter) -> Iterator[Example]:
        """Yields some validation clips."""
        worker = self.worker(segmenter)
        for clip in self.clips[:NUM_EXAMPLES]:
            predictions = concatenate([piece for _, piece in self.predict(worker, clip)])
            frames = self.frames(clip)
            map_examples = [
                MapExample(one, read_in_slices(frames, partial(store.masks, clip)), predictions[one.name].masks)
                for one, store in zip(self.maps, self._masks, strict=True)
            ]
            pictures = read_in_slices(frames, self.store.frames(clip).__getitem__)
            yield Example(clip.id, frames, pictures, map_examples)

    def _truth_counts(self, label_map: LabelMap, store: ClipStore) -> Iterator[np.ndarray]:
        """Yields the counts of true masks against themselves, clip by clip."""
        for clip in self.clips:
            truth = read_in_slices(self.frames(clip), partial(store.masks, clip))
            yield counts_of(label_map, truth, truth)

    def _check_foreground(self) -> None:
        """Checks, before any training, that the validation masks have foreground."""
        for label_map, store in zip(self.maps, self._masks, strict=True):
            counts_of_clips = self._truth_counts(label_map, store)
            if all(math.isnan(map_scores(label_map, counts)["jaccard"]) for counts in counts_of_clips):
                raise MaskcastError(
                    f"{store.root}: no validation clip has foreground in its {label_map.name}, so "
                    "maskers cannot be compared; add clips with foreground to split val"
                )
