"""The last mask moved on along the optical flow of the masks: for scenes that move as a whole, and what bends.

No object is told from another, and little is learned: how much of the flow lasts from frame to frame, which is
measured, and how far from its way a pixel strays. The farther, the more the classes around share its probability.

Shapes: B clips, T context frames, h horizon, N classes in the last mask, L levels, H height, W width, I rows and J
columns of the pixels that count.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.data.clips import Clip, ClipStore
from maskcast.distributed import all_sum
from maskcast.labels import IGNORE
from maskcast.models.bounds import check_time, check_whole
from maskcast.models.forecasting.base import Forecaster, known
from maskcast.models.forecasting.batches import Batch, splits_of, spread
from maskcast.models.objects.warp import as_bytes
from maskcast.progress import track
from maskcast.rehearsal import AllOf

PAIRS = 3  # of neighbouring frames, the last ones, whose flow is averaged: masks of a masker flicker
SHORT_SIDE = 216  # pixels: flow is found in masks that are at least so large, or small things are lost
LONG_SIDE = 2048  # pixels: masks are not made larger than that
PACES = (
    0.0,
    0.5,
    0.7,
    0.8,
    0.85,
    0.9,
    0.95,
    1.0,
)  # shares of the flow that may last to the next frame; 0: a copy
USUAL = 0.85  # where none was measured
MEASURED = 100  # clips at most, on which the best of them is found
LEVELS = 5  # of blur: cells of 1, 2, 4, 8 and 16 pixels
SHARP = 4.0  # logit of the level that is not blurred, before any training
SWIFT = 32.0  # a rate that suits a network moves these few numbers as far as they need
STEPS, STRIDE = 2, 2  # future frames of a clip that enter the loss, and every how many rows and columns of them
UNSEEN = 1e-3  # probability of a class that the last mask lacks
NUMBERS = 8  # of a pixel that are held besides classes and ways


class FlowForecaster(Forecaster):
    """Forecasts masks by the optical flow between the last ones.

    A pixel of the k-th future frame has the class of the place where ``x -> x + p^j v(x)``, j = 1 .. k, leads in
    the last mask. ``v`` is the flow from that mask back to the one before (Kroeger et al. 2016, arXiv 1603.03590),
    and ``p`` the pace: with 1 a scene moves on as it did, with 0 it rests.

    Args:
        num_classes: K, background included.
    """

    pace: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("pace", torch.tensor(USUAL))
        self.level_L = nn.Parameter(torch.tensor([SHARP / SWIFT] + [0.0] * (LEVELS - 1)))
        self.growth_L = nn.Parameter(torch.zeros(LEVELS))

    def reset_to_persistence(self) -> None:
        """Makes it forecast the last seen mask."""
        self.pace.zero_()

    def reset_to_constant_velocity(self) -> None:
        """Makes it forecast that the flow stays as it is."""
        self.pace.fill_(1)

    def prepare(self, store: ClipStore, clips: Sequence[Clip]) -> None:
        """Finds how much of the flow lasts: what forecasts the second halves of the clips best, by Jaccard."""
        counts = torch.zeros(len(PACES), self.num_classes, self.num_classes)
        for clip in track(spread(clips, MEASURED), "how long flow lasts", of=AllOf(MEASURED, splits_of(clips))):
            seen, coming = torch.from_numpy(store.masks(clip)).chunk(2)
            last_HW, flow_HW2 = known(seen)[-1], _flow_of(known(seen))
            labelled = coming != IGNORE
            for pace, counts_KK in zip(PACES, counts, strict=True):
                places = _places(flow_HW2, pace, len(coming), 1)
                found = torch.stack([_class_at(last_HW, place_HW2) for place_HW2 in places])
                pairs = coming[labelled].long() * self.num_classes + found[labelled]
                counts_KK += pairs.bincount(minlength=counts_KK.numel()).view_as(counts_KK)
        same = counts.diagonal(dim1=1, dim2=2)
        union = counts.sum(1) + counts.sum(2) - same
        there = counts.sum(2) > 0
        jaccard = (same / union.clamp(min=1)).where(there, 0).sum(1) / there.sum(1).clamp(min=1)
        self.pace.fill_(PACES[int(jaccard.argmax())])

    @torch.no_grad()
    def forecast(self, context_BTHW: Tensor, horizon: int) -> Tensor:
        """Returns the (B, horizon, H, W) uint8 masks after (B, T, H, W) uint8 ones; 255 counts as class 0."""
        return self.forecast_with_confidence(context_BTHW, horizon)[0]

    @torch.no_grad()
    def forecast_with_confidence(self, context_BTHW: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Returns masks, and the probability of each pixel's class, (B, horizon, H, W) uint8, 255 = 1."""
        masks = torch.empty(len(context_BTHW), horizon, *context_BTHW.shape[2:], dtype=torch.uint8)
        masks = masks.to(context_BTHW.device)
        confidence = torch.empty_like(masks)
        for n, clip_THW in enumerate(known(context_BTHW)):
            classes_N, levels = _levels(clip_THW[-1])
            for step, place_HW2 in enumerate(_places(_flow_of(clip_THW), float(self.pace), horizon, 1)):
                check_time()
                masks[n, step] = _class_at(clip_THW[-1], place_HW2)
                likely_HW = self._likely(levels, classes_N, place_HW2, step, masks[n, step])
                confidence[n, step] = as_bytes(likely_HW)
        return masks, confidence

    def loss(self, context: Batch, target: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the cross entropy of some pixels of some future frames, masks (B, T, H, W) and (B, h, H, W)."""
        assert isinstance(context, Tensor) and isinstance(target, Tensor)
        summed, count = torch.zeros(2, device=target.device)
        for clip_THW, target_hHW in zip(known(context), target, strict=True):
            classes_N, levels = _levels(clip_THW[-1])
            places = _places(_flow_of(clip_THW), float(self.pace), len(target_hHW), STRIDE)
            for step in torch.randperm(len(target_hHW))[:STEPS].tolist():
                wanted_IJ = target_hHW[step, ::STRIDE, ::STRIDE]
                likely_IJ = self._likely(levels, classes_N, places[step], step, wanted_IJ)
                counts_IJ = wanted_IJ != IGNORE
                summed = summed - likely_IJ.clamp(min=UNSEEN).log()[counts_IJ].sum()
                count = count + counts_IJ.sum()
        loss = all_sum(summed) / all_sum(count).clamp(min=1)
        return loss, {"cross_entropy": loss.detach()}

    def _likely(
        self, levels: list[Tensor], classes_N: Tensor, place_IJ2: Tensor, step: int, class_IJ: Tensor
    ) -> Tensor:
        """Returns how likely pixels that come from some places have some classes, (I, J)."""
        share_L = (SWIFT * (self.level_L + self.growth_L * math.log1p(step))).softmax(0)
        size, asked_NIJ = levels[0].shape[2:], class_IJ == classes_N[:, None, None]
        parts = [(_sampled(level, place_IJ2, size) * asked_NIJ).sum(0) for level in levels]
        return (share_L[:, None, None] * torch.stack(parts)).sum(0).clamp(0, 1)


def flow_back(masks_THW: np.ndarray) -> np.ndarray:
    """Returns where each pixel of the last mask was a frame before, (H, W, 2) float32, x and y in pixels.

    It is the mean of the flow between neighbours, each from the later to the earlier; 0 for a single mask.

    Args:
        masks_THW: uint8 class ids.
    """
    height, width = masks_THW.shape[1:]
    if len(masks_THW) < 2:
        return np.zeros((height, width, 2), np.float32)
    factor = max(1, min(-(-SHORT_SIDE // min(height, width)), LONG_SIDE // max(height, width)))
    classes = np.unique(masks_THW)
    grey = np.zeros(256, np.uint8)  # far apart, in no order
    grey[classes] = np.random.default_rng(0).permutation(np.linspace(0, 255, len(classes)).astype(np.uint8))
    size = (width * factor, height * factor)
    pictures = [cv2.resize(grey[mask_HW], size, interpolation=cv2.INTER_LINEAR) for mask_HW in masks_THW]
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows = [method.calc(later, earlier, None) for earlier, later in pairwise(pictures)]
    mean_HW2 = np.mean(flows, axis=0, dtype=np.float32)
    return cv2.resize(mean_HW2, (width, height), interpolation=cv2.INTER_AREA) / np.float32(factor)


def _flow_of(clip_THW: Tensor) -> Tensor:
    """Returns the flow at the last of some masks, found on the host, (H, W, 2)."""
    return torch.from_numpy(flow_back(clip_THW[-PAIRS - 1 :].cpu().numpy())).to(clip_THW.device)


def _levels(mask_HW: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Returns the classes of a mask (N,), and where they are, more and more blurred (1, N, ., .)."""
    height, width = mask_HW.shape
    classes_N = mask_HW.unique()
    check_whole(f"masks of {height} x {width}", height * width, 2 * len(classes_N) + NUMBERS)
    levels = [(mask_HW == classes_N[:, None, None])[None].float()]
    for _ in range(LEVELS - 1):
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False))
    return classes_N, levels


