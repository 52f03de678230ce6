"""Generated masks of clips that are labelled in some frames: labels, and what flow carries, take their place."""

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
    """Puts labels, and what flow carries of them, in the place of masks that are generated.

    Args:
        store: holds frames and labels.
        maps: those that are masked; labels of kind ``classes`` are carried.
        params: how far labels reach, and how sure they must be.
        levels: steps to which a confidence is rounded.
    """

    def __init__(self, store: ClipStore, maps: Sequence[LabelMap], params: PropagationParams, levels: int) -> None:
        self._maps = {one.name: store.of(one.name) for one in maps if one.kind == "classes"}
        self._params, self._levels = params, levels

    def __call__(self, clip: Clip, done: FinishedClip) -> FinishedClip:
        """Returns the masks of a clip, with labels where these are sure.

        Only of clips to learn from that have labels in some frames: labels to score on are left alone.
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
