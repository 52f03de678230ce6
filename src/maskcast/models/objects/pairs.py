"""Pairs of objects: what one sees of another, and where and when they touch if both go straight on.

The last axis of tensors is of 1, of (y, x) or of features. Shapes: B clips, N objects, F features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from maskcast.models.objects.plane import turned

STD_UNIT = 20.0  # brings sizes of objects, about 0.05 picture heights, to about 1
SPEED_UNIT = 10.0  # the same for displacements per frame
FEATURE_LIMIT = 5.0  # features are clamped: one object that flies off must not drown the gradient of all others
STEEP = 0.3  # cosine at a contact below which it is taken for this: the gradient of the time is steep there
FEATURES, OF_CONTACTS = 8, 5


@dataclass(frozen=True)
class Contact:
    """The contact of a pair in the next frame, or what comes nearest to one."""

    time: Tensor  # as a share of the frame
    normal: Tensor  # unit vector at that time, from the other to oneself
    gap: Tensor  # distance then, relative to that of a contact, less 1
    closing: Tensor  # speed along the normal; they approach where it is negative
    slip: Tensor  # speed across it
    hits: Tensor  # 1 where they touch, else 0


@dataclass(frozen=True)
class Pairs:
    """What every object (B, N, 1) sees of every other (B, 1, N)."""

    features_BNNF: Tensor
    normal_BNN2: Tensor  # from the other to oneself: at the contact, where there can be one
    contact: Contact | None


def see_pairs(place_BN2: Tensor, velocity_BN2: Tensor, std_BN2: Tensor, radius_BN: Tensor | None) -> Pairs:
    """Returns the pairs; contacts are sought where radii are known."""
    line = place_BN2[:, :, None] - place_BN2[:, None]  # from the other to oneself
    distance = line.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    normal = line / distance
    relative = velocity_BN2[:, :, None] - velocity_BN2[:, None]
    approach = (relative * normal).sum(-1, keepdim=True)
    pass_by = (relative * turned(normal)).sum(-1, keepdim=True)
    # when and how near two straight lines come within the next step
    when = -(relative * line).sum(-1, keepdim=True) / (relative**2).sum(-1, keepdim=True).clamp(min=1e-6)
    when = when.clamp(0.0, 1.5)
    nearest = (line + relative * when).norm(dim=-1, keepdim=True)
    size = std_BN2.mean(-1)[..., None].expand(line.shape[:3])
    speeds = torch.cat([approach, pass_by], -1) * SPEED_UNIT
    # clamped together: each operation on a few objects costs as much as on many
    numbers = [distance * 4, 0.1 / distance, speeds, when, nearest * 10]
    contact: Contact | None = None
    if radius_BN is not None:
        contact = meet(line, relative, (radius_BN[:, :, None] + radius_BN[:, None])[..., None])
        speeds = torch.cat([contact.closing, contact.slip], -1) * SPEED_UNIT
        numbers += [contact.gap * 4, speeds, contact.time, contact.hits]
        normal = contact.normal
    sizes = torch.stack([size, size.transpose(1, 2)], -1) * STD_UNIT
    return Pairs(torch.cat([clamped(torch.cat(numbers, -1)), sizes], -1), normal, contact)


def meet(line: Tensor, relative: Tensor, reach: Tensor) -> Contact:
    """Returns the contact of two discs.

    Args:
        line: from the other to oneself, now.
        relative: displacement in the next frame, of oneself against the other.
        reach: distance of the centres at a contact.
    """
    with torch.no_grad():  # the time has a steep gradient where discs only graze
        speed = relative.square().sum(-1, keepdim=True).clamp(min=1e-8)
        slope = (relative * line).sum(-1, keepdim=True)
        inside = slope**2 - speed * (line.square().sum(-1, keepdim=True) - reach**2)
        time = (-slope - inside.clamp(min=0).sqrt()) / speed
        hits = ((inside > 0) & (time < 1) & (slope < 0)).to(line.dtype)
        steep = reach / torch.maximum(inside, STEEP**2 * speed * reach**2).sqrt() * hits * (time > 0)
        time = time.clamp(0, 1)
    time = time - steep * (reach - reach.detach())  # larger things meet earlier
    there = line + relative * time
    distance = there.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    normal = there / distance
    closing, slip = ((relative * axis).sum(-1, keepdim=True) for axis in (normal, turned(normal)))
    return Contact(time, normal, distance / reach.clamp(min=1e-3) - 1, closing, slip, hits)


def clamped(feature: Tensor) -> Tensor:
    """Returns features within their limit."""
    return feature.clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
