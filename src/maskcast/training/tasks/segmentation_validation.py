"""The validation of a segmenter: what it finds in the labelled validation clips, its scores and examples.

Legend: T frames, H height, W width, C = 3 channels.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from maskcast.data.clip_store.frame_index import slices_of, taken
from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.distributed import all_counts, own_part
from maskcast.errors import MaskcastError
from maskcast.evaluation.map_scores import counts_of, map_scores, no_counts
from maskcast.evaluation.metrics import foreground_jaccard
from maskcast.inference.found import Found, joined, length, sliced
from maskcast.inference.segment import segment_by
from maskcast.inference.worker import Worker
from maskcast.labels import LabelMap
from maskcast.models.segmentation.base import Segmenter
from maskcast.training.tasks.segmentation_params import SegmentationTraining
from maskcast.training.tasks.segmentation_windows import labelled_clips

PICTURED = 4  # clips
MEANS = ("jaccard", "accuracy", "jaccard_no_background")  # over the maps, where all have them


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
        self._masks = [store.of(one.name) for one in maps]
        self.clips = [clip for clip in labelled_clips(store, maps, "val") if self.frames(clip)]
        self._need_foreground()

    def scores(self, segmenter: Segmenter) -> dict[str, float]:
        """Returns ``jaccard`` and ``accuracy`` over the pooled validation frames, the mean over the maps.

        Maps of one class beside the background have its Jaccard, ``jaccard_no_background``, too. Where there are
        several maps, the scores of each carry its name as well.
        """
        each = {}
        for one, total in zip(self.maps, self.counts(segmenter), strict=True):
            each[one.name] = map_scores(one, total) | ({} if one.kind == "alpha" else foreground_jaccard(total))
        if len(each) == 1:
            return next(iter(each.values()))
        shared = [score for score in MEANS if all(score in one for one in each.values())]
        mean = {score: float(np.mean([one[score] for one in each.values()])) for score in shared}
        return mean | {f"{score}_{name}": value for name, one in each.items() for score, value in one.items()}

    def counts(self, segmenter: Segmenter) -> list[np.ndarray]:
        """Returns what the scores of each map are made of (``map_scores.counts_of``), over all processes."""
        counts = [no_counts(label_map) for label_map in self.maps]
        worker = self.worker(segmenter)
        for k in own_part(len(self.clips)):
            clip = self.clips[k]
            for frames, found in self.found(worker, clip):
                for n, label_map in enumerate(self.maps):
                    truth = taken(frames, partial(self._masks[n].masks, clip))
                    counts[n] += counts_of(label_map, truth, found[label_map.name].masks)
        return [all_counts(own, segmenter) for own in counts]

    def of_one_class(self) -> float:
        """Returns the Jaccard of masks of one class, the most frequent of each map; NaN where one is an alpha."""
        each = []
        for one, store in zip(self.maps, self._masks, strict=True):
            if one.kind == "alpha":
                return math.nan
            pixels_K = sum(self._of_truth(one, store), no_counts(one)).sum(axis=1)
            alone = no_counts(one)
            alone[:, pixels_K.argmax()] = pixels_K
            each.append(map_scores(one, alone)["jaccard"])
        return float(np.mean(each))

    def worker(self, segmenter: Segmenter) -> Worker:
        """Returns what looks for masks in one clip after the other."""
        return Worker(segmenter, self.params.training.precision, objects=False)

    def frames(self, clip: Clip) -> Sequence[int]:
        """Returns every ``val_frame_step``-th of the frames of a clip that have labels."""
        known = [labelled_frames(store, clip) for store in self._masks]
        some = known[0] if len(known) == 1 else sorted(set().union(*known))
        return some[:: self.params.val_frame_step]

    def found(self, worker: Worker, clip: Clip) -> Iterator[tuple[Sequence[int], Found]]:
        """Yields what is found in the frames of a clip that validation looks at, as generate_masks would find it.

        A model with state sees the frames between, too.

        Yields:
            Which frames of the clip, and what is found in them.
        """
        wanted, frames_THWC = self.frames(clip), self.store.frames(clip)
        stateful = worker.segmenter.stateful
        seen = [frames_THWC] if stateful else [frames_THWC[part] for part in slices_of(wanted)]
        first = 0
        for piece in segment_by(worker, seen, batch_size=self.params.training.batch_size):
            stop = first + length(piece)
            if stateful:
                own = wanted[bisect_left(wanted, first) : bisect_left(wanted, stop)]
                if own:
                    yield own, joined([sliced(piece, part) for part in slices_of(own, first)])
            else:
                yield wanted[first:stop], piece
            first = stop

    def examples(self, segmenter: Segmenter) -> Iterator[tuple[str, np.ndarray, list[Shown]]]:
        """Yields the ids of some validation clips, their frames (T, H, W, C), and the masks of each map."""
        worker = self.worker(segmenter)
        for clip in self.clips[:PICTURED]:
            found = joined([piece for _, piece in self.found(worker, clip)])
            frames = self.frames(clip)
            shown = [
                Shown(one, taken(frames, partial(store.masks, clip)), found[one.name].masks)
                for one, store in zip(self.maps, self._masks, strict=True)
            ]
            yield clip.id, taken(frames, self.store.frames(clip).__getitem__), shown

    def _of_truth(self, label_map: LabelMap, store: ClipStore) -> Iterator[np.ndarray]:
        """Yields what the scores of true masks are made of, clip by clip."""
        for clip in self.clips:
            truth = taken(self.frames(clip), partial(store.masks, clip))
            yield counts_of(label_map, truth, truth)

    def _need_foreground(self) -> None:
        """Makes sure, before any training, that validation has something to tell models apart by."""
        for one, store in zip(self.maps, self._masks, strict=True):
            if all(math.isnan(map_scores(one, counts)["jaccard"]) for counts in self._of_truth(one, store)):
                raise MaskcastError(
                    f"{store.root}: no validation clip has foreground in its {one.name}, so no score can tell one "
                    "masker from another; give split val clips with foreground"
                )
