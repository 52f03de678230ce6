"""Renders moved objects: their last observed masks, shifted and scaled, nearer ones in front.

Shapes: B clips, T context frames, S steps, N objects, K classes, H height, W width of the masks, I rows and
J columns rendered.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.models.arithmetic import shapes_are_fixed
from maskcast.models.limits import chunk_slices
from maskcast.models.objects.picks import ALL, Pick, picked
from maskcast.models.objects.tracks import LastObservation
from maskcast.models.objects.trajectories import Trajectory

SHARPNESS = 4.0  # logit of an object in pixels that it covers; the background has 0
ABSENT = -8.0  # logit of a class without an object in the scene
DEPTH = 2.0  # difference of an object's logit between the lower and the upper edge of the image
TEMPORARIES = 6  # temporary tensors per object while its weights are computed


class Renderer(nn.Module):
    """Renders logits of objects, differentiably in their trajectories."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))
        self.depth = nn.Parameter(torch.tensor(DEPTH))
        self.absent = nn.Parameter(torch.tensor(ABSENT))

    def forward(
        self,
        mask_BNHW: Tensor,
        seen: LastObservation,
        trajectory: Trajectory,
        rows: Pick = ALL,
        columns: Pick = ALL,
    ) -> Tensor:
        """Returns logits (B, S, N, I, J) of the picked pixels, above 0 where the object covers them.

        Args:
            mask_BNHW: bool, the objects when seen last (``seen_masks``, ``filling``).
            seen: their last observations.
            trajectory: of the objects at the steps to render.
            rows: of the picture.
            columns: of the picture.
        """
        covered = cover(mask_BNHW, seen, trajectory, rows, columns)
        return self.sharpness * (2 * covered - 1) + self.depth * _nearness(trajectory)

    def still(self, object_BN: Tensor, trajectory: Trajectory) -> tuple[Tensor, Tensor]:
        """Returns the logits (B, K) of classes outside of their objects, and the increase inside of them.

        The objects do not move, and there is a slot for each class (``fixed_shapes``).
        """
        nearness_BN = _nearness(trajectory)[:, 0, :, 0, 0]
        base_BN = torch.where(object_BN > 0, self.depth * nearness_BN - self.sharpness, self.absent)
        return F.pad(base_BN, (1, 0)), 2 * self.sharpness


def seen_masks(context_BTHW: Tensor, object_BN: Tensor, seen: LastObservation) -> Tensor:
    """Returns the mask of every object when seen last, (B, N, H, W) bool; empty if it was never seen."""
    frame = seen.frame_BN[..., None, None].expand(-1, -1, *context_BTHW.shape[2:])
    mask_BNHW = context_BTHW.gather(1, frame) == object_BN[..., None, None]
    return mask_BNHW & (object_BN > 0)[..., None, None]


def cover(
    mask_BNHW: Tensor,
    seen: LastObservation,
    trajectory: Trajectory,
    rows: Pick = ALL,
    columns: Pick = ALL,
    *,
    expected: bool = False,
) -> Tensor:
    """Returns the coverage (B, S, N, I, J), 0 to 1, of each picked pixel by the moved objects.

    With ``expected`` it is the expectation over the centres' errors.
    """
    centre = trajectory.centre_BhN2
    height, width = (side - 2 * seen.margin for side in mask_BNHW.shape[2:])
    y = picked(torch.arange(height, device=centre.device, dtype=centre.dtype), 0, rows) - (height - 1) / 2
    x = picked(torch.arange(width, device=centre.device, dtype=centre.dtype), 0, columns) - (width - 1) / 2
    shrink = torch.exp(-trajectory.log_size_BhN2.clamp(-2, 2))
    last_centre = seen.centre_BN2[:, None]
    source_y = last_centre[..., :1] + (y / height - centre[..., :1]) * shrink[..., :1]
    source_x = last_centre[..., 1:] + (x / height - centre[..., 1:]) * shrink[..., 1:]
    blur_y, blur_x = (trajectory.scale_BhN2 * shrink).split(1, dim=-1) if expected else (None, None)
    patch_BNIJ, top_BN, left_BN = _crop(mask_BNHW)
    # Rows and columns are separable, so sampling is two small matrix products.
    row = source_y * height + (height - 1) / 2 + seen.margin - top_BN[:, None, :, None]
    column = source_x * height + (width - 1) / 2 + seen.margin - left_BN[:, None, :, None]

    def covered(some: slice) -> Tensor:
        blurs = (None, None) if blur_y is None or blur_x is None else (blur_y[:, :, some], blur_x[:, :, some])
        row_weights = _interpolation_weights(row[:, :, some], patch_BNIJ.shape[2], blurs[0], height)
        column_weights = _interpolation_weights(column[:, :, some], patch_BNIJ.shape[3], blurs[1], height)
        return row_weights @ patch_BNIJ[:, None, some].to(centre.dtype) @ column_weights.transpose(-1, -2)

    if torch.compiler.is_compiling():
        return covered(ALL)
    weights = TEMPORARIES * row.shape[:2].numel() * (len(y) * patch_BNIJ.shape[2] + len(x) * patch_BNIJ.shape[3])
    parts = chunk_slices(row.shape[2], weights)
    return covered(ALL) if len(parts) == 1 else torch.cat([covered(some) for some in parts], 2)


