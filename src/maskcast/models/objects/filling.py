"""What a completed object looks like where nothing shows it: there is only a part of it to copy.

Objects are about alike on both sides of their centre. So a part that the border or another object hides is taken
for the mirror image, through the completed centre, of the part on the other side.

Shapes: B clips, R recent frames, N objects, H height, W width, M margin around the picture in pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.models.objects.tracks import LastObservation
from maskcast.models.objects.warp import seen_masks

MARGIN = 0.25  # picture heights beyond the border in which objects are filled


def filled_masks(recent_BRHW: Tensor, object_BN: Tensor, seen: LastObservation) -> Tensor:
    """Returns (B, N, H + 2M, W + 2M) bool: every object where it was seen last, with what is hidden of it.

    Args:
        recent_BRHW: ids of objects.
        object_BN: ids, 0 as padding.
        seen: where they were seen last, completed; M is its ``margin``.
    """
    height, width = recent_BRHW.shape[2:]
    around = [seen.margin] * 4
    mask = F.pad(seen_masks(recent_BRHW, object_BN, seen).to(torch.uint8), around)
    frame = seen.frame_BN[..., None, None].expand(-1, -1, height, width)
    ids = F.pad(recent_BRHW.gather(1, frame), around, value=255)  # beyond the border anything may be
    hidden = (ids > 0) & (ids != object_BN[..., None, None])
    across = mask
    for axis, side in ((2, height), (3, width)):
        centre_BN = seen.centre_BN2[..., axis - 2] * height + (side - 1) / 2 + seen.margin
        pixels = torch.arange(side + 2 * seen.margin, device=mask.device)
        there = (2 * centre_BN[..., None] - pixels).round().long()
        inside = (there >= 0) & (there < len(pixels))
        shape = [*mask.shape[:2], 1, 1]
        shape[axis] = len(pixels)
        index = there.clamp(0, len(pixels) - 1).view(shape)
        across = across.gather(axis, index.expand_as(across)) * inside.view(shape)
    assert seen.doubt_BN2 is not None
    cut_BN = (seen.doubt_BN2 > 0).any(-1) & (object_BN > 0)
    return (mask > 0) | ((across > 0) & hidden & cut_BN[..., None, None])
