"""Tracks: the places of a clip's objects in every frame, computed from class ids without one-hot tensors.

Each class id counts as one object, so several things of a class are one object of changing shape. If objects are
told apart (``parts``), the ids are object numbers.

Lengths are in picture heights, and positions (y, x) are relative to the picture's centre, so that nothing depends
on the resolution.

Shapes: B clips, T frames, K classes, N slots (the objects of a clip, padded), H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.labels import IGNORE
from maskcast.models.arithmetic import shapes_are_fixed

SCALE_START = 1e-3  # expected error of a visible part's centre, in picture heights


@dataclass(frozen=True)
class Tracks:
    """Observations of every object; 0 in frames in which it is not visible."""

    visible_BTN: Tensor  # bool
    centre_BTN2: Tensor  # centroid, (y, x)
    std_BTN2: Tensor  # standard deviation of its pixels, (y, x)
    truncated_BTN: Tensor  # bool: it touches the border, so centre and std are those of a part
    known_BT: Tensor  # bool: any pixel of the frame is labelled; else nobody knows what is visible
    aspect: float | Tensor  # width of the picture over its height
    doubt_BTN2: Tensor | None = None
    """Scale of the centre's error, if observations were completed to whole objects."""

    def latest(self, frames: int) -> "Tracks":
        """Returns the last ``frames`` frames; if there are fewer, unknown frames are put in front."""
        missing = max(0, frames - self.visible_BTN.shape[1])

        def last(field: Tensor) -> Tensor:
            return torch.cat([*[torch.zeros_like(field[:, :1])] * missing, field[:, -frames:]], 1)

        seen = last(self.visible_BTN), last(self.centre_BTN2), last(self.std_BTN2), last(self.truncated_BTN)
        doubt = None if self.doubt_BTN2 is None else last(self.doubt_BTN2)
        return Tracks(*seen, last(self.known_BT), self.aspect, doubt)

    def last_observation(self) -> "LastObservation":
        """Returns the last observation of every object.

        An object that touched the border then, and is not visible in a later known frame, counts as having left.
        """
        frames = torch.arange(1, self.visible_BTN.shape[1] + 1, device=self.visible_BTN.device)
        frame_BN = (frames[:, None] * self.visible_BTN).argmax(1)
        index = frame_BN[:, None, :, None].expand(-1, 1, -1, 2)
        centre, std = self.centre_BTN2.gather(1, index)[:, 0], self.std_BTN2.gather(1, index)[:, 0]
        last_known_B1 = (frames * self.known_BT).argmax(1, keepdim=True)
        left_BN = self.truncated_BTN.gather(1, frame_BN[:, None])[:, 0] & (frame_BN < last_known_B1)
        doubt = None if self.doubt_BTN2 is None else self.doubt_BTN2.gather(1, index)[:, 0]
        return LastObservation(self.visible_BTN.any(1) & ~left_BN, frame_BN, centre, std, doubt)


@dataclass(frozen=True)
class LastObservation:
    """The last observation of every object, and its frame."""

    exists_BN: Tensor  # bool: it was seen and has not left
    frame_BN: Tensor  # long: index of the frame; 0 if it was never seen
    centre_BN2: Tensor
    std_BN2: Tensor
    doubt_BN2: Tensor | None = None
    margin: int = 0
    """Pixels by which masks of these objects exceed the picture on each side."""

    @property
    def expected_error(self) -> Tensor:
        """The expected error of the centre, (y, x)."""
        start = torch.full_like(self.centre_BN2, SCALE_START)
        return start if self.doubt_BN2 is None else start + self.doubt_BN2

    def pick(self, clips: slice) -> "LastObservation":
        """Returns the observations of a part of the clips."""
        fields = self.exists_BN[clips], self.frame_BN[clips], self.centre_BN2[clips], self.std_BN2[clips]
        return LastObservation(*fields, None if self.doubt_BN2 is None else self.doubt_BN2[clips], self.margin)


