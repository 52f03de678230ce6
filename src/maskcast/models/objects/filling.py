"""Fills in the hidden part of a completed object's mask.

Objects are assumed to be convex and point-symmetric about their centre. So the filled mask is the convex hull of
the visible part and its point reflection through the completed centre. It is connected, however little is visible.

Shapes: B clips, R recent frames, N objects, K ids, H height, W width, M margin around the picture in pixels, P
ends of rows of the visible part, D directions.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.models.objects.tracks import LastObservation
from maskcast.models.objects.warp import seen_masks

MARGIN = 0.25  # margin around the image in which objects are filled, in picture heights
DIRECTIONS = 16  # directions in which the extent of an object is measured
ROUNDING = 0.01  # pixels
FAR = 1e6  # pixels or picture heights


def filled_masks(recent_BRHW: Tensor, object_BN: Tensor, seen: LastObservation) -> Tensor:
    """Returns (B, N, H + 2M, W + 2M) bool: every object where it was seen last, with its hidden parts.

    Hidden parts may lie beyond the border and behind nearer objects, which are those lower in the image.

    Args:
        recent_BRHW: ids of objects.
        object_BN: ids of objects, 0 as padding.
        seen: their completed last observations; M is its ``margin``.
    """
    height, width = recent_BRHW.shape[2:]
    padding = [seen.margin] * 4
    mask = F.pad(seen_masks(recent_BRHW, object_BN, seen).to(torch.uint8), padding) > 0
    nearness_BN = seen.centre_BN2[..., 0]
    nearness_BK = nearness_BN.new_full((nearness_BN.shape[0], 256), FAR).scatter(1, object_BN, nearness_BN)
    nearness_BK = F.pad(nearness_BK[:, 1:], (1, 0), value=-FAR)  # background hides nothing
    nearness_BRHW = nearness_BK.gather(1, recent_BRHW.flatten(1).long()).view(recent_BRHW.shape)
    frame = seen.frame_BN[..., None, None].expand(-1, -1, height, width)
    hidden = F.pad(nearness_BRHW.gather(1, frame), padding, value=FAR) > nearness_BN[..., None, None]
    y_BNH, x_BNW = (
        torch.arange(-seen.margin, side + seen.margin, device=mask.device)
        - (seen.centre_BN2[..., axis, None] * height + (side - 1) / 2)
        for axis, side in enumerate((height, width))
    )
    assert seen.doubt_BN2 is not None
    cut_BN = (seen.doubt_BN2 > 0).any(-1) & (object_BN > 0)
    return mask | (symmetric_hull(mask, y_BNH, x_BNW) & hidden & cut_BN[..., None, None])


def symmetric_hull(mask_BNHW: Tensor, y_BNH: Tensor, x_BNW: Tensor) -> Tensor:
    """Returns (B, N, H, W) bool: the convex hull of masks and their point reflections through a centre.

    Args:
        mask_BNHW: bool.
        y_BNH: rows, measured from the centre in pixels.
        x_BNW: columns, likewise.
    """
    x_BN1W = x_BNW[:, :, None]
    left_BNH, right_BNH = (side * torch.where(mask_BNHW, side * x_BN1W, -FAR).amax(-1) for side in (-1, 1))
    ends_BNP = torch.cat([left_BNH, right_BNH], -1)
    angles = [math.pi * (k / DIRECTIONS - 0.5) for k in range(1, DIRECTIONS + 1)]
    sin_D, cos_D = (y_BNH.new_tensor([function(angle) for angle in angles]) for function in (math.sin, math.cos))
    extent_BNPD = (y_BNH.repeat(1, 1, 2)[..., None] * sin_D + ends_BNP[..., None] * cos_D).abs()
    is_end_BNP1 = ends_BNP.abs()[..., None] < FAR
    extent_BN1D = torch.where(is_end_BNP1, extent_BNPD, -FAR).amax(2, keepdim=True) + ROUNDING
    # part of each row within all half-planes; the last direction is straight down, where the cosine is about 0
    y_BNHD = y_BNH[..., None] * sin_D
    first_BNH, last_BNH = ((-extent_BN1D - y_BNHD) / cos_D).amax(-1), ((extent_BN1D - y_BNHD) / cos_D).amin(-1)
    return (x_BN1W >= first_BNH[..., None]) & (x_BN1W <= last_BNH[..., None])
