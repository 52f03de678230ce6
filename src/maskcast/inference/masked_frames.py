"""Masks clips frame by frame, for what looks at each frame once.

Legend: H height, W width.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.inference.segment import frame_by_frame, segment_clips
from maskcast.models.segmentation.base import Segmenter
from maskcast.progress import track


class MaskedFrame(NamedTuple):
    """A frame with a masker's mask of the store's chosen map.

    Attributes:
        clip: index of the clip.
        t: index of the frame in the clip.
        mask_HW: class ids, uint8.
        confidence_HW: probability of these classes.
    """

    clip: int
    t: int
    mask_HW: np.ndarray
    confidence_HW: np.ndarray


def masked_frames(
    store: ClipStore, masker: Segmenter, clips: Sequence[Clip], what: str, *, batch_size: int, precision: str
) -> Iterator[MaskedFrame]:
    """Yields all frames of clips, those of a clip in order.

    Args:
        store: the clips; masks are of its chosen map.
        masker: predicts the map; in eval mode, on its device.
        clips: of the store, with frames.
        what: what is done, for the progress bar.
        batch_size: frames per forward pass.
        precision: ``bf16`` or ``fp32``.
    """
    pieces = segment_clips(
        [masker], [[store.frames(clip)] for clip in clips], batch_size=batch_size, precision=precision
    )
    done = Counter[int]()
    for piece in track(frame_by_frame(pieces), what, sum(clip.num_frames for clip in clips)):
        if piece is None:
            continue
        k, predictions = piece
        prediction = predictions[store.label_map.name]
        assert prediction.confidence is not None
        for mask_HW, confidence_HW in zip(prediction.masks, prediction.confidence, strict=True):
            yield MaskedFrame(k, done[k], mask_HW, confidence_HW)
            done[k] += 1