def find_classes(ids_BHW: Tensor, num_classes: int) -> Tensor:
    """Returns (B, K) long: 1 for each class that is in (B, ..., H, W) masks, else 0."""
    ids = ids_BHW.flatten(1).long().clamp(max=num_classes)
    return ids.new_zeros(ids.shape[0], num_classes + 1).scatter_(1, ids, 1)[:, :num_classes]


def find_objects(ids_BHW: Tensor, num_classes: int) -> Tensor:
    """Returns (B, N) long class ids in (B, ..., H, W) masks, ascending, 0 (background) as padding; N >= 1.

    Ids from ``num_classes`` up, such as the ignore value, are not objects.
    """
    seen_BK = find_classes(ids_BHW, num_classes)[:, 1:]
    if shapes_are_fixed():  # a slot for every class
        return torch.arange(1, num_classes, device=seen_BK.device) * seen_BK
    slots = max(1, int(seen_BK.sum(1).max()))
    order_BK = torch.argsort(seen_BK, dim=1, descending=True, stable=True)[:, :slots]
    return (order_BK + 1) * seen_BK.gather(1, order_BK)


def track_objects(ids_BTHW: Tensor, object_BN: Tensor) -> Tracks:
    """Returns the tracks of the objects ``object_BN`` (class ids, 0 = none) in (B, T, H, W) uint8 masks."""
    sums = _sums_of_all if shapes_are_fixed() or ids_BTHW.is_cuda else _sums_of_few
    count, touching, moments = sums(ids_BTHW, object_BN)
    height, width = ids_BTHW.shape[2:]
    mean = moments / count.clamp(min=1)[..., None]
    centre, square = mean.split(2, dim=-1)
    std = (square - centre**2).clamp(min=(0.25 / height) ** 2).sqrt()
    visible, known_BT = count > 0, ids_BTHW.flatten(2).amin(2) < IGNORE
    return Tracks(visible, centre, std * visible[..., None], touching > 0, known_BT, width / height)