def _places(flow_HW2: Tensor, pace: float, horizon: int, stride: int) -> list[Tensor]:
    """Returns where the pixels of each future frame were in the last one, (I, J, 2) in pixels, x and y."""
    size = flow_HW2.shape[:2]
    y_I, x_J = (torch.arange(0, side, stride, device=flow_HW2.device) for side in size)
    place_IJ2 = torch.stack(torch.meshgrid(x_J, y_I, indexing="xy"), -1).to(flow_HW2.dtype)
    flow_12HW, places = flow_HW2.permute(2, 0, 1)[None], []
    for step in range(1, horizon + 1):
        place_IJ2 = place_IJ2 + pace**step * _sampled(flow_12HW, place_IJ2, size).permute(1, 2, 0)
        places.append(place_IJ2)
    return places


def _class_at(mask_HW: Tensor, place_IJ2: Tensor) -> Tensor:
    """Returns the classes of the pixels that are nearest to some places, (I, J) uint8."""
    return _sampled(mask_HW[None, None].float(), place_IJ2, mask_HW.shape, "nearest")[0].to(torch.uint8)


def _sampled(layer_1CHW: Tensor, place_IJ2: Tensor, size: Sequence[int], mode: str = "bilinear") -> Tensor:
    """Returns what a layer over the whole picture holds at places of it, (C, I, J); beyond its edge as there.

    Args:
        layer_1CHW: of any height and width.
        place_IJ2: x and y in pixels.
        size: height and width of the picture.
        mode: of PyTorch's `grid_sample`.
    """
    scale_2 = place_IJ2.new_tensor([2 / size[1], 2 / size[0]])
    grid_1IJ2 = ((place_IJ2 + 0.5) * scale_2 - 1)[None]
    return F.grid_sample(layer_1CHW, grid_1IJ2, mode, padding_mode="border", align_corners=False)[0]
