"""Generated masks of clips that are labelled in some frames: labels, and what flow carries, take their place."""

from collections.abc import Sequence

from maskcast.data.clip_table import Clip
from maskcast.data.clips import ALL, ClipStore
from maskcast.data.finished import FinishedClip
from maskcast.data.packing import packed, unpacked
from maskcast.data.propagation import PropagationParams, propagate
from maskcast.data.relabelling import LABELLED_FRAMES, labelled_frames
from maskcast.inference.found import MeanConfidence, quantise
from maskcast.labels import LabelMap


def takes_labels(clip: Clip) -> bool:
    """Whether a clip is one to learn from that has labels of some frames; labels to score on are left alone."""
    return clip.split == "train" and LABELLED_FRAMES in clip.meta


def with_labels(
    done: FinishedClip,
    store: ClipStore,
    clip: Clip,
    maps: Sequence[LabelMap],
    params: PropagationParams,
    levels: int,
) -> FinishedClip:
    """Returns the masks of a clip, with labels where these are sure.

    Args:
        done: what a masker found.
        store: holds frames and labels of the clip.
        clip: see ``takes_labels``.
        maps: those that were masked; labels of kind ``classes`` are carried.
        params: how far labels reach, and how sure they must be.
        levels: steps to which a confidence is rounded.
    """
    masks, confidence, mean = dict(done.masks), dict(done.confidence), MeanConfidence()
    for one in maps:
        if one.kind != "classes":
            continue
        labels = store.of(one.name)
        masks_THW, sure_THW = unpacked(masks[one.name], ALL), unpacked(confidence[one.name], ALL)
        known = labelled_frames(labels, clip)
        carried = propagate(store.frames(clip), labels.masks(clip), known, params.frames)
        taken_THW = carried.confidence_THW >= params.threshold
        masks_THW[taken_THW] = carried.masks_THW[taken_THW]
        sure_THW[taken_THW] = quantise(carried.confidence_THW[taken_THW], levels)
        masks[one.name], confidence[one.name] = packed(masks_THW), packed(sure_THW)
        mean.add(masks_THW, sure_THW)
    return FinishedClip(
        masks, confidence, done.meta | {"mean_confidence": mean.value} if confidence else done.meta
    )
