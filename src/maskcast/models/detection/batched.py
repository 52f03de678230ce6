"""The losses of Faster R-CNN for a whole batch, with shapes that do not depend on data.

Torchvision loops over images, and the host waits for the number of boxes of each: five thousand operations and two
hundred such waits per step. Here missing boxes are masked instead, so that the host never waits and a step can be
recorded (``models.cuda_graphs``). Other samples are drawn than by torchvision; apart from that, results are equal
up to rounding.

Legend: B images, A anchors, P proposals, M boxes (padded), R boxes drawn for the second stage, K classes. Boxes
are (x1, y1, x2, y2) in pixels.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.models.detection.matching import (
    decode_boxes,
    draw_samples,
    encode_boxes,
    match_boxes,
    pad_samples,
    smooth_l1,
    take_rows,
)

MULTIPLE = 32  # height and width of a batch are padded to multiples of it


class BatchedLosses:
    """Computes the losses of one of torchvision's networks.

    Args:
        network: must be in training mode during a call.
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
            labels: int64 (N,) each, 0..K-1; rows with a negative label are padding.
        """
        rpn, heads = self.network.rpn, self.network.roi_heads
        max_boxes = max(1, *map(len, labels))
        boxes_BM4 = torch.stack([F.pad(each, (0, 0, 0, max_boxes - len(each))) for each in boxes])
        labels_BM = torch.stack([F.pad(each, (0, max_boxes - len(each)), value=-1) for each in labels])
        x_BCHW = _pad_and_stack(images)
        maps = self.network.backbone(x_BCHW)
        objectness, deltas = rpn.head(list(maps.values()))
        score = [each.permute(0, 2, 3, 1).flatten(1) for each in objectness]
        delta = [each.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for each in deltas]
        limit_B4, *anchors = self._limits_and_anchors(images, x_BCHW, list(maps.values()))
        with torch.no_grad():
            proposals_BP4, valid_BP = self._proposals(score, delta, anchors, limit_B4)
            proposals_BP4 = torch.cat([proposals_BP4, boxes_BM4], 1)
            valid_BP = torch.cat([valid_BP, labels_BM >= 0], 1)
            best_BP, match_BP, _ = match_boxes(proposals_BP4, boxes_BM4, labels_BM)
            positive_BP = valid_BP & (best_BP >= heads.proposal_matcher.high_threshold)
            negative_BP = valid_BP & (best_BP < heads.proposal_matcher.low_threshold)
            samples = pad_samples(draw_samples(positive_BP, negative_BP, heads.fg_bg_sampler), heads.fg_bg_sampler)
            rois_BR4 = take_rows(proposals_BP4, samples.index_BR)
            match_BR = match_BP.gather(1, samples.index_BR)
            class_BR = (labels_BM.gather(1, match_BR) + 1).masked_fill(~samples.positive_BR, 0)
            target_BR4 = encode_boxes(
                take_rows(boxes_BM4, match_BR), rois_BR4, samples.positive_BR, heads.box_coder.weights
            )
        losses = self._proposal_losses(
            torch.cat(score, 1), torch.cat(delta, 1), torch.cat(anchors), boxes_BM4, labels_BM
        )
        pooled = self._roi_features(maps, rois_BR4, x_BCHW.shape[2:])
        logits, regression = heads.box_predictor(heads.box_head(pooled))
        is_sample, classes = samples.is_sample_BR.flatten(), class_BR.flatten()
        count = is_sample.sum().clamp(min=1)
        loss = F.cross_entropy(logits, classes, reduction="none")
        losses["loss_classifier"] = loss.masked_fill(~is_sample, 0).sum() / count
        predicted = regression.unflatten(1, (-1, 4)).gather(1, classes[:, None, None].expand(-1, 1, 4))[:, 0]
        losses["loss_box_reg"] = (
            smooth_l1(predicted, target_BR4.flatten(0, 1), samples.positive_BR.flatten()) / count
        )
        return losses

    def _limits_and_anchors(
        self, images: Sequence[Tensor], x_BCHW: Tensor, features: list[Tensor]
    ) -> list[Tensor]:
        """Returns the limits (B, 4) for boxes in each image, and the anchors (A, 4) of each level."""
        from torchvision.models.detection.image_list import ImageList

        sizes = [tuple(image.shape[1:]) for image in images]
        generator = self.network.rpn.anchor_generator
        anchors_A4 = generator(ImageList(x_BCHW[:1], sizes[:1]), features)[0]
        each = generator.num_anchors_per_location()
        counts = [n * feature[0, 0].numel() for n, feature in zip(each, features, strict=True)]
        # filled on the device: a recorded step must not copy from the host
        limits = [torch.full((1,), float(side), device=x_BCHW.device) for size in sizes for side in size[::-1]]
        return [torch.cat(limits).view(-1, 2).repeat(1, 2), *anchors_A4.split(counts)]

    def _proposals(
        self, score: list[Tensor], delta: list[Tensor], anchors: list[Tensor], limit_B4: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns proposals (B, P, 4), best first, and which of them are valid (B, P)."""
        from maskcast.models.kernels.suppression import keep_by_nms

        rpn, levels = self.network.rpn, []
        for score_BA, delta_BA4, anchors_A4 in zip(score, delta, anchors, strict=True):
            top_BN, index_BN = score_BA.topk(min(rpn.pre_nms_top_n(), score_BA.shape[1]), 1)
            boxes = decode_boxes(take_rows(delta_BA4, index_BN), anchors_A4[index_BN], rpn.box_coder)
            boxes = torch.minimum(boxes.clamp(min=0), limit_B4[:, None])
            large = ((boxes[..., 2:] - boxes[..., :2]) >= rpn.min_size).all(-1)
            keep = keep_by_nms(boxes, large & (top_BN.sigmoid() >= rpn.score_thresh), rpn.nms_thresh)
            levels.append((boxes, top_BN.masked_fill(~keep, float("-inf"))))
        boxes_BN4, top_BN = (torch.cat(parts, 1) for parts in zip(*levels, strict=True))
        best_BP, index_BP = top_BN.topk(min(rpn.post_nms_top_n(), top_BN.shape[1]), 1)
        return take_rows(boxes_BN4, index_BP), best_BP > float("-inf")

    def _proposal_losses(
        self, score_BA: Tensor, delta_BA4: Tensor, anchors_A4: Tensor, boxes_BM4: Tensor, labels_BM: Tensor
    ) -> dict[str, Tensor]:
        """Returns the losses of the proposal network."""
        rpn = self.network.rpn
        with torch.no_grad():
            best_BA, match_BA, nearest_BA = match_boxes(anchors_A4, boxes_BM4, labels_BM)
            positive_BA = (best_BA >= rpn.proposal_matcher.high_threshold) | nearest_BA
            negative_BA = (best_BA < rpn.proposal_matcher.low_threshold) & ~positive_BA
            index, is_sample, positive = draw_samples(positive_BA, negative_BA, rpn.fg_bg_sampler)
            match_BR = match_BA.gather(1, index)
            target = encode_boxes(
                take_rows(boxes_BM4, match_BR), anchors_A4[index], positive, rpn.box_coder.weights
            )
        count = is_sample.sum().clamp(min=1)
        predicted = score_BA.gather(1, index)
        loss = F.binary_cross_entropy_with_logits(predicted, positive.to(predicted.dtype), reduction="none")
        boxes = smooth_l1(take_rows(delta_BA4, index), target, positive) / count
        return {"loss_objectness": loss.masked_fill(~is_sample, 0).sum() / count, "loss_rpn_box_reg": boxes}

    def _roi_features(self, maps: dict[str, Tensor], rois_BR4: Tensor, size: Sequence[int]) -> Tensor:
        """Returns the features (B R, C, 7, 7) of boxes, each from the level for its size.

        All levels are stacked vertically in one map. The last row and column of each are repeated twice, because
        torchvision also repeats the edge of a level.
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
        return roi_align(canvas, boxes_N5, pool.output_size, 1.0, pool.sampling_ratio)


def _pad_and_stack(images: Sequence[Tensor]) -> Tensor:
    """Returns images as a batch (B, C, H, W), padded with zeros below and right to multiples of ``MULTIPLE``."""
    height, width = (-(-max(image.shape[axis] for image in images) // MULTIPLE) * MULTIPLE for axis in (1, 2))
    return torch.stack([F.pad(x, (0, width - x.shape[2], 0, height - x.shape[1])) for x in images])
