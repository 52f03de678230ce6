"""Replaces generated masks by labels and propagated labels, in clips that are labelled in some frames."""

from collections.abc import Sequence

from maskcast.data.clip_store.compression import compress, decompress
from maskcast.data.clip_store.finished import FinishedClip
from maskcast.data.clip_store.labelled_frames import LABELLED_FRAMES, labelled_frames
from maskcast.data.clip_store.reader import ALL, ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.data.labelling.propagation import PropagationParams, propagate
from maskcast.inference.predictions import MeanConfidence, quantise
from maskcast.labels import LabelMap


def takes_labels(clip: Clip) -> bool:
    """Whether a ``LabelPropagator`` replaces masks of a clip: a training clip with labels in some frames only."""
    return clip.split == "train" and LABELLED_FRAMES in clip.meta


class LabelPropagator:
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

    def __call__(self, clip: Clip, finished: FinishedClip) -> FinishedClip:
        """Returns the masks of a clip, replaced by labels where these are confident.

        Labels for scoring are not used, and scores of changed clips are refused (``mask_origin``).
        """
        if not takes_labels(clip) or not self._maps:
            return finished
        masks, confidence, mean = dict(finished.masks), dict(finished.confidence), MeanConfidence()
        for name, labels in self._maps.items():
            masks_THW, confidence_THW = decompress(masks[name], ALL), decompress(confidence[name], ALL)
            if labelled := labelled_frames(labels, clip):
                propagated = propagate(labels.frames(clip), labels.masks(clip), labelled, self._params.frames)
                replaced_THW = propagated.confidence_THW >= self._params.threshold
                masks_THW[replaced_THW] = propagated.masks_THW[replaced_THW]
                confidence_THW[replaced_THW] = quantise(propagated.confidence_THW[replaced_THW], self._levels)
                masks[name], confidence[name] = compress(masks_THW), compress(confidence_THW)
            mean.add(masks_THW, confidence_THW)
        return FinishedClip(masks, confidence, finished.meta | {"mean_confidence": mean.value})
