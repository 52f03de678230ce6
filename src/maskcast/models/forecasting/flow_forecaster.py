"""Forecasts by moving the last mask along the optical flow of the masks.

It suits scenes that move as a whole and objects that deform. Objects are not told apart, and little is learned:
how much of the flow persists from frame to frame, which is measured, and the uncertainty of a pixel's position.
The greater that is, the more probability goes to the classes around.

Shapes: B clips, T context frames, h horizon, N classes in the last mask, L levels, H height, W width, I rows and J
columns of the pixels that count.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import count, pairwise

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.data.clip_store.frame_index import spread
from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.data.optical_flow import OpticalFlow, upscale_factor
from maskcast.distributed import all_sum, rank_indices, world_size
from maskcast.dry_run_notes import FullLoop
from maskcast.labels import IGNORE
from maskcast.models.forecasting.base import Forecaster, known
from maskcast.models.forecasting.batches import Batch, splits_of
from maskcast.models.forecasting.pixels import labelled_first
from maskcast.models.limits import check_size, check_time
from maskcast.models.objects.warp import as_bytes
from maskcast.progress import track

PAIRS = 3  # last pairs of frames whose flow is averaged, as generated masks flicker
# candidates for the share of the flow that persists per frame; 0 copies the mask
PACE_CANDIDATES = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
DEFAULT_PACE = 0.85  # the share before it is measured
MAX_CLIPS, MAX_FUTURE_FRAMES = 100, 64  # most clips, and most future frames of each, for choosing the share
LEVELS = 5  # levels of blur: cells of 1, 2, 4, 8 and 16 pixels
INITIAL_SHARPNESS = 4.0  # initial logit of the level without blur
PARAMETER_SCALE = 32.0  # scales the few parameters, so that a network's usual learning rate suits them
STEPS, STRIDE = 2, 2  # future frames of a clip in the loss, and the stride of their rows and columns
MIN_PROBABILITY = 1e-3  # probability of a class that the last mask lacks
EXTRA_NUMBERS = 24  # numbers in memory per pixel besides those of each class


class FlowForecaster(Forecaster):
    """Forecasts masks by the optical flow between the last ones.

    A pixel x of the k-th future frame takes the class at the place in the last mask that is reached by applying
    ``x -> x + p^j v(x)`` for j = 1 .. k. ``v`` is the flow from the last mask back to the one before (Kroeger et
    al. 2016, arXiv 1603.03590). ``p`` is the share of the flow that persists: with 1 the motion goes on, with 0
    the scene rests.

    ``v`` is known on the grid of the last mask. So a pixel that an object will only reach has the flow of what is
    there now, and what moves fast into rest loses its leading edge: of a square of 40x40 pixels that moves by 8 a
    frame, 680 of 1600 pixels are left after 8 frames, with an IoU of 0.16 (``p`` = 1; constant velocity has 1.0).

    Args:
        num_classes: K, background included.
    """

    learns_masks = False
    pace: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("pace", torch.tensor(DEFAULT_PACE))
        self.level_L = nn.Parameter(torch.tensor([INITIAL_SHARPNESS / PARAMETER_SCALE] + [0.0] * (LEVELS - 1)))
        self.growth_L = nn.Parameter(torch.zeros(LEVELS))

    def reset_to_persistence(self) -> None:
        """Resets it to forecasting the last mask."""
        self.pace.zero_()

    def reset_to_constant_velocity(self) -> None:
        """Resets it to constant flow."""
        self.pace.fill_(1)

    def prepare(self, store: ClipStore, clips: Sequence[Clip]) -> None:
        """Chooses the share of the flow that persists by the Jaccard on the second halves of the clips."""
        # flow needs two frames, and one more is the target
        usable = [clip for clip in clips if clip.num_frames > 2]
        counts = torch.zeros(len(PACE_CANDIDATES), self.num_classes, self.num_classes, dtype=torch.long)
        for clip in track(
            spread(usable, MAX_CLIPS, ends=False), "how long flow lasts", of=FullLoop(MAX_CLIPS, splits_of(usable))
        ):
            middle = -(-clip.num_frames // 2)
            first = max(0, middle - PAIRS - 1)
            masks_THW = torch.from_numpy(store.masks(clip, slice(first, middle + MAX_FUTURE_FRAMES)))
            context_THW = known(masks_THW[: middle - first])
            flow_HW2 = _flow_of(context_THW)
            for pace, counts_KK in zip(PACE_CANDIDATES, counts, strict=True):
                places = _places(flow_HW2, pace, 1)
                for target_HW, place_HW2 in zip(masks_THW[middle - first :], places, strict=False):
                    labelled = target_HW != IGNORE
                    predicted = _class_at(context_THW[-1], place_HW2)[labelled]
                    pairs = target_HW[labelled].long() * self.num_classes + predicted
                    counts_KK += pairs.bincount(minlength=counts_KK.numel()).view_as(counts_KK)
        if not counts.any():
            return
        same = counts.diagonal(dim1=1, dim2=2)
        union = counts.sum(1) + counts.sum(2) - same
        occurs = counts.sum(2) > 0
        jaccard = (same / union.clamp(min=1)).where(occurs, 0).sum(1) / occurs.sum(1).clamp(min=1)
        self.pace.fill_(PACE_CANDIDATES[int(jaccard.argmax())])

    def forecast(self, context_BTHW: Tensor, horizon: int) -> Tensor:
        """Returns the (B, horizon, H, W) uint8 masks after (B, T, H, W) uint8 ones; 255 counts as class 0."""
        return self.forecast_with_confidence(context_BTHW, horizon)[0]

    def forecast_with_confidence(self, context_BTHW: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Returns masks, and the probability of each pixel's class, (B, horizon, H, W) uint8, 255 = 1."""
        if torch.compiler.is_compiling():
            reason = "OpenCV finds the flow, so only the masker can be exported: give its folder for the version"
            raise NotImplementedError(reason)
        masks = torch.empty(len(context_BTHW), horizon, *context_BTHW.shape[2:], dtype=torch.uint8)
        masks = masks.to(context_BTHW.device)
        confidence = torch.empty_like(masks)
        for n, clip_THW in enumerate(known(context_BTHW)):
            classes_N, levels = _levels(clip_THW[-1])
            places = _places(_flow_of(clip_THW), float(self.pace), 1)
            for step, place_HW2 in zip(range(horizon), places, strict=False):
                check_time()
                masks[n, step] = _class_at(clip_THW[-1], place_HW2)
                likely_HW = self._probability(levels, classes_N, place_HW2, step, masks[n, step])
                confidence[n, step] = as_bytes(likely_HW)
        return masks, confidence

    def loss(self, context: Batch, target: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the cross entropy on a sample of future pixels, of masks (B, T, H, W) and (B, h, H, W)."""
        assert isinstance(context, Tensor) and isinstance(target, Tensor)
        summed, counted = torch.zeros(2, device=target.device)
        whole, horizon = len(target) * world_size(), target.shape[1]
        drawn_Bh = torch.stack([torch.randperm(horizon) for _ in range(whole)])[rank_indices(whole)]
        for clip_THW, target_hHW, drawn_h in zip(known(context), target, drawn_Bh, strict=True):
            classes_N, levels = _levels(clip_THW[-1])
            labelled_h = (target_hHW.flatten(1).amin(1) < IGNORE).cpu()
            places = _places(_flow_of(clip_THW), float(self.pace), STRIDE)
            drawn = labelled_first(drawn_h, labelled_h)[:STEPS].tolist()
            for step, place_IJ2 in zip(range(max(drawn) + 1), places, strict=False):
                if step not in drawn:
                    continue
                target_IJ = target_hHW[step, ::STRIDE, ::STRIDE]
                likely_IJ = self._probability(levels, classes_N, place_IJ2, step, target_IJ)
                counts_IJ = target_IJ != IGNORE
                summed = summed - likely_IJ.clamp(min=MIN_PROBABILITY).log()[counts_IJ].sum()
                counted = counted + counts_IJ.sum()
        loss = all_sum(summed) / all_sum(counted).clamp(min=1)
        return loss, {"cross_entropy": loss.detach()}

    def _probability(
        self, levels: list[Tensor], classes_N: Tensor, place_IJ2: Tensor, step: int, class_IJ: Tensor
    ) -> Tensor:
        """Returns the probability of the given classes for pixels that come from the given places, (I, J)."""
        share_L = (PARAMETER_SCALE * (self.level_L + self.growth_L * math.log1p(step))).softmax(0)
        slot_IJ = torch.searchsorted(classes_N, class_IJ.contiguous()).clamp(max=len(classes_N) - 1)
        # classes are the layers of a volume, so that one sample per pixel gives the class asked for
        depth_IJ = (slot_IJ + 0.5) * (2 / len(classes_N)) - 1
        grid_IJ3 = torch.cat([_grid(place_IJ2, levels[0].shape[3:]), depth_IJ[..., None]], -1)
        parts_LIJ = torch.cat([_at(level, grid_IJ3[None], "bilinear")[0] for level in levels])
        likely_IJ = (share_L[:, None, None] * parts_LIJ).sum(0).clamp(0, 1)
        return likely_IJ.where(classes_N[slot_IJ] == class_IJ, 0)


def flow_back(masks_THW: np.ndarray) -> np.ndarray:
    """Returns the flow of the last mask back to the frame before, (H, W, 2) float32, x and y in pixels.

    It is the mean flow over the last pairs of frames, each from the later to the earlier. It is 0 for a single
    mask and for masks that are too narrow.

    Args:
        masks_THW: uint8 class ids.
    """
    height, width = masks_THW.shape[1:]
    if len(masks_THW) < 2:
        return np.zeros((height, width, 2), np.float32)
    factor = upscale_factor(height, width)
    size = (width * factor, height * factor)
    classes = np.unique(masks_THW)
    grey = np.zeros(256, np.uint8)  # grey values of classes, far apart and unordered
    grey[classes] = np.random.default_rng(0).permutation(np.linspace(0, 255, len(classes)).astype(np.uint8))
    pictures = [cv2.resize(grey[mask_HW], size, interpolation=cv2.INTER_LINEAR) for mask_HW in masks_THW]
    flow = OpticalFlow()
    flows = [flow.between(later, earlier) for earlier, later in pairwise(pictures)]
    mean_HW2 = np.mean(flows, axis=0, dtype=np.float32)
    return cv2.resize(mean_HW2, (width, height), interpolation=cv2.INTER_AREA) / np.float32(factor)


def _flow_of(clip_THW: Tensor) -> Tensor:
    """Returns the flow at the last mask, computed on the host, (H, W, 2)."""
    return torch.from_numpy(flow_back(clip_THW[-PAIRS - 1 :].cpu().numpy())).to(clip_THW.device)


def _levels(mask_HW: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Returns the classes of a mask (N,), and their layers at increasing levels of blur, (1, 1, N, ., .) each."""
    height, width = mask_HW.shape
    classes_N = mask_HW.unique()
    check_size(f"masks of {height} x {width}", height * width, 2 * len(classes_N) + EXTRA_NUMBERS)
    levels = [(mask_HW == classes_N[:, None, None])[None].float()]
    for _ in range(LEVELS - 1):
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False))
    return classes_N, [level[None] for level in levels]


