"""Runs a segmenter on a device, one batch of frames after the other.

On a GPU all work is asynchronous: frames are copied from pinned memory, and results are copied back into it. So
the next batch can start before the results of the last one have arrived.

Legend: T frames, H height, W width, C = 3 colour channels, K classes, P foreground pixels, I of the rows, J
columns.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskcast.errors import MaskcastError
from maskcast.inference.predictions import (
    ClassLogits,
    MapPrediction,
    Predictions,
    concatenate,
    rounded,
    take_frames,
)
from maskcast.labels import LabelMap
from maskcast.models.arithmetic import autocast, has_kernels
from maskcast.models.base import device_of
from maskcast.models.cuda_graphs import WARM_UP_CALLS, GraphedCallable, GraphRecorder
from maskcast.models.limits import check_time, frames_at_once, strips
from maskcast.models.segmentation.base import Segmenter, State, most_probable, run_segmenter
from maskcast.progress import say

LOGITS_COPIES = 4  # temporary tensors of the logits' size
MAX_GRAPHS = 4  # shapes of batches whose recorded calls are kept
# Calls after which more frames are tried at once again, because another program may have used the memory.
CALLS_IN_PIECES = 100

Part = tuple[int, np.ndarray | None]  # index of a clip and some of its frames; None at its end
PredictedPart = tuple[int, Predictions | None]


class Worker:
    """Runs a segmenter on one batch after the other, and keeps its recorded network for the next batches.

    With a segmenter without state, clips, sessions and threads may share a worker. One with state needs a worker
    for each clip that is being masked; a clip that is left early must set ``state`` to ``()``.

    Args:
        segmenter: in eval mode, on its device.
        precision: ``bf16`` or ``fp32``.
        levels: number of steps to which confidence is rounded on the device; None does not round.
        logits: whether the logits of class maps are returned, too.
    """

    def __init__(
        self, segmenter: Segmenter, precision: str, levels: int | None = None, *, logits: bool = False
    ) -> None:
        self.segmenter, self.precision, self.levels, self._logits = segmenter, precision, levels, logits
        self.state: State = ()
        self._device = device_of(segmenter)
        # not with a state, which is passed from call to call
        self._recorder = None if segmenter.stateful or self._device.type != "cuda" else GraphRecorder()
        self._graphs: dict[tuple[int, ...], GraphedCallable[Any]] = {}  # by shape, the last used at the end
        # a replay writes over the results of the last one
        self._one_at_a_time: AbstractContextManager[Any] = nullcontext() if self._recorder is None else Lock()
        # by size, for those of which too many came at once; and for how many calls
        self._max_frames: dict[tuple[int, ...], tuple[int, int]] = {}

    def __call__(self, parts: Sequence[Part], objects: bool = False) -> list[PredictedPart]:
        """Returns the predictions for a batch (see ``begin``)."""
        return self.begin(parts, objects)()

    def warm_up(self, parts: Sequence[Part], objects: bool) -> None:
        """Runs a batch on a GPU until it is recorded, and drops the results."""
        if self._device.type == "cuda":
            for _ in range(WARM_UP_CALLS + 1):
                self(parts, objects)
            self.state = ()

    def begin(self, parts: Sequence[Part], objects: bool = False) -> Callable[[], list[PredictedPart]]:
        """Starts a batch, and returns a function that waits for its predictions.

        Args:
            parts: the batch.
            objects: whether the probabilities of foreground pixels are returned, to make masks consistent; then
                confidence is not rounded.

        Raises:
            MaskcastError: if a frame is too large for the network's limit or the device's memory, or the time
                limit is exceeded (see ``limits.check_time``).
        """
        frames = [frames_THWC for _, frames_THWC in parts if frames_THWC is not None]
        with (
            self._one_at_a_time,
            torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext(),
        ):
            pending = self._begin(np.concatenate(frames), objects) if frames else []
        if any(frames_THWC is None for _, frames_THWC in parts):
            self.state = ()

        def finish() -> list[PredictedPart]:
            predictions = concatenate([each() for each in pending]) if pending else {}
            out: list[PredictedPart] = []
            start = 0
            for number, frames_THWC in parts:
                if frames_THWC is None:
                    out.append((number, None))
                else:
                    out.append((number, take_frames(predictions, slice(start, start + len(frames_THWC)))))
                    start += len(frames_THWC)
            return out

        return finish

    def _begin(self, frames_THWC: np.ndarray, objects: bool) -> list[Callable[[], Predictions]]:
        """Starts frames, in as many pieces as memory requires; all but the last piece are finished on return."""
        check_time()
        num_frames, height, width, _ = frames_THWC.shape
        for _ in range(2 if num_frames == 1 else 1):  # a single frame may fit once the caches are empty
            try:
                size = frames_at_once(height, width, self.segmenter.numbers_per_pixel)
                if self._device.type == "cuda":  # a GPU reports what does not fit; pieces would leave it idle
                    size = num_frames
                size = min(size, self._frames_that_fit(height, width, size))
                if num_frames <= size:
                    return [self._predict(frames_THWC, objects)]
                break
            except torch.OutOfMemoryError:
                size = 0  # handled outside, because the error's traceback keeps the memory allocated
            self._graphs.clear()  # they hold memory of their own
            torch.cuda.empty_cache()
        if not size:
            if num_frames == 1:
                raise MaskcastError(
                    f"a frame of {height} x {width} does not fit into the memory of the GPU; use smaller frames"
                )
            size = num_frames // 2
            self._max_frames[height, width] = size, CALLS_IN_PIECES
            say(f"{num_frames} frames at once do not fit into the memory of the GPU: going on with {size}")
        pending: list[Callable[[], Predictions]] = []
        for k in range(0, num_frames, size):
            done = [each() for each in pending]  # before the next piece, as pending results take more memory
            pending = [*map(_completed, done), *self._begin(frames_THWC[k : k + size], objects)]
        return pending

    def _frames_that_fit(self, height: int, width: int, default: int) -> int:
        """Returns how many frames of a size go through at once, and counts the calls until that is forgotten."""
        size, calls = self._max_frames.pop((height, width), (default, 0))
        if calls > 1:
            self._max_frames[height, width] = size, calls - 1
        return size

    def _predict(self, frames_THWC: np.ndarray, objects: bool) -> Callable[[], Predictions]:
        device, maps = self._device, self.segmenter.maps
        with torch.inference_mode(), autocast(device, self.precision):
            frames = torch.from_numpy(frames_THWC)
            if device.type == "cuda":
                frames = frames.pin_memory()
            frames_BTHWC = frames.to(device, non_blocking=True)[None]
            if self._recorder is None or frames_THWC.shape[1:3] in self._max_frames:
                logits, state = run_segmenter(self.segmenter, frames_BTHWC, self.state)
            else:
                logits, state = self._graph(frames_THWC.shape, self._recorder)(frames_BTHWC)
            levels = None if objects else self.levels
            decoded = [_decoded(*each, objects, levels, self._logits) for each in zip(maps, logits, strict=True)]
            arrived = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None
        self.state = state  # only now, because a piece that does not fit is repeated

        def finish() -> Predictions:
            if arrived is not None:
                arrived.synchronize()
            return {label_map.name: one() for label_map, one in zip(maps, decoded, strict=True)}

        return finish

    def _graph(self, shape: tuple[int, ...], recorder: GraphRecorder) -> GraphedCallable[Any]:
        """Returns the recorded network for a shape of frames, and drops the one that was not used for longest."""
        if shape in self._graphs:
            graph = self._graphs.pop(shape)
        else:
            graph = GraphedCallable(partial(run_segmenter, self.segmenter), recorder)
        self._graphs[shape] = graph
        if len(self._graphs) > MAX_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        return graph


def _decoded(
    label_map: LabelMap, logits_BTKHW: Tensor, objects: bool, levels: int | None, with_logits: bool
) -> Callable[[], MapPrediction]:
    """Starts to decode the logits of one clip to masks of a label map."""
    (logits_TKHW,) = logits_BTKHW
    if label_map.kind == "alpha":
        opacity_THW = logits_TKHW[:, 0].float().sigmoid()
        masks_THW = _copy_to_host((opacity_THW * 255).round().to(torch.uint8))
        highest = _copy_to_host(opacity_THW.amax())
        return lambda: MapPrediction(_checked_finite(masks_THW, highest), None)
    if has_kernels(logits_TKHW) and not objects and logits_TKHW.shape[1] <= 256:
        from maskcast.models.kernels import decoding

        ids_THW, probability_THW = decoding.most_probable(logits_TKHW)
        pending = []
    else:
        frames, channels, *size = logits_TKHW.shape
        strips_of = strips(frames, size[0], size[1], LOGITS_COPIES * channels)
        decoded = [_decode_strip(logits_TKHW[some, :, rows], objects) for some, rows in strips_of]
        ids, probabilities, probabilities_PK = zip(*decoded, strict=True)
        ids_THW, probability_THW = (
            torch.cat([each.flatten() for each in parts]).view(frames, *size) for parts in (ids, probabilities)
        )
        pending = [_copy_to_host(each) for each in probabilities_PK if each is not None]
    highest = _copy_to_host(probability_THW.amax())
    if levels is not None:
        probability_THW = rounded(probability_THW, levels).to(torch.uint8)
    masks_THW, confidence_THW = _copy_to_host(ids_THW), _copy_to_host(probability_THW)
    logits_T = None
    if with_logits:
        logits_T = [
            _occurring(ids_HW, logits_KHW) for ids_HW, logits_KHW in zip(ids_THW, logits_TKHW, strict=True)
        ]

    def decode() -> MapPrediction:
        masks, confidence = _checked_finite(masks_THW, highest), confidence_THW.numpy()
        logits = None if logits_T is None else [ClassLogits(ids.numpy(), x.numpy()) for ids, x in logits_T]
        if not objects:
            return MapPrediction(masks, confidence, logits=logits)
        per_frame = np.split(torch.cat(pending).numpy(), np.cumsum(np.count_nonzero(masks, (1, 2)))[:-1])
        return MapPrediction(masks, confidence, per_frame, logits=logits)

    return decode


def _occurring(ids_HW: Tensor, logits_KHW: Tensor) -> tuple[Tensor, Tensor]:
    """Starts to copy the classes of a mask (Q,), and their logits (H, W, Q), to the host."""
    ids_Q = ids_HW.unique()
    return _copy_to_host(ids_Q), _copy_to_host(logits_KHW[ids_Q.long()].movedim(0, -1).float().contiguous())


def _decode_strip(logits_TKIJ: Tensor, objects: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns classes (T, I, J), their probability and, with ``objects``, all of foreground pixels (P, K)."""
    ids_TIJ, probability_TIJ, logits_TIJK = most_probable(logits_TKIJ)
    objects_PK = logits_TIJK[ids_TIJ > 0].softmax(-1) if objects else None
    return ids_TIJ.to(torch.uint8), probability_TIJ, objects_PK


def _checked_finite(masks_THW: Tensor, highest: Tensor) -> np.ndarray:
    """Returns masks on the host, after checking the probabilities.

    Args:
        masks_THW: the masks.
        highest: the greatest probability.

    Raises:
        MaskcastError: a probability is NaN; then the greatest is, too.
    """
    if not highest.isfinite():
        raise MaskcastError(
            "the masker's logits are not finite numbers: its training diverged; lower learning_rate and train it "
            "again"
        )
    return masks_THW.numpy()


def _completed(predictions: Predictions) -> Callable[[], Predictions]:
    return lambda: predictions


def _copy_to_host(x: Tensor) -> Tensor:
    """Starts to copy a tensor to the host."""
    return x.to("cpu", non_blocking=True)