def _sums_of_few(ids_BTHW: Tensor, object_BN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns numbers of pixels and of border pixels (B, T, N), and sums of y, x and their squares (B, T, N, 4).

    It only processes foreground pixels, which are few. On a GPU its additions would be atomic.
    """
    batch, frames, height, width = ids_BTHW.shape
    slots = object_BN.shape[1]
    # slot of every class id per clip; the last slot collects pixels of no object
    table_BK = object_BN.new_full((batch, 256), slots)
    table_BK.scatter_(1, object_BN, torch.arange(slots, device=object_BN.device).expand(batch, -1))
    table_BK[:, 0] = slots
    flat = ids_BTHW.flatten()
    where = flat.nonzero().flatten()
    frame = where // (height * width)
    pixel = where % (height * width)
    y, x = (pixel // width).float(), (pixel % width).float()
    clip_id = flat[where].long() + frame // frames * 256
    cell = frame * (slots + 1) + table_BK.flatten()[clip_id]
    border = ((y == 0) | (y == height - 1) | (x == 0) | (x == width - 1)).float()
    y, x = (y - (height - 1) / 2) / height, (x - (width - 1) / 2) / height
    values = torch.stack([torch.ones_like(y), y, x, y * y, x * x, border], dim=1)
    sums = values.new_zeros(batch * frames * (slots + 1), 6).index_add_(0, cell, values)
    sums = sums.view(batch, frames, slots + 1, 6)[:, :, :slots]
    return sums[..., 0], sums[..., 5], sums[..., 1:5]


def _sums_of_all(ids_BTHW: Tensor, object_BN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the same from counts per row and column, without atomic additions or data-dependent shapes.

    Atomic additions have no fixed order, so that the last bits of their sums would differ between runs.
    """
    height, width = ids_BTHW.shape[2:]
    here_BTNHW = ids_BTHW.long()[:, :, None] == object_BN.masked_fill(object_BN == 0, -1)[:, None, :, None, None]
    row_BTNH, column_BTNW = here_BTNHW.sum(4), here_BTNHW.sum(3)
    touching = row_BTNH[..., 0] + row_BTNH[..., -1] + column_BTNW[..., 0] + column_BTNW[..., -1]
    y = (torch.arange(height, device=ids_BTHW.device) - (height - 1) / 2) / height
    x = (torch.arange(width, device=ids_BTHW.device) - (width - 1) / 2) / height
    sums = [
        (row_BTNH * y).sum(-1),
        (column_BTNW * x).sum(-1),
        (row_BTNH * y**2).sum(-1),
        (column_BTNW * x**2).sum(-1),
    ]
    return row_BTNH.sum(-1).float(), touching, torch.stack(sums, -1)


PACKED = ("class", "visible", "y", "x", "std_y", "std_x", "truncated", "aspect")
"""The last axis of packed tracks; ``y`` and ``x`` are those of the centre, flags are 0 or 1.

In frames without any label ``visible`` is -1.
"""
DOUBT = ("doubt_y", "doubt_x")
"""Further entries for tracks of completed objects."""


def pack_tracks(ids_THW: Tensor, num_classes: int) -> Tensor:
    """Returns the tracks (T, S, 8) float32 of all S objects in (T, H, W) uint8 masks, as ``PACKED`` says.

    Without objects there is one slot of class 0, which tells the frames without labels.
    """
    found_K = torch.bincount(ids_THW.flatten(), minlength=num_classes)[:num_classes]
    object_S = found_K[1:].nonzero().flatten() + 1
    if not len(object_S):
        object_S = torch.zeros(1, dtype=torch.long)
    tracks = track_objects(ids_THW[None], object_S[None])
    fields = [object_S.expand(len(ids_THW), -1), tracks.visible_BTN[0], tracks.truncated_BTN[0]]
    class_id, visible, truncated = (field[..., None].float() for field in fields)
    visible[~tracks.known_BT[0]] = -1
    aspect = torch.full_like(truncated, float(tracks.aspect))
    return torch.cat([class_id, visible, tracks.centre_BTN2[0], tracks.std_BTN2[0], truncated, aspect], -1)


def stack_tracks(packed: Sequence[Tensor]) -> Tensor:
    """Returns packed tracks (T, S, 8) of clips as one batch (B, T, S, 8), padded to the largest S."""
    slots = max(clip_TS8.shape[1] for clip_TS8 in packed)
    return torch.stack([F.pad(clip_TS8, (0, 0, 0, slots - clip_TS8.shape[1])) for clip_TS8 in packed])


def unpack_tracks(packed_BTS8: Tensor, object_BN: Tensor | None = None) -> tuple[Tensor, Tracks]:
    """Returns the packed objects (B, N) and their tracks; only those in ``object_BN`` if it is given."""
    slot_BS, aspect = packed_BTS8[:, :, :, 0].amax(1).long(), packed_BTS8[..., 7].max()
    known_BT = (packed_BTS8[..., 1] >= 0).all(2)
    if object_BN is not None:
        same_BNS = (object_BN[:, :, None] == slot_BS[:, None]) & (object_BN[:, :, None] > 0)
        index_BN = same_BNS.int().argmax(-1)
        index = index_BN[:, None, :, None].expand(-1, packed_BTS8.shape[1], -1, packed_BTS8.shape[-1])
        packed_BTS8 = packed_BTS8.gather(2, index) * same_BNS.any(-1)[:, None, :, None]
        slot_BS = object_BN
    visible, truncated = packed_BTS8[..., 1] > 0, packed_BTS8[..., 6] > 0
    doubt = packed_BTS8[..., len(PACKED) :] if packed_BTS8.shape[-1] > len(PACKED) else None
    centre, std = packed_BTS8[..., 2:4], packed_BTS8[..., 4:6]
    return slot_BS, Tracks(visible, centre, std, truncated, known_BT, aspect, doubt)
