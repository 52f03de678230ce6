"""Training on labels that optical flow propagates to the frames around labelled ones.

Legend: T frames, H height, W width.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from maskcast.data.clip_store.compression import CompressedLayer, compress, decompress
from maskcast.data.clip_store.labelled_frames import LABELLED_FRAMES, TrainingIndex, labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.data.labelling.propagation import propagate
from maskcast.dry_run_notes import FullLoop
from maskcast.errors import MaskcastError
from maskcast.forking import joined_thread_pool
from maskcast.labels import IGNORE, LabelMap
from maskcast.progress import say, track
from maskcast.resources import num_cpus
from maskcast.training.tasks.segmentation_params import PropagatedParams

Layers = dict[LabelMap, CompressedLayer]


class PropagatedLabels:
    """Clips that are labelled in some frames only, with labels propagated to nearby frames.

    Propagated labels are held compressed in memory. Each process computes all of them, as there are few labels.

    Args:
        store: the clips.
        clips: the clips to learn from.
        maps: label maps to learn.
        params: reach of labels, and threshold of confidence.
        length: frames per window.
        skip: this many frames at the start of a window do not contribute to the loss.

    Raises:
        MaskcastError: if a map is not of kind ``classes``.
    """

    def __init__(
        self,
        store: ClipStore,
        clips: Sequence[Clip],
        maps: Sequence[LabelMap],
        params: PropagatedParams,
        length: int,
        skip: int = 0,
    ) -> None:
        self.params = params
        for label_map in maps:
            if label_map.kind != "classes":
                raise MaskcastError(
                    f"train_masker.propagated: map {label_map.name!r} has kind {label_map.kind}, only classes can "
                    "be propagated; set propagated to null, or train_masker.maps to maps of classes"
                )
        self._masks = {label_map: store.of(label_map.name) for label_map in maps}
        self.clips = [clip for clip in clips if LABELLED_FRAMES in clip.meta]
        self.index = TrainingIndex(store, self.clips, maps, length, params.frames, skip)
        if not len(self.index):
            why = "no window has labels in or near its frames" if self.clips else "all training frames have labels"
            say(f"{store.root}: {why}: train_masker.propagated has no effect")
        self._layers = list(self._propagate_all(store))

    def masks(self, clip: int, frames: slice) -> dict[LabelMap, np.ndarray]:
        """Returns the masks (T, H, W) of each map in a range of frames; uncertain pixels are ``IGNORE``."""
        return {label_map: decompress(layer, frames) for label_map, layer in self._layers[clip].items()}

    def _propagate_all(self, store: ClipStore) -> Iterator[Layers]:
        def propagate_clip(clip: Clip) -> Layers:
            return {one: self._layer(store.frames(clip), masks, clip) for one, masks in self._masks.items()}

        with joined_thread_pool(num_cpus(), "flow") as pool:  # OpenCV releases Python's lock
            yield from track(
                pool.map(propagate_clip, self.clips),
                "propagating labels",
                len(self.clips),
                FullLoop(splits=("train",)),
            )

    def _layer(self, frames_THWC: np.ndarray, store: ClipStore, clip: Clip) -> CompressedLayer:
        labelled = labelled_frames(store, clip)
        propagated = propagate(frames_THWC, store.masks(clip), labelled, self.params.frames)
        confident_THW = propagated.confidence_THW >= self.params.threshold
        return compress(np.where(confident_THW, propagated.masks_THW, np.uint8(IGNORE)))