def probability(
    mask_BNHW: Tensor,
    object_BN: Tensor,
    seen: LastObservation,
    trajectory: Trajectory,
    ids_BSIJ: Tensor,
    rows: slice = ALL,
) -> Tensor:
    """Returns the probability (B, S, I, J) that each pixel of the picked rows shows the class in ``ids_BSIJ``.

    An object is visible where it covers a pixel and no nearer object does; places of objects are assumed to be
    independent. Objects that enter later are not considered.
    """
    # probability that an object does not cover a pixel
    uncovered_BSNIJ = cover(mask_BNHW, seen, trajectory, rows, expected=True).clamp(0, 1).neg_().add_(1)
    nearest_first_BSN = _nearness(trajectory)[..., 0, 0].argsort(dim=2, descending=True)
    uncovered_in_order = uncovered_BSNIJ.gather(2, nearest_first_BSN[..., None, None].expand_as(uncovered_BSNIJ))
    background = torch.cumprod(uncovered_in_order, dim=2)  # no nearer object covers the pixel
    unoccluded = torch.cat([torch.ones_like(background[:, :, :1]), background[:, :, :-1]], dim=2)
    visible = unoccluded * (1 - uncovered_in_order)
    class_BSN = object_BN[:, None].expand_as(nearest_first_BSN).gather(2, nearest_first_BSN)
    is_class = class_BSN[..., None, None] == ids_BSIJ[:, :, None]
    return torch.where(ids_BSIJ == 0, background[:, :, -1], (visible * is_class).sum(2))


def as_bytes(probability: Tensor) -> Tensor:
    """Returns probabilities as uint8 (255 = 1)."""
    return (probability * 255).round().to(torch.uint8)


def _nearness(trajectory: Trajectory) -> Tensor:
    """Returns the nearness of objects (B, S, N, 1, 1): on the ground, objects lower in the image are nearer."""
    return trajectory.centre_BhN2[..., :1, None].clamp(-1, 1)


def paint(
    mask_BNHW: Tensor, object_BN: Tensor, seen: LastObservation, trajectory: Trajectory, rows: slice = ALL
) -> Tensor:
    """Returns class ids (B, S, I, J): of the nearest object that covers at least half of a pixel, else 0."""
    covered_BSNIJ = cover(mask_BNHW, seen, trajectory, rows)
    return front_object(torch.where(covered_BSNIJ > 0.5, 2 + _nearness(trajectory), -1.0), object_BN)


def by_class(logits_BSNIJ: Tensor, object_BN: Tensor, class_C: Tensor, absent: Tensor) -> Tensor:
    """Returns the logits (B, S, C, I, J) of the classes ``class_C``, from those of objects.

    Class 0 has logit 0 everywhere; classes without an object have ``absent``. ``class_C`` is ascending, begins
    with 0 and includes the objects' classes.
    """
    if shapes_are_fixed():  # then each class has a slot
        occurs = (object_BN > 0)[:, None, :, None, None]
        return F.pad(torch.where(occurs, logits_BSNIJ, absent), (0, 0, 0, 0, 1, 0))
    batch, steps, _, rows, columns = logits_BSNIJ.shape
    out = absent.expand(batch, steps, len(class_C), rows, columns)
    index_BN = (class_C < object_BN[..., None]).sum(-1)
    index = index_BN[:, None, :, None, None].expand_as(logits_BSNIJ)
    # padding is written to class 0, which is set to 0 afterwards
    out = out.scatter_add(2, index, logits_BSNIJ - absent)
    return torch.cat([torch.zeros_like(out[:, :, :1]), out[:, :, 1:]], dim=2)


def front_object(logits_BSNIJ: Tensor, object_BN: Tensor) -> Tensor:
    """Returns the class ids (B, S, I, J) of the front objects; 0 if there is none."""
    best, slot = logits_BSNIJ.masked_fill((object_BN == 0)[:, None, :, None, None], -1).max(dim=2)
    ids = object_BN[:, None, :, None, None].expand_as(logits_BSNIJ).gather(2, slot[:, :, None])[:, :, 0]
    return ids * (best > 0)


def _crop(mask_BNHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Crops each mask around its object, all to one size; also returns top and left (B, N)."""
    if shapes_are_fixed():  # the size of the crops depends on data
        corner_BN = torch.zeros(mask_BNHW.shape[:2], dtype=torch.long, device=mask_BNHW.device)
        return mask_BNHW, corner_BN, corner_BN
    picks = []
    for axis in (2, 3):
        size = mask_BNHW.shape[axis]
        covered = mask_BNHW.any(5 - axis).int()
        first = covered.argmax(-1)
        length = size - covered.flip(-1).argmax(-1) - first
        longest = max(1, int((length * covered.amax(-1)).max()))
        start = first.clamp(max=size - longest)
        picks.append((start, start[..., None] + torch.arange(longest, device=start.device)))
    (top_BN, row_BNI), (left_BN, column_BNJ) = picks
    rows = mask_BNHW.gather(2, row_BNI[..., None].expand(-1, -1, -1, mask_BNHW.shape[3]))
    return rows.gather(3, column_BNJ[:, :, None].expand(-1, -1, row_BNI.shape[2], -1)), top_BN, left_BN


def _interpolation_weights(position: Tensor, size: int, blur: Tensor | None, unit: int) -> Tensor:
    """Returns the weights (..., size) of linear interpolation at a position in pixels.

    With ``blur``, they are averaged over positions with Laplace distributed errors, whose mean size is ``blur`` in
    units of ``unit`` pixels: the second difference of the distribution's second integral.
    """
    pixels = torch.arange(size, device=position.device, dtype=position.dtype)
    distance = position[..., None] - pixels
    if blur is None:
        return F.relu(1 - distance.abs())
    scale = (blur[..., None] * unit).clamp(min=0.05)

    def integral(x: Tensor) -> Tensor:
        return F.relu(x) + scale / 2 * torch.exp(-x.abs() / scale)

    return integral(distance + 1) - 2 * integral(distance) + integral(distance - 1)
