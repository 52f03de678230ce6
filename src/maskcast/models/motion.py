"""Object motion: where every object of the last seen mask goes.

A recurrent network over objects and pairs of objects (an interaction network: Battaglia et al. 2016, arXiv
1612.00222). Positions live on a plane that a learned homography of the picture defines: a camera that looks at a
floor sees straight motion bend and shrink, on the floor it is straight. Every vector that the network adds is a
learned multiple of a vector at hand (past displacements, the line between two objects), so that directions need
not be learned one by one. All outputs start at zero: an untrained network moves nothing.

Shapes: B clips, T context frames, h horizon, N objects, F features, L displacements used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskcast.distributed import all_sum
from maskcast.models.tracks import Tracks

PAST = 5  # displacements before the last frame that the velocity is made of
SPREAD = 20.0  # spreads of objects are about 0.05 picture heights: brings them to about 1
SMALL = 0.02  # spread of a small object
SPEED = 10.0  # the same for displacements per frame


@dataclass(frozen=True)
class Path:
    """The forecast of every object, relative to its part of the last seen mask."""

    centre_BhN2: Tensor  # (y, x) in picture heights from the picture's centre
    log_scale_BhN2: Tensor  # log of the size relative to the last seen mask, (y, x)

    def pick(self, clips: slice = slice(None), steps: Sequence[int] | slice = slice(None)) -> "Path":
        """Returns the path of some clips at some steps."""
        return Path(self.centre_BhN2[clips][:, steps], self.log_scale_BhN2[clips][:, steps])


def still(tracks: Tracks, horizon: int) -> Path:
    """Returns the path of objects that stay where they were in the last frame of ``tracks``."""
    centre = tracks.centre_BTN2[:, -1:].expand(-1, horizon, -1, -1)
    return Path(centre, torch.zeros_like(centre))


def path_loss(path: Path, context: Tracks, future: Tracks) -> tuple[Tensor, Tensor]:
    """Returns the errors of place and size, averaged over objects and steps where they can be told.

    An object counts where it is visible and does not touch the border. The error of its place is in units of its
    own size and grows like its square near 0, like its length far off.
    """
    counts = (future.visible_BTN & ~future.cut_BTN).to(path.centre_BhN2.dtype)
    total = all_sum(counts.sum()).clamp(min=1)
    unit = future.spread_BTN2.mean(-1, keepdim=True).clamp(min=SMALL)
    error = ((path.centre_BhN2 - future.centre_BTN2) / unit).square().sum(-1)
    place = all_sum((((1 + error).sqrt() - 1) * counts).sum()) / total
    growth = (future.spread_BTN2.clamp(min=1e-3) / context.spread_BTN2[:, -1:].clamp(min=1e-3)).log()
    size = all_sum(((path.log_scale_BhN2 - growth).abs().sum(-1) * counts).sum()) / total
    return place, size


class ObjectMotion(nn.Module):
    """Rolls the objects of the last context frame out over any horizon.

    Args:
        hidden: width of an object's memory.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.homography = nn.Parameter(torch.zeros(8))
        self.history = _mlp((PAST + 1) * 8, hidden, hidden)
        self.start = nn.Linear(hidden, PAST + 4)
        self.pair_own, self.pair_other = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.pair_shape = nn.Linear(8, hidden)
        self.pair = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.push = nn.Linear(hidden, 2)
        self.node = _mlp(2 * hidden + 8, hidden, hidden)
        self.memory = nn.GRUCell(hidden, hidden)
        self.change = nn.Linear(hidden, 4)
        for head in (self.start, self.push, self.change):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, tracks: Tracks, horizon: int) -> Path:
        """Returns the path over ``horizon`` steps of the objects visible in the last frame of ``tracks``."""
        exists_BN = tracks.visible_BTN[:, -1]
        last_BN2, spread_BN2 = tracks.centre_BTN2[:, -1], tracks.spread_BTN2[:, -1]
        place, velocity, memory, log_scale = self._start(tracks)
        pairs_BNN = exists_BN[:, :, None] & exists_BN[:, None]
        pairs_BNN = pairs_BNN & ~torch.eye(exists_BN.shape[1], dtype=torch.bool, device=exists_BN.device)
        centres, scales = [], []
        centre = self.to_picture(place)
        shift = last_BN2 - centre.detach()  # exact for an object that stays
        for _ in range(horizon):
            push, message = self._interact(place, velocity, memory, spread_BN2, pairs_BNN)
            inputs = [memory, message, velocity * SPEED, push * SPEED, centre, log_scale]
            memory_BNF = self.memory(self.node(torch.cat(inputs, -1)).flatten(0, 1), memory.flatten(0, 1))
            memory = memory_BNF.view_as(memory)
            along, across, grow = self.change(memory).split([1, 1, 2], dim=-1)
            velocity = velocity * (1 + along) + _turned(velocity) * across + push
            place = place + velocity
            log_scale = log_scale + 0.1 * grow
            centre = self.to_picture(place) + shift
            centres.append(centre)
            scales.append(log_scale)
        return Path(torch.stack(centres, 1), torch.stack(scales, 1))

    def _start(self, tracks: Tracks) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns place and velocity on the plane, memory, and log scale at the last context frame."""
        visible, centre, spread, cut = _latest(tracks, PAST + 1)
        place = self.to_plane(centre)
        both = (visible[:, 1:] & visible[:, :-1])[..., None]
        moved_BLN2 = (place[:, 1:] - place[:, :-1]) * both
        first = torch.zeros_like(moved_BLN2[:, :1])
        features = torch.cat(
            [
                visible[..., None],
                cut[..., None],
                centre * visible[..., None],
                spread * SPREAD,
                torch.cat([first, moved_BLN2 * SPEED], dim=1),
            ],
            dim=-1,
        )
        memory = self.history(features.transpose(1, 2).flatten(2))
        weight, shift, grow = self.start(memory).split([PAST, 2, 2], dim=-1)
        velocity = (weight.transpose(1, 2)[..., None] * moved_BLN2).sum(1)
        return place[:, -1] + 0.1 * shift, velocity, memory, 0.1 * grow

    def _interact(
        self, place: Tensor, velocity: Tensor, memory: Tensor, spread: Tensor, pairs_BNN: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the change of velocity and the message (B, N, F) that the others give to every object."""
        line = place[:, :, None] - place[:, None]  # from the other to oneself
        distance = line.norm(dim=-1, keepdim=True).clamp(min=1e-3)
        normal = line / distance
        relative = velocity[:, :, None] - velocity[:, None]
        approach = (relative * normal).sum(-1, keepdim=True)
        pass_by = (relative * _turned(normal)).sum(-1, keepdim=True)
        # when and how near two straight lines come within the next step
        when = -(relative * line).sum(-1, keepdim=True) / (relative**2).sum(-1, keepdim=True).clamp(min=1e-6)
        when = when.clamp(0, 1.5)
        nearest = (line + relative * when).norm(dim=-1, keepdim=True)
        size = spread.mean(-1)
        sizes = torch.stack([size[:, :, None].expand_as(pairs_BNN), size[:, None].expand_as(pairs_BNN)], -1)
        shape = torch.cat(
            [distance * 4, 0.1 / distance, approach * SPEED, pass_by * SPEED, when, nearest * 10, sizes * SPREAD],
            -1,
        )
        pair = self.pair(
            self.pair_own(memory)[:, :, None] + self.pair_other(memory)[:, None] + self.pair_shape(shape)
        )
        pair = pair * pairs_BNN[..., None]
        along, across = (self.push(pair) * 0.1 * pairs_BNN[..., None]).split(1, dim=-1)
        return (along * normal + across * _turned(normal)).sum(2), pair.sum(2)

    def to_plane(self, centre: Tensor) -> Tensor:
        """Returns picture positions (..., 2) on the plane."""
        y, x = centre.unbind(-1)
        a = self.homography
        scale = (1 + a[6] * y + a[7] * x).clamp(min=0.1)
        return torch.stack([y + a[0] * y + a[1] * x + a[2], x + a[3] * y + a[4] * x + a[5]], -1) / scale[..., None]

    def to_picture(self, place: Tensor) -> Tensor:
        """Returns plane positions (..., 2) in the picture: the inverse of ``to_plane``."""
        a = self.homography
        matrix = torch.stack(
            [
                torch.stack([1 + a[0], a[1], a[2]]),
                torch.stack([a[3], 1 + a[4], a[5]]),
                torch.stack([a[6], a[7], torch.ones_like(a[0])]),
            ]
        )
        point = torch.cat([place, torch.ones_like(place[..., :1])], -1) @ torch.linalg.inv(matrix).T
        return point[..., :2] / point[..., 2:].clamp(min=0.05)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs), nn.SiLU())


def _turned(vector: Tensor) -> Tensor:
    """Returns the vector turned by a right angle."""
    return torch.stack([-vector[..., 1], vector[..., 0]], -1)


def _latest(tracks: Tracks, frames: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the fields of the last ``frames`` frames, with frames of nothing in front where there are fewer."""
    fields = (tracks.visible_BTN, tracks.centre_BTN2, tracks.spread_BTN2, tracks.cut_BTN)
    missing = max(0, frames - fields[0].shape[1])
    visible, centre, spread, cut = (
        torch.cat([torch.zeros_like(field[:, :1]).expand(-1, missing, *field.shape[2:]), field[:, -frames:]], 1)
        for field in fields
    )
    return visible, centre, spread, cut
