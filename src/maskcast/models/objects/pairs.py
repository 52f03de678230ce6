"""Pairs of objects: what one sees of another, and where and when they touch if both go straight on.

The last axis of tensors is of 1, of (y, x) or of features. Shapes: B clips, N objects, F features; ``...`` are
the axes of pairs, (P,) or (B, N, N), see ``Others``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from maskcast.models.arithmetic import shapes_are_fixed
from maskcast.models.objects.plane import turned

STD_UNIT = 20.0  # brings sizes of objects, about 0.05 picture heights, to about 1
SPEED_UNIT = 10.0  # the same for displacements per frame
FEATURE_LIMIT = 5.0  # features are clamped: one object that flies off must not drown the gradient of all others
STEEP = 0.3  # cosine at a contact below which it is taken for this: the gradient of the time is steep there
FEATURES, OF_CONTACTS = 8, 5


@dataclass(frozen=True)
class Others:
    """The others of its clip that every object sees.

    Their pairs are listed, (P,), so that nothing is computed for objects that are not there. On a GPU and in a
    traced graph no shape may depend on data: all with all are pairs there, (B, N, N), and some count nothing.
    """

    there_BNN: Tensor  # bool: object and other
    own_P: Tensor | None = None  # of all objects of all clips
    other_P: Tensor | None = None

    @staticmethod
    def of(exists_BN: Tensor) -> "Others":
        """Returns the pairs of the objects that exist."""
        objects = exists_BN.shape[1]
        there_BNN = exists_BN[:, :, None] & exists_BN[:, None]
        there_BNN = there_BNN & ~torch.eye(objects, dtype=torch.bool, device=exists_BN.device)
        if exists_BN.is_cuda or shapes_are_fixed():
            return Others(there_BNN)
        clip_P, own_P, other_P = there_BNN.nonzero(as_tuple=True)
        return Others(there_BNN, clip_P * objects + own_P, clip_P * objects + other_P)

    def own(self, x_BNF: Tensor) -> Tensor:
        """Returns (..., F) what is known of the object of each pair; it may have to be broadcast."""
        return x_BNF[:, :, None] if self.own_P is None else x_BNF.flatten(0, 1).index_select(0, self.own_P)

    def other(self, x_BNF: Tensor) -> Tensor:
        """Returns the same of the other."""
        return x_BNF[:, None] if self.other_P is None else x_BNF.flatten(0, 1).index_select(0, self.other_P)

    def summed(self, x: Tensor) -> Tensor:
        """Returns (B, N, F): the sum over the others of each object."""
        if self.own_P is None:
            return (x * self.there_BNN[..., None]).sum(2)
        shape = *self.there_BNN.shape[:2], x.shape[-1]
        return x.new_zeros(shape).flatten(0, 1).index_add(0, self.own_P, x).view(shape)


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
    """What every object sees of every other."""

    features: Tensor
    normal: Tensor  # from the other to oneself: at the contact, where there can be one
    contact: Contact | None


def see_pairs(
    others: Others, place_BN2: Tensor, velocity_BN2: Tensor, std_BN2: Tensor, radius_BN: Tensor | None
) -> Pairs:
    """Returns the pairs; contacts are sought where radii are known."""
    numbers_BN1 = [std_BN2.mean(-1, keepdim=True) * STD_UNIT]
    if radius_BN is not None:
        numbers_BN1.append(radius_BN[..., None])
    # looked up together: each operation on a few objects costs as much as on many
    state_BNF = torch.cat([place_BN2, velocity_BN2, *numbers_BN1], -1)
    own, other = others.own(state_BNF), others.other(state_BNF)
    line, relative = (own - other)[..., :4].split(2, dim=-1)  # from the other to oneself
    distance = line.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    normal = line / distance
    approach = (relative * normal).sum(-1, keepdim=True)
    pass_by = (relative * turned(normal)).sum(-1, keepdim=True)
    # when and how near two straight lines come within the next step
    when = -(relative * line).sum(-1, keepdim=True) / (relative**2).sum(-1, keepdim=True).clamp(min=1e-6)
    when = when.clamp(0.0, 1.5)
    nearest = (line + relative * when).norm(dim=-1, keepdim=True)
    speeds = torch.cat([approach, pass_by], -1) * SPEED_UNIT
    numbers = [distance * 4, 0.1 / distance, speeds, when, nearest * 10]
    contact: Contact | None = None
    if radius_BN is not None:
        contact = meet(line, relative, own[..., 5:] + other[..., 5:])
        speeds = torch.cat([contact.closing, contact.slip], -1) * SPEED_UNIT
        numbers += [contact.gap * 4, speeds, contact.time, contact.hits]
        normal = contact.normal
    sizes = torch.broadcast_tensors(own[..., 4:5], other[..., 4:5])
    return Pairs(torch.cat([clamped(torch.cat(numbers, -1)), *sizes], -1), normal, contact)


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
