"""The losses of Faster R-CNN for a batch at once, by shapes that do not depend on data.

Torchvision goes from image to image, and the host waits for what each one keeps: five thousand operations a step
and two hundred such waits. Here what is not there is masked, so that a GPU never waits and a step can be recorded
(``training.recording``). What is drawn differs; all else is the same up to rounding.

Legend: B images, A anchors, P proposals, M boxes (padded), R boxes drawn for the second stage, K classes. Boxes
are (x1, y1, x2, y2) in pixels.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.models.bounds import AT_ONCE

COPIES = 8  # of the overlap of a box and a place, while it comes to be
BETA = 1 / 9  # of smooth L1, torchvision's
MULTIPLE = 32  # of the sides of a batch


class Drawn(NamedTuple):
    """Some of the candidates of each image: positive ones first."""

    index_BR: Tensor
    taken_BR: Tensor
    positive_BR: Tensor


class BatchedLosses:
    """Computes the losses of one of torchvision's networks.

    Args:
        network: in training mode when it is called.
    """

    def __init__(self, network: Any) -> None:
        self.network = network

    def __call__(
        self, images: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Returns the four losses.

        Args:
            images: normalised float32 (C, H, W) each.
            boxes: float32 (N, 4) each.
            labels: int64 (N,) each, 0..K-1; rows of a negative one are no boxes.
        """
        rpn, heads = self.network.rpn, self.network.roi_heads
        most = max(1, *map(len, labels))
        boxes_BM4 = torch.stack([F.pad(each, (0, 0, 0, most - len(each))) for each in boxes])
        labels_BM = torch.stack([F.pad(each, (0, most - len(each)), value=-1) for each in labels])
        x_BCHW = _together(images)
        maps = self.network.backbone(x_BCHW)
        objectness, deltas = rpn.head(list(maps.values()))
        score = [each.permute(0, 2, 3, 1).flatten(1) for each in objectness]
        delta = [each.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for each in deltas]
        limit_B4, *anchors = self._places(images, x_BCHW, list(maps.values()))
        with torch.no_grad():
            proposals_BP4, valid_BP = self._proposals(score, delta, anchors, limit_B4)
            proposals_BP4 = torch.cat([proposals_BP4, boxes_BM4], 1)
            valid_BP = torch.cat([valid_BP, labels_BM >= 0], 1)
            best_BP, match_BP, _ = _matched(proposals_BP4, boxes_BM4, labels_BM)
            positive_BP = valid_BP & (best_BP >= heads.proposal_matcher.high_threshold)
            negative_BP = valid_BP & (best_BP < heads.proposal_matcher.low_threshold)
            drawn = _packed(_drawn(positive_BP, negative_BP, heads.fg_bg_sampler), heads.fg_bg_sampler)
            rois_BR4 = _rows(proposals_BP4, drawn.index_BR)
            match_BR = match_BP.gather(1, drawn.index_BR)
            class_BR = (labels_BM.gather(1, match_BR) + 1).masked_fill(~drawn.positive_BR, 0)
            target_BR4 = _encoded(_rows(boxes_BM4, match_BR), rois_BR4, drawn.positive_BR, heads.box_coder.weights)
        found = self._first_stage(
            torch.cat(score, 1), torch.cat(delta, 1), torch.cat(anchors), boxes_BM4, labels_BM
        )
        pooled = self._pooled(maps, rois_BR4, x_BCHW.shape[2:])
        logits, regression = heads.box_predictor(heads.box_head(pooled))
        taken, classes = drawn.taken_BR.flatten(), class_BR.flatten()
        count = taken.sum().clamp(min=1)
        loss = F.cross_entropy(logits, classes, reduction="none")
        found["loss_classifier"] = loss.masked_fill(~taken, 0).sum() / count
        own = regression.unflatten(1, (-1, 4)).gather(1, classes[:, None, None].expand(-1, 1, 4))[:, 0]
        found["loss_box_reg"] = _smooth(own, target_BR4.flatten(0, 1), drawn.positive_BR.flatten()) / count
        return found

    def _places(self, images: Sequence[Tensor], x_BCHW: Tensor, features: list[Tensor]) -> list[Tensor]:
        """Returns the limits (B, 4) of each image's boxes, and the anchors (A, 4) of each level."""
        from torchvision.models.detection.image_list import ImageList

        sizes = [tuple(image.shape[1:]) for image in images]
        generator = self.network.rpn.anchor_generator
        anchors_A4 = generator(ImageList(x_BCHW[:1], sizes[:1]), features)[0]
        each = generator.num_anchors_per_location()
        counts = [n * feature[0, 0].numel() for n, feature in zip(each, features, strict=True)]
        # numbers that are filled in, not sent, as for a recorded step they must be
        limits = [torch.full((1,), float(side), device=x_BCHW.device) for size in sizes for side in size[::-1]]
        return [torch.cat(limits).view(-1, 2).repeat(1, 2), *anchors_A4.split(counts)]

    def _proposals(
        self, score: list[Tensor], delta: list[Tensor], anchors: list[Tensor], limit_B4: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns proposals (B, P, 4), best first, and which of them there are."""
        rpn, found = self.network.rpn, []
        for score_BA, delta_BA4, anchors_A4 in zip(score, delta, anchors, strict=True):
            top_BN, index_BN = score_BA.topk(min(rpn.pre_nms_top_n(), score_BA.shape[1]), 1)
            boxes = _decoded(_rows(delta_BA4, index_BN), anchors_A4[index_BN], rpn.box_coder)
            boxes = torch.minimum(boxes.clamp(min=0), limit_B4[:, None])
            large = ((boxes[..., 2:] - boxes[..., :2]) >= rpn.min_size).all(-1)
            keep = kept(boxes, large & (top_BN.sigmoid() >= rpn.score_thresh), rpn.nms_thresh)
            found.append((boxes, top_BN.masked_fill(~keep, float("-inf"))))
        boxes_BN4, top_BN = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        best_BP, index_BP = top_BN.topk(min(rpn.post_nms_top_n(), top_BN.shape[1]), 1)
        return _rows(boxes_BN4, index_BP), best_BP > float("-inf")

    def _first_stage(
        self, score_BA: Tensor, delta_BA4: Tensor, anchors_A4: Tensor, boxes_BM4: Tensor, labels_BM: Tensor
    ) -> dict[str, Tensor]:
        """Returns the losses of the proposals."""
        rpn = self.network.rpn
        with torch.no_grad():
            best_BA, match_BA, nearest_BA = _matched(anchors_A4, boxes_BM4, labels_BM)
            positive_BA = (best_BA >= rpn.proposal_matcher.high_threshold) | nearest_BA
            negative_BA = (best_BA < rpn.proposal_matcher.low_threshold) & ~positive_BA
            index, taken, positive = _drawn(positive_BA, negative_BA, rpn.fg_bg_sampler)
            match_BR = match_BA.gather(1, index)
            target = _encoded(_rows(boxes_BM4, match_BR), anchors_A4[index], positive, rpn.box_coder.weights)
        count = taken.sum().clamp(min=1)
        own = score_BA.gather(1, index)
        loss = F.binary_cross_entropy_with_logits(own, positive.to(own.dtype), reduction="none")
        boxes = _smooth(_rows(delta_BA4, index), target, positive) / count
        return {"loss_objectness": loss.masked_fill(~taken, 0).sum() / count, "loss_rpn_box_reg": boxes}

    def _pooled(self, maps: dict[str, Tensor], rois_BR4: Tensor, size: Sequence[int]) -> Tensor:
        """Returns the features (B R, C, 7, 7) of boxes, each of the level that fits its size.

        All levels lie in one map, one below the other, their last row and column twice more: torchvision repeats
        the edge of a level, too.
        """
        from torchvision.ops import roi_align

        pool = self.network.roi_heads.box_roi_pool
        levels = [maps[name] for name in pool.featmap_names]
        finest = round(math.log2(size[0] / levels[0].shape[2]))
        width = levels[0].shape[3] + 2
        wide = [torch.cat([x, x[..., -1:].expand(*x.shape[:3], width - x.shape[3])], 3) for x in levels]
        canvas = torch.cat([torch.cat([x, x[:, :, -1:], x[:, :, -1:]], 2) for x in wide], 2)
        side_BR = (rois_BR4[..., 2:] - rois_BR4[..., :2]).prod(-1).sqrt()
        level_BR = torch.floor(pool.canonical_level + torch.log2(side_BR / pool.canonical_scale) + 1e-6)
        level_BR = level_BR.clamp(finest, finest + len(levels) - 1)
        scaled_BR4 = rois_BR4 * torch.exp2(-level_BR)[..., None]
        for number, x in enumerate(levels[:-1]):
            scaled_BR4[..., 1::2] += ((level_BR > finest + number) * (x.shape[2] + 2.0))[..., None]
        image = torch.arange(len(rois_BR4), device=canvas.device).repeat_interleave(rois_BR4.shape[1])
        boxes_N5 = torch.cat([image[:, None].to(scaled_BR4.dtype), scaled_BR4.flatten(0, 1)], 1)
        out: Tensor = roi_align(canvas, boxes_N5, pool.output_size, 1.0, pool.sampling_ratio)
        return out


def kept(boxes_BN4: Tensor, valid_BN: Tensor, threshold: float) -> Tensor:
    """Returns which boxes non-maximum suppression keeps."""
    from maskcast.models.kernels import suppression

    return suppression.kept(boxes_BN4, valid_BN, threshold)


def _together(images: Sequence[Tensor]) -> Tensor:
    """Returns images (B, C, H, W) with zeros below and right, up to multiples of ``MULTIPLE``."""
    height, width = (-(-max(image.shape[axis] for image in images) // MULTIPLE) * MULTIPLE for axis in (1, 2))
    return torch.stack([F.pad(x, (0, width - x.shape[2], 0, height - x.shape[1])) for x in images])


def _rows(x_BNC: Tensor, index_BR: Tensor) -> Tensor:
    return x_BNC.gather(1, index_BR[..., None].expand(-1, -1, x_BNC.shape[-1]))


def _matched(places: Tensor, boxes_BM4: Tensor, labels_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns of each place its highest overlap with a box, which one, and whether it is the nearest of one.

    Args:
        places: (B, N, 4) or (N, 4).
        boxes_BM4: of which there may be none in an image; the highest overlap is then -1.
        labels_BM: negative where there is no box.
    """
    batch, most, _ = boxes_BM4.shape
    places = places.expand(batch, -1, 4)
    some = max(1, AT_ONCE // (COPIES * most * places.shape[1]))
    parts = [slice(first, first + some) for first in range(0, batch, some)]
    found = [_matched_some(places[part], boxes_BM4[part], labels_BM[part]) for part in parts]
    best_BN, match_BN, nearest_BN = (torch.cat(each) for each in zip(*found, strict=True))
    return best_BN, match_BN, nearest_BN


def _matched_some(places_BN4: Tensor, boxes_BM4: Tensor, labels_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what ``_matched`` does of some images."""
    places, boxes = places_BN4[:, None], boxes_BM4[:, :, None]
    both = torch.minimum(places[..., 2:], boxes[..., 2:]) - torch.maximum(places[..., :2], boxes[..., :2])
    both_BMN = both.clamp(min=0).prod(-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(-1) for each in (places, boxes)]
    there_BM1 = (labels_BM >= 0)[..., None]
    overlap_BMN = (both_BMN / (areas[0] + areas[1] - both_BMN)).masked_fill(~there_BM1, -1)
    best_BN, match_BN = overlap_BMN.max(1)
    nearest_BN = ((overlap_BMN == overlap_BMN.amax(2, keepdim=True)) & there_BM1).any(1)
    return best_BN, match_BN, nearest_BN


def _drawn(positive_BN: Tensor, negative_BN: Tensor, sampler: Any) -> Drawn:
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


def _packed(drawn: Drawn, sampler: Any) -> Drawn:
    """Returns the drawn ones, as many of each image: where fewer are taken, these again, which do not count.

    So a norm of the box head sees no box that is none.
    """
    order_BR = drawn.taken_BR.int().argsort(dim=1, descending=True, stable=True)
    order_BR = order_BR[:, : sampler.batch_size_per_image]
    taken_B1, place_R = (
        drawn.taken_BR.sum(1, keepdim=True),
        torch.arange(order_BR.shape[1], device=order_BR.device),
    )
    order_BR = order_BR.gather(1, place_R % taken_B1.clamp(min=1))
    first_BR = place_R < taken_B1
    return Drawn(drawn.index_BR.gather(1, order_BR), first_BR, drawn.positive_BR.gather(1, order_BR) & first_BR)


def _decoded(delta: Tensor, places: Tensor, coder: Any) -> Tensor:
    """Returns the boxes that lie so beside places; torchvision's coder sends numbers to the device."""
    across, down, wide, high = (
        each / weight for each, weight in zip(delta.unbind(-1), coder.weights, strict=True)
    )
    size = places[..., 2:] - places[..., :2]
    centre = torch.stack([across, down], -1) * size + places[..., :2] + 0.5 * size
    half = 0.5 * torch.stack([wide, high], -1).clamp(max=coder.bbox_xform_clip).exp() * size
    return torch.cat([centre - half, centre + half], -1)


def _encoded(target: Tensor, places: Tensor, positive: Tensor, weights: Sequence[float]) -> Tensor:
    """Returns how boxes lie beside places, as torchvision's coder writes it; 0 where there is none."""
    target = torch.where(positive[..., None], target, places)
    size, wanted = places[..., 2:] - places[..., :2], target[..., 2:] - target[..., :2]
    size, wanted = (each.masked_fill(~positive[..., None], 1) for each in (size, wanted))
    shift = (target[..., :2] + 0.5 * wanted - places[..., :2] - 0.5 * size) / size
    parts = [*shift.unbind(-1), *(wanted / size).log().unbind(-1)]
    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)], -1)


def _smooth(own: Tensor, target: Tensor, positive: Tensor) -> Tensor:
    """Returns the sum of the smooth L1 of the positive ones."""
    loss = F.smooth_l1_loss(own, target, beta=BETA, reduction="none").sum(-1)
    return loss.masked_fill(~positive, 0).sum()
