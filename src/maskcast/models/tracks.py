"""Where the objects of a clip are: class ids to trajectories, without a one-hot tensor.

Lengths are in units of the picture's height and positions are measured from its centre, (y, x), so that nothing
depends on the resolution. Shapes: B clips, T frames, K classes, N slots (the objects of a clip, padded), H height,
W width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tracks:
    """What is seen of every object; rows of frames in which it is not visible are 0."""

    visible_BTN: Tensor  # bool
    centre_BTN2: Tensor  # centroid, (y, x)
    spread_BTN2: Tensor  # standard deviation of its pixels, (y, x)
    cut_BTN: Tensor  # bool: it touches the border, so that centre and spread are those of a part

    def pick(self, clips: slice) -> "Tracks":
        """Returns the tracks of some clips."""
        return Tracks(
            self.visible_BTN[clips], self.centre_BTN2[clips], self.spread_BTN2[clips], self.cut_BTN[clips]
        )


def find_objects(last_BHW: Tensor, num_classes: int) -> Tensor:
    """Returns (B, N) long class ids visible in the (B, H, W) masks, ascending, 0 (background) as padding; N >= 1.

    Ids from ``num_classes`` up, such as the ignore value, are no objects.
    """
    batch = len(last_BHW)
    ids = last_BHW.flatten(1).long().clamp(max=num_classes)
    seen_BK = ids.new_zeros(batch, num_classes + 1).scatter_(1, ids, 1)[:, 1:num_classes]
    slots = max(1, int(seen_BK.sum(1).max()))
    order_BK = torch.argsort(seen_BK, dim=1, descending=True, stable=True)[:, :slots]
    return (order_BK + 1) * seen_BK.gather(1, order_BK)


def track(ids_BTHW: Tensor, object_BN: Tensor, num_classes: int) -> Tracks:
    """Returns the tracks of the objects ``object_BN`` (class ids, 0 = none) in (B, T, H, W) uint8 masks."""
    batch, frames, height, width = ids_BTHW.shape
    slots = object_BN.shape[1]
    # slot of every class id per clip; the last slot collects what is no object
    table_BK = object_BN.new_full((batch, 256), slots)
    table_BK.scatter_(1, object_BN, torch.arange(slots, device=object_BN.device).expand(batch, -1))
    table_BK[:, 0] = slots
    # only the few pixels that are not background are touched in the 64-bit arithmetic
    where = ids_BTHW.flatten().nonzero().flatten()
    frame = where // (height * width)
    pixel = where % (height * width)
    y, x = (pixel // width).float(), (pixel % width).float()
    clip_id = ids_BTHW.flatten()[where].long() + frame // frames * 256
    cell = frame * (slots + 1) + table_BK.flatten()[clip_id]
    border = ((y == 0) | (y == height - 1) | (x == 0) | (x == width - 1)).float()
    y, x = (y - (height - 1) / 2) / height, (x - (width - 1) / 2) / height
    values = torch.stack([torch.ones_like(y), y, x, y * y, x * x, border], dim=1)
    sums = values.new_zeros(batch * frames * (slots + 1), 6).index_add_(0, cell, values)
    sums = sums.view(batch, frames, slots + 1, 6)[:, :, :slots]
    count = sums[..., 0]
    mean = sums[..., 1:5] / count.clamp(min=1)[..., None]
    centre, square = mean.split(2, dim=-1)
    spread = (square - centre**2).clamp(min=(0.25 / height) ** 2).sqrt()
    visible = count > 0
    return Tracks(visible, centre, spread * visible[..., None], sums[..., 5] > 0)
