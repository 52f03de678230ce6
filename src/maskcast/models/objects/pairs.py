"""Features of pairs of objects, including where and when they would touch on straight paths.

The last axis of tensors is of length 1, (y, x) or features.

Shapes: B clips, N objects, F features; ``...`` are the axes of pairs, (P,) or (B, N, N), see ``PairIndex``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from maskcast.models.arithmetic import shapes_are_fixed
from maskcast.models.objects.plane import perpendicular

STD_UNIT = 20.0  # scales sizes of objects, about 0.05 picture heights, to about 1
SPEED_UNIT = 10.0  # scales displacements per frame likewise
FEATURE_LIMIT = 5.0  # features are clamped, so that one diverging object does not dominate all gradients
# least cosine at a contact in the gradient of its time, which is steep for grazing contacts
MIN_CONTACT_COSINE = 0.3
FEATURES, OF_CONTACTS = 8, 5


@dataclass(frozen=True)
class PairIndex:
    """The pairs of objects in the same clip.

    On a CPU the pairs are listed, (P,), so that nothing is computed for missing objects. On a GPU and in a traced
    graph no shape may depend on data, so all pairs (B, N, N) are computed, and those with missing objects are
    masked.
    """

    valid_BNN: Tensor  # bool: both objects of the pair exist
    own_P: Tensor | None = None  # flat index among the objects of all clips
    other_P: Tensor | None = None

    @staticmethod
    def of(exists_BN: Tensor) -> "PairIndex":
        """Returns the pairs of existing objects."""
        objects = exists_BN.shape[1]
        valid_BNN = exists_BN[:, :, None] & exists_BN[:, None]
        valid_BNN = valid_BNN & ~torch.eye(objects, dtype=torch.bool, device=exists_BN.device)
        if exists_BN.is_cuda or shapes_are_fixed():
            return PairIndex(valid_BNN)
        clip_P, own_P, other_P = valid_BNN.nonzero(as_tuple=True)
        return PairIndex(valid_BNN, clip_P * objects + own_P, clip_P * objects + other_P)

    def own(self, x_BNF: Tensor) -> Tensor:
        """Returns the features of the first object of each pair, (..., F), which may need broadcasting."""
        return x_BNF[:, :, None] if self.own_P is None else x_BNF.flatten(0, 1).index_select(0, self.own_P)

    def other(self, x_BNF: Tensor) -> Tensor:
        """Returns the features of the other object of each pair."""
        return x_BNF[:, None] if self.other_P is None else x_BNF.flatten(0, 1).index_select(0, self.other_P)

    def summed(self, x: Tensor) -> Tensor:
        """Sums over the other objects of each object, to (B, N, F)."""
        if self.own_P is None:
            return (x * self.valid_BNN[..., None]).sum(2)
        shape = *self.valid_BNN.shape[:2], x.shape[-1]
        return x.new_zeros(shape).flatten(0, 1).index_add(0, self.own_P, x).view(shape)


@dataclass(frozen=True)
class Contact:
    """The contact of a pair in the next frame, or else their closest approach."""

    time: Tensor  # as a fraction of the frame
    normal: Tensor  # unit vector at that time, from the other to the object
    gap: Tensor  # distance relative to that of a contact, minus 1
    normal_speed: Tensor  # speed along the normal; negative if they approach
    tangential_speed: Tensor  # speed across it
    touches: Tensor  # 1 if they touch, else 0


@dataclass(frozen=True)
class Pairs:
    """The features of all pairs."""

    features: Tensor
    normal: Tensor  # from the other to the object; at the contact, if contacts are computed
    contact: Contact | None


def pair_features(
    index: PairIndex, place_BN2: Tensor, velocity_BN2: Tensor, std_BN2: Tensor, radius_BN: Tensor | None
) -> Pairs:
    """Returns the features of all pairs, with contacts if radii are given."""
    shape_BN1 = [std_BN2.mean(-1, keepdim=True) * STD_UNIT]
    if radius_BN is not None:
        shape_BN1.append(radius_BN[..., None])
    # one lookup for all, because the cost of an operation hardly depends on the number of objects
    state_BNF = torch.cat([place_BN2, velocity_BN2, *shape_BN1], -1)
    own, other = index.own(state_BNF), index.other(state_BNF)
    offset, velocity = (own - other)[..., :4].split(2, dim=-1)  # from the other to the object
    distance = offset.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    normal = offset / distance
    radial = (velocity * normal).sum(-1, keepdim=True)
    tangential = (velocity * perpendicular(normal)).sum(-1, keepdim=True)
    # time and distance of the closest approach within the next step
    time = -(velocity * offset).sum(-1, keepdim=True) / (velocity**2).sum(-1, keepdim=True).clamp(min=1e-6)
    time = time.clamp(0.0, 1.5)
    closest = (offset + velocity * time).norm(dim=-1, keepdim=True)
    speeds = torch.cat([radial, tangential], -1) * SPEED_UNIT
    features = [distance * 4, 0.1 / distance, speeds, time, closest * 10]
    contact: Contact | None = None
    if radius_BN is not None:
        contact = find_contact(offset, velocity, own[..., 5:] + other[..., 5:])
        speeds = torch.cat([contact.normal_speed, contact.tangential_speed], -1) * SPEED_UNIT
        features += [contact.gap * 4, speeds, contact.time, contact.touches]
        normal = contact.normal
    sizes = torch.broadcast_tensors(own[..., 4:5], other[..., 4:5])
    return Pairs(torch.cat([clamped(torch.cat(features, -1)), *sizes], -1), normal, contact)


def find_contact(offset: Tensor, velocity: Tensor, reach: Tensor) -> Contact:
    """Returns the contact of two discs.

    Args:
        offset: from the other to the object, now.
        velocity: displacement of the object relative to the other in the next frame.
        reach: distance of the centres at a contact.
    """
    with torch.no_grad():  # no gradient: that of the time is steep for grazing contacts
        squared_speed = velocity.square().sum(-1, keepdim=True).clamp(min=1e-8)
        approach = (velocity * offset).sum(-1, keepdim=True)
        discriminant = approach**2 - squared_speed * (offset.square().sum(-1, keepdim=True) - reach**2)
        time = (-approach - discriminant.clamp(min=0).sqrt()) / squared_speed
        touches = ((discriminant > 0) & (time < 1) & (approach < 0)).to(offset.dtype)
        grazing = MIN_CONTACT_COSINE**2 * squared_speed * reach**2
        gradient = reach / torch.maximum(discriminant, grazing).sqrt() * touches * (time > 0)
        time = time.clamp(0, 1)
    time = time - gradient * (reach - reach.detach())  # a bounded gradient instead: larger objects meet earlier
    offset_then = offset + velocity * time
    distance = offset_then.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    normal = offset_then / distance
    axes = normal, perpendicular(normal)
    normal_speed, tangential_speed = ((velocity * axis).sum(-1, keepdim=True) for axis in axes)
    return Contact(time, normal, distance / reach.clamp(min=1e-3) - 1, normal_speed, tangential_speed, touches)


def clamped(feature: Tensor) -> Tensor:
    """Limits features to ±``FEATURE_LIMIT``."""
    return feature.clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
