"""Places and boxes of a batch of images: which belong together, which are drawn, how one lies beside the other.

What is not there is masked: no shape depends on data.

Legend: B images, N places (anchors or proposals), M boxes (padded), R places drawn. Boxes are (x1, y1, x2, y2).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.models.bounds import parts_of

COPIES = 8  # of the overlap of a box and a place, while it comes to be
BETA = 1 / 9  # of smooth L1, torchvision's


class Drawn(NamedTuple):
    """Some of the candidates of each image: positive ones first."""

    index_BR: Tensor
    taken_BR: Tensor
    positive_BR: Tensor


def rows(x_BNC: Tensor, index_BR: Tensor) -> Tensor:
    """Returns the rows (B, R, C) of an index."""
    return x_BNC.gather(1, index_BR[..., None].expand(-1, -1, x_BNC.shape[-1]))


def matched(places: Tensor, boxes_BM4: Tensor, labels_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns of each place its highest overlap with a box, which one, and whether it is the nearest of one.

    Args:
        places: (B, N, 4) or (N, 4).
        boxes_BM4: of which there may be none in an image; the highest overlap is then -1.
        labels_BM: negative where there is no box.
    """
    batch, most, _ = boxes_BM4.shape
    places = places.expand(batch, -1, 4)
    parts = parts_of(batch, COPIES * most * places.shape[1])
    found = [_matched_some(places[part], boxes_BM4[part], labels_BM[part]) for part in parts]
    best_BN, match_BN, nearest_BN = (torch.cat(each) for each in zip(*found, strict=True))
    return best_BN, match_BN, nearest_BN


def _matched_some(places_BN4: Tensor, boxes_BM4: Tensor, labels_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what ``matched`` does of some images."""
    places, boxes = places_BN4[:, None], boxes_BM4[:, :, None]
    both = torch.minimum(places[..., 2:], boxes[..., 2:]) - torch.maximum(places[..., :2], boxes[..., :2])
    both_BMN = both.clamp(min=0).prod(-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(-1) for each in (places, boxes)]
    there_BM1 = (labels_BM >= 0)[..., None]
    overlap_BMN = (both_BMN / (areas[0] + areas[1] - both_BMN)).masked_fill(~there_BM1, -1)
    best_BN, match_BN = overlap_BMN.max(1)
    nearest_BN = ((overlap_BMN == overlap_BMN.amax(2, keepdim=True)) & there_BM1).any(1)
    return best_BN, match_BN, nearest_BN


def draw(positive_BN: Tensor, negative_BN: Tensor, sampler: Any) -> Drawn:
    """Draws candidates of each image as torchvision's sampler does: at most a share of them positive."""
    key_BN, count = torch.rand(positive_BN.shape, device=positive_BN.device), sampler.batch_size_per_image
    size = positive_BN.shape[1]
    first_BR, some_BR = key_BN.masked_fill(~positive_BN, -1).topk(
        min(size, int(count * sampler.positive_fraction)), 1
    )
    others_BR, more_BR = key_BN.masked_fill(~negative_BN, -1).topk(min(size, count), 1)
    positive_BR = first_BR >= 0
    room_B1 = count - positive_BR.sum(1, keepdim=True)
    taken_BR = (others_BR >= 0) & (torch.arange(others_BR.shape[1], device=key_BN.device) < room_B1)
    return Drawn(
        torch.cat([some_BR, more_BR], 1),
        torch.cat([positive_BR, taken_BR], 1),
        torch.cat([positive_BR, torch.zeros_like(taken_BR)], 1),
    )


def packed(drawn: Drawn, sampler: Any) -> Drawn:
    """Returns the drawn ones, as many of each image: where fewer are taken, these again, which do not count.

    So a norm of the box head sees no box that is none.
    """
    order_BR = drawn.taken_BR.int().argsort(dim=1, descending=True, stable=True)
    order_BR = order_BR[:, : sampler.batch_size_per_image]
    taken_B1 = drawn.taken_BR.sum(1, keepdim=True)
    place_R = torch.arange(order_BR.shape[1], device=order_BR.device)
    order_BR = order_BR.gather(1, place_R % taken_B1.clamp(min=1))
    first_BR = place_R < taken_B1
    return Drawn(drawn.index_BR.gather(1, order_BR), first_BR, drawn.positive_BR.gather(1, order_BR) & first_BR)


def decoded(delta: Tensor, places: Tensor, coder: Any) -> Tensor:
    """Returns the boxes that lie so beside places; torchvision's coder sends numbers to the device."""
    across, down, wide, high = (
        each / weight for each, weight in zip(delta.unbind(-1), coder.weights, strict=True)
    )
    size = places[..., 2:] - places[..., :2]
    centre = torch.stack([across, down], -1) * size + places[..., :2] + 0.5 * size
    half = 0.5 * torch.stack([wide, high], -1).clamp(max=coder.bbox_xform_clip).exp() * size
    return torch.cat([centre - half, centre + half], -1)


def encoded(target: Tensor, places: Tensor, positive: Tensor, weights: Sequence[float]) -> Tensor:
    """Returns how boxes lie beside places, as torchvision's coder writes it; 0 where there is none."""
    target = torch.where(positive[..., None], target, places)
    size, wanted = places[..., 2:] - places[..., :2], target[..., 2:] - target[..., :2]
    size, wanted = (each.masked_fill(~positive[..., None], 1) for each in (size, wanted))
    shift = (target[..., :2] + 0.5 * wanted - places[..., :2] - 0.5 * size) / size
    parts = [*shift.unbind(-1), *(wanted / size).log().unbind(-1)]
    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)], -1)


def smooth(own: Tensor, target: Tensor, positive: Tensor) -> Tensor:
    """Returns the sum of the smooth L1 of the positive ones."""
    loss = F.smooth_l1_loss(own, target, beta=BETA, reduction="none").sum(-1)
    return loss.masked_fill(~positive, 0).sum()
