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

COPIES = 8  # temporary tensors of the size of the overlaps
BETA = 1 / 9  # of the smooth L1 loss, as in torchvision


class Samples(NamedTuple):
    """A sample of the candidates of each image, positive ones first."""

    index_BR: Tensor
    taken_BR: Tensor
    positive_BR: Tensor


def rows(x_BNC: Tensor, index_BR: Tensor) -> Tensor:
    """Returns the rows (B, R, C) at the indices (B, R)."""
    return x_BNC.gather(1, index_BR[..., None].expand(-1, -1, x_BNC.shape[-1]))


def matched(places: Tensor, boxes_BM4: Tensor, labels_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns each place's highest overlap (IoU), the box of it, and whether the place is the best for some box.

    Args:
        places: (B, N, 4) or (N, 4).
        boxes_BM4: an image may have none; the highest overlap is then -1.
        labels_BM: negative in padding.
    """
    batch, most, _ = boxes_BM4.shape
    places = places.expand(batch, -1, 4)
    parts = chunk_slices(batch, COPIES * most * places.shape[1])
    found = [_matched_some(places[part], boxes_BM4[part], labels_BM[part]) for part in parts]
    best_BN, match_BN, nearest_BN = (torch.cat(each) for each in zip(*found, strict=True))
    return best_BN, match_BN, nearest_BN


def _matched_some(places_BN4: Tensor, boxes_BM4: Tensor, labels_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the result of ``matched`` for a part of the images."""
    places, boxes = places_BN4[:, None], boxes_BM4[:, :, None]
    both = torch.minimum(places[..., 2:], boxes[..., 2:]) - torch.maximum(places[..., :2], boxes[..., :2])
    both_BMN = both.clamp(min=0).prod(-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(-1) for each in (places, boxes)]
    there_BM1 = (labels_BM >= 0)[..., None]
    overlap_BMN = (both_BMN / (areas[0] + areas[1] - both_BMN)).masked_fill(~there_BM1, -1)
    best_BN, match_BN = overlap_BMN.max(1)
    nearest_BN = ((overlap_BMN == overlap_BMN.amax(2, keepdim=True)) & there_BM1).any(1)
    return best_BN, match_BN, nearest_BN


def draw_samples(positive_BN: Tensor, negative_BN: Tensor, sampler: Any) -> Samples:
    """Samples candidates of each image as torchvision's sampler does, at most a given share of them positive."""
    key_BN, count = torch.rand(positive_BN.shape, device=positive_BN.device), sampler.batch_size_per_image
    size = positive_BN.shape[1]
    first_BR, some_BR = key_BN.masked_fill(~positive_BN, -1).topk(
        min(size, int(count * sampler.positive_fraction)), 1
    )
    others_BR, more_BR = key_BN.masked_fill(~negative_BN, -1).topk(min(size, count), 1)
    positive_BR = first_BR >= 0
    room_B1 = count - positive_BR.sum(1, keepdim=True)
    taken_BR = (others_BR >= 0) & (torch.arange(others_BR.shape[1], device=key_BN.device) < room_B1)
    return Samples(
        torch.cat([some_BR, more_BR], 1),
        torch.cat([positive_BR, taken_BR], 1),
        torch.cat([positive_BR, torch.zeros_like(taken_BR)], 1),
    )


def packed(drawn: Samples, sampler: Any) -> Samples:
    """Pads the sample of each image to the same number by repeating candidates, which do not count.

    Padding with real boxes keeps the statistics of norms in the box head right.
    """
    order_BR = drawn.taken_BR.int().argsort(dim=1, descending=True, stable=True)
    order_BR = order_BR[:, : sampler.batch_size_per_image]
    taken_B1 = drawn.taken_BR.sum(1, keepdim=True)
    place_R = torch.arange(order_BR.shape[1], device=order_BR.device)
    order_BR = order_BR.gather(1, place_R % taken_B1.clamp(min=1))
    first_BR = place_R < taken_B1
    return Samples(drawn.index_BR.gather(1, order_BR), first_BR, drawn.positive_BR.gather(1, order_BR) & first_BR)


def decoded(delta: Tensor, places: Tensor, coder: Any) -> Tensor:
    """Decodes offsets relative to places to boxes; torchvision's own coder copies numbers from the host."""
    across, down, wide, high = (
        each / weight for each, weight in zip(delta.unbind(-1), coder.weights, strict=True)
    )
    size = places[..., 2:] - places[..., :2]
    centre = torch.stack([across, down], -1) * size + places[..., :2] + 0.5 * size
    half = 0.5 * torch.stack([wide, high], -1).clamp(max=coder.bbox_xform_clip).exp() * size
    return torch.cat([centre - half, centre + half], -1)


def encoded(target: Tensor, places: Tensor, positive: Tensor, weights: Sequence[float]) -> Tensor:
    """Encodes boxes as offsets relative to places, as torchvision's coder does; 0 where there is no box."""
    target = torch.where(positive[..., None], target, places)
    size, wanted = places[..., 2:] - places[..., :2], target[..., 2:] - target[..., :2]
    size, wanted = (each.masked_fill(~positive[..., None], 1) for each in (size, wanted))
    shift = (target[..., :2] + 0.5 * wanted - places[..., :2] - 0.5 * size) / size
    parts = [*shift.unbind(-1), *(wanted / size).log().unbind(-1)]
    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)], -1)


def smooth(own: Tensor, target: Tensor, positive: Tensor) -> Tensor:
    """Returns the summed smooth L1 loss of the positive places."""
    loss = F.smooth_l1_loss(own, target, beta=BETA, reduction="none").sum(-1)
    return loss.masked_fill(~positive, 0).sum()
