"""A segmenter at work on a device, one batch of frames after the other.

Work on a GPU is begun and does not wait: frames go there from pinned memory, and what is found comes back into it.
So the next batch can be begun before the last one has come back.

Legend: T frames, H height, W width, C = 3 colour channels, K classes, P pixels masked as an object.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from maskcast.errors import MaskcastError
from maskcast.inference.consistency import find_regions
from maskcast.inference.found import Found, Masked, joined, sliced
from maskcast.labels import LabelMap
from maskcast.models.arithmetic import has_kernels
from maskcast.models.recorded import Recorded
from maskcast.models.segmentation.base import Segmenter, State
from maskcast.progress import say

Part = tuple[int, np.ndarray | None]  # number of a clip and some of its frames; None: it is over
FoundPart = tuple[int, Found | None]


class Worker:
    """Runs a segmenter on one batch after the other.

    Args:
        segmenter: in eval mode, on its device.
        precision: ``bf16`` or ``fp32``.
        regions: whether the regions of each frame are looked for.
    """

    def __init__(self, segmenter: Segmenter, precision: str, regions: bool) -> None:
        self.segmenter, self.precision, self.regions = segmenter, precision, regions
        self.state: State = ()
        self._device = next(segmenter.parameters()).device
        # a state goes on from call to call
        self._recorded = None if segmenter.stateful or self._device.type != "cuda" else Recorded(segmenter)
        self._most: int | None = None  # frames that fit into the memory of the device; None: all so far

    def __call__(self, parts: Sequence[Part]) -> list[FoundPart]:
        """Returns what is found in a batch."""
        return self.begin(parts)()

    def begin(self, parts: Sequence[Part]) -> Callable[[], list[FoundPart]]:
        """Begins to work on a batch; returns a function that waits for what is found.

        Raises:
            MaskcastError: if not even one frame fits into the memory of the device.
        """
        frames = [frames_THWC for _, frames_THWC in parts if frames_THWC is not None]
        with torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext():
            coming = self._begin(np.concatenate(frames)) if frames else []
        if any(frames_THWC is None for _, frames_THWC in parts):
            self.state = ()

        def finish() -> list[FoundPart]:
            found = joined([each() for each in coming]) if coming else {}
            out: list[FoundPart] = []
            start = 0
            for number, frames_THWC in parts:
                if frames_THWC is None:
                    out.append((number, None))
                else:
                    out.append((number, sliced(found, slice(start, start + len(frames_THWC)))))
                    start += len(frames_THWC)
            return out

        return finish

    def _begin(self, frames_THWC: np.ndarray) -> list[Callable[[], Found]]:
        """Begins to work on frames, in as many pieces as memory needs."""
        count = len(frames_THWC)
        if self._most is None or count <= self._most:
            try:
                return [self._predict(frames_THWC)]
            except torch.OutOfMemoryError:
                pass  # handled outside: the error holds on to what takes the memory
            if count == 1:
                height, width = frames_THWC.shape[1:3]
                raise MaskcastError(
                    f"a frame of {height} x {width} does not fit into the memory of the GPU; use smaller frames"
                )
            self._most = count // 2
            self._recorded = None  # a graph has memory of its own
            torch.cuda.empty_cache()
            say(f"{count} frames at once do not fit into the memory of the GPU: going on with {self._most}")
        size = self._most
        return [one for k in range(0, count, size) for one in self._begin(frames_THWC[k : k + size])]

    def _predict(self, frames_THWC: np.ndarray) -> Callable[[], Found]:
        device, maps = self._device, self.segmenter.maps
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            frames = torch.from_numpy(frames_THWC)
            if device.type == "cuda":
                frames = frames.pin_memory()
            frames_BTHWC = frames.to(device, non_blocking=True)[None]
            if self._recorded is None:
                logits, self.state = self.segmenter(frames_BTHWC, self.state)
            else:
                logits, _ = self._recorded(frames_BTHWC)
            decoded = [_decoded(*each, self.regions) for each in zip(maps, logits, strict=True)]
            arrived = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

        def finish() -> Found:
            if arrived is not None:
                arrived.synchronize()
            return {label_map.name: one() for label_map, one in zip(maps, decoded, strict=True)}

        return finish


def _decoded(label_map: LabelMap, logits_BTKHW: Tensor, regions: bool) -> Callable[[], Masked]:
    """Begins to read what the logits of one clip say of a label map."""
    (logits_TKHW,) = logits_BTKHW
    if label_map.kind == "alpha":
        opacity_THW = _coming((logits_TKHW[:, 0].float().sigmoid() * 255).round().to(torch.uint8))
        return lambda: Masked(opacity_THW.numpy(), None)
    if has_kernels(logits_TKHW) and not regions and logits_TKHW.shape[1] <= 256:
        from maskcast.models.kernels.decoding import most_probable

        ids, sure = map(_coming, most_probable(logits_TKHW))
        return lambda: Masked(ids.numpy(), sure.numpy())
    # argmax over the innermost axis is four times as fast as over a strided one
    logits_THWK = logits_TKHW.permute(0, 2, 3, 1).contiguous().float()
    top_THW, ids_THW = logits_THWK.max(-1)
    confidence_THW = _coming((top_THW - logits_THWK.logsumexp(-1)).exp_())
    masks_THW = _coming(ids_THW.to(torch.uint8))
    if not regions:
        return lambda: Masked(masks_THW.numpy(), confidence_THW.numpy())
    counts_T = _coming(ids_THW.count_nonzero((1, 2)))
    probabilities_PK = _coming(logits_THWK[ids_THW > 0].softmax(-1))

    def with_regions() -> Masked:
        of_frames = np.split(probabilities_PK.numpy(), np.cumsum(counts_T.numpy())[:-1])
        masks = masks_THW.numpy()
        return Masked(masks, confidence_THW.numpy(), list(map(find_regions, masks, of_frames)))

    return with_regions


def _coming(x: Tensor) -> Tensor:
    """Returns a tensor on the host, which may not have arrived yet."""
    return x.to("cpu", non_blocking=True)