def _places(flow_HW2: Tensor, pace: float, stride: int) -> Iterator[Tensor]:
    """Yields, without end, the places in the last mask of each future frame's pixels, (I, J, 2), x and y."""
    size = flow_HW2.shape[:2]
    y_I, x_J = (torch.arange(0, side, stride, device=flow_HW2.device) for side in size)
    place_IJ2 = torch.stack(torch.meshgrid(x_J, y_I, indexing="xy"), -1).to(flow_HW2.dtype)
    flow_12HW = flow_HW2.permute(2, 0, 1)[None]
    for step in count(1):
        place_IJ2 = place_IJ2 + pace**step * _at(flow_12HW, _grid(place_IJ2, size), "bilinear").permute(1, 2, 0)
        yield place_IJ2


def _class_at(mask_HW: Tensor, place_IJ2: Tensor) -> Tensor:
    """Returns the classes of the nearest pixels to the given places, (I, J) uint8."""
    return _at(mask_HW[None, None].float(), _grid(place_IJ2, mask_HW.shape), "nearest")[0].to(torch.uint8)


def _grid(place_IJ2: Tensor, size: Sequence[int]) -> Tensor:
    """Converts places in pixels to the coordinates of `grid_sample`; ``size`` is height and width."""
    return (place_IJ2 + 0.5) * place_IJ2.new_tensor([2 / size[1], 2 / size[0]]) - 1


def _at(layer: Tensor, grid: Tensor, mode: str) -> Tensor:
    """Samples a layer (1, C, ...) at the places of ``grid``, (C, ...); beyond the edge it repeats the edge."""
    return F.grid_sample(layer, grid[None], mode, padding_mode="border", align_corners=False)[0]
