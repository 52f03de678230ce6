"""Replaces generated masks by labels and propagated labels, in clips that are labelled in some frames."""

from collections.abc import Sequence

from maskcast.data.clip_store.finished import FinishedClip
from maskcast.data.clip_store.labelled_frames import LABELLED_FRAMES, labelled_frames
from maskcast.data.clip_store.packing import packed, unpacked
from maskcast.data.clip_store.reader import ALL, ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.data.labelling.propagation import PropagationParams, propagate
from maskcast.inference.found import MeanConfidence, quantise
from maskcast.labels import LabelMap


class CarriedLabels:
    """Replaces generated masks by labels, and by labels that optical flow propagates.

    Args:
        store: holds frames and labels.
        maps: label maps of the masks; labels of kind ``classes`` are propagated.
        params: reach of labels, and threshold of confidence.
        levels: number of steps to which confidence is rounded.
    """

    def __init__(self, store: ClipStore, maps: Sequence[LabelMap], params: PropagationParams, levels: int) -> None:
        self._maps = {one.name: store.of(one.name) for one in maps if one.kind == "classes"}
        self._params, self._levels = params, levels

    def __call__(self, clip: Clip, done: FinishedClip) -> FinishedClip:
        """Returns the masks of a clip, replaced by labels where these are confident.

        Only training clips with labels in some frames are changed; labels for scoring are not used.
        """
        if clip.split != "train" or LABELLED_FRAMES not in clip.meta or not self._maps:
            return done
        masks, confidence, mean = dict(done.masks), dict(done.confidence), MeanConfidence()
        for name, labels in self._maps.items():
            masks_THW, sure_THW = unpacked(masks[name], ALL), unpacked(confidence[name], ALL)
            if known := labelled_frames(labels, clip):
                carried = propagate(labels.frames(clip), labels.masks(clip), known, self._params.frames)
                taken_THW = carried.confidence_THW >= self._params.threshold
                masks_THW[taken_THW] = carried.masks_THW[taken_THW]
                sure_THW[taken_THW] = quantise(carried.confidence_THW[taken_THW], self._levels)
                masks[name], confidence[name] = packed(masks_THW), packed(sure_THW)
            mean.add(masks_THW, sure_THW)
        return FinishedClip(masks, confidence, done.meta | {"mean_confidence": mean.value})
