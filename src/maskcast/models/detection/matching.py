"""Matches places (anchors or proposals) with boxes, samples them, and encodes boxes relative to them.

Missing boxes are masked, so that no shape depends on data.

Legend: B images, N places, M boxes (padded), R sampled places. Boxes are (x1, y1, x2, y2).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.models.limits import chunk_slices

TEMPORARY_TENSORS = 8  # temporary tensors of the size of the overlaps
BETA = 1 / 9  # of the smooth L1 loss, as in torchvision


class Samples(NamedTuple):
    """A sample of the candidates of each image, positive ones first."""

    index_BR: Tensor
    is_sample_BR: Tensor
    positive_BR: Tensor


def take_rows(x_BNC: Tensor, index_BR: Tensor) -> Tensor:
    """Returns the rows (B, R, C) at the indices (B, R)."""
    return x_BNC.gather(1, index_BR[..., None].expand(-1, -1, x_BNC.shape[-1]))


def match_boxes(places: Tensor, boxes_BM4: Tensor, labels_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns each place's highest overlap (IoU), the box of it, and whether the place is the best for some box.

    Args:
        places: (B, N, 4) or (N, 4).
        boxes_BM4: an image may have none; the highest overlap is then -1.
        labels_BM: negative in padding.
    """
    batch, max_boxes, _ = boxes_BM4.shape
    places = places.expand(batch, -1, 4)
    parts = chunk_slices(batch, TEMPORARY_TENSORS * max_boxes * places.shape[1])
    matches = [_match_chunk(places[part], boxes_BM4[part], labels_BM[part]) for part in parts]
    best_BN, match_BN, nearest_BN = (torch.cat(each) for each in zip(*matches, strict=True))
    return best_BN, match_BN, nearest_BN


def _match_chunk(places_BN4: Tensor, boxes_BM4: Tensor, labels_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the result of ``match_boxes`` for a part of the images."""
    places, boxes = places_BN4[:, None], boxes_BM4[:, :, None]
    intersection = torch.minimum(places[..., 2:], boxes[..., 2:]) - torch.maximum(places[..., :2], boxes[..., :2])
    intersection_BMN = intersection.clamp(min=0).prod(-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(-1) for each in (places, boxes)]
    is_box_BM1 = (labels_BM >= 0)[..., None]
    overlap_BMN = (intersection_BMN / (areas[0] + areas[1] - intersection_BMN)).masked_fill(~is_box_BM1, -1)
    best_BN, match_BN = overlap_BMN.max(1)
    nearest_BN = ((overlap_BMN == overlap_BMN.amax(2, keepdim=True)) & is_box_BM1).any(1)
    return best_BN, match_BN, nearest_BN


def draw_samples(positive_BN: Tensor, negative_BN: Tensor, sampler: Any) -> Samples:
    """Samples candidates of each image as torchvision's sampler does, at most a given share of them positive."""
    key_BN, count = torch.rand(positive_BN.shape, device=positive_BN.device), sampler.batch_size_per_image
    size = positive_BN.shape[1]
    key_positive_BR, positive_index_BR = key_BN.masked_fill(~positive_BN, -1).topk(
        min(size, int(count * sampler.positive_fraction)), 1
    )
    key_negative_BR, negative_index_BR = key_BN.masked_fill(~negative_BN, -1).topk(min(size, count), 1)
    positive_BR = key_positive_BR >= 0
    remaining_B1 = count - positive_BR.sum(1, keepdim=True)
    is_sample_BR = (key_negative_BR >= 0) & (
        torch.arange(key_negative_BR.shape[1], device=key_BN.device) < remaining_B1
    )
    return Samples(
        torch.cat([positive_index_BR, negative_index_BR], 1),
        torch.cat([positive_BR, is_sample_BR], 1),
        torch.cat([positive_BR, torch.zeros_like(is_sample_BR)], 1),
    )


def pad_samples(samples: Samples, sampler: Any) -> Samples:
    """Pads the sample of each image to the same number by repeating candidates, which do not count.

    Padding with real boxes keeps the statistics of norms in the box head right.
    """
    order_BR = samples.is_sample_BR.int().argsort(dim=1, descending=True, stable=True)
    order_BR = order_BR[:, : sampler.batch_size_per_image]
    count_B1 = samples.is_sample_BR.sum(1, keepdim=True)
    slot_R = torch.arange(order_BR.shape[1], device=order_BR.device)
    order_BR = order_BR.gather(1, slot_R % count_B1.clamp(min=1))
    is_first_BR = slot_R < count_B1
    return Samples(
        samples.index_BR.gather(1, order_BR), is_first_BR, samples.positive_BR.gather(1, order_BR) & is_first_BR
    )


def decode_boxes(delta: Tensor, places: Tensor, coder: Any) -> Tensor:
    """Decodes offsets relative to places to boxes; torchvision's own coder copies numbers from the host."""
    across, down, wide, high = (
        each / weight for each, weight in zip(delta.unbind(-1), coder.weights, strict=True)
    )
    size = places[..., 2:] - places[..., :2]
    centre = torch.stack([across, down], -1) * size + places[..., :2] + 0.5 * size
    half = 0.5 * torch.stack([wide, high], -1).clamp(max=coder.bbox_xform_clip).exp() * size
    return torch.cat([centre - half, centre + half], -1)


def encode_boxes(target: Tensor, places: Tensor, positive: Tensor, weights: Sequence[float]) -> Tensor:
    """Encodes boxes as offsets relative to places, as torchvision's coder does; 0 where there is no box."""
    target = torch.where(positive[..., None], target, places)
    size, target_size = places[..., 2:] - places[..., :2], target[..., 2:] - target[..., :2]
    size, target_size = (each.masked_fill(~positive[..., None], 1) for each in (size, target_size))
    shift = (target[..., :2] + 0.5 * target_size - places[..., :2] - 0.5 * size) / size
    parts = [*shift.unbind(-1), *(target_size / size).log().unbind(-1)]
    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)], -1)


def smooth_l1(predicted: Tensor, target: Tensor, positive: Tensor) -> Tensor:
    """Returns the summed smooth L1 loss of the positive places."""
    loss = F.smooth_l1_loss(predicted, target, beta=BETA, reduction="none").sum(-1)
    return loss.masked_fill(~positive, 0).sum()
