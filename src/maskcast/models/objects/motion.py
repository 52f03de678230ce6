"""Object motion: where every object that was seen goes.

A recurrent network over objects and pairs of objects (an interaction network: Battaglia et al. 2016, arXiv
1612.00222). Positions live on a plane that a homography of the picture defines: a camera that looks at a floor
sees straight motion bend and shrink, on the floor it is straight. How the sizes of objects change across the
picture tells where the floor is; learned by gradient it drifts away. Every vector that the network adds is a
learned multiple of a vector at hand (past displacements, the line between two objects), so that directions need
not be learned one by one. All outputs start at zero: an untrained network moves nothing.

Shapes: B clips, T context frames, h horizon, N objects, F features, L displacements used.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.models.objects.tracks import Sight, Tracks, unpack_tracks
from maskcast.models.objects.trajectories import Path, path_loss, path_total
from maskcast.models.recurrent.cells import set_to_zero

PAST = 5  # displacements before the last frame that the velocity is made of
SLOPE = (0.3, 0.4, 0.3)  # weights of the last displacements in the least-squares velocity of four places
KIND = 16  # width of what is learned of a class: friction, bounce, size
SPREAD = 20.0  # spreads of objects are about 0.05 picture heights: brings them to about 1
SPEED = 10.0  # the same for displacements per frame
FAR = 5.0  # what features are cut off at: one object that flies off must not drown the gradient of all others
SURE = 1e-3  # expected error of the centre of what is seen, picture heights
DOUBT = -5.0  # what an untrained network adds to it at each step, before softplus: 0.7 % of the picture's height
BOUND = 0.25  # most that a step turns or changes a velocity by, relative to it
PUSH = 0.2  # most that one object changes the velocity of another by, in a step
FOCAL_LENGTH = 1.5  # of a usual lens, in picture heights
ENOUGH = 100  # sights to calibrate by
TILT = 1.4  # most that the scale of the plane may change over a picture height


class ObjectMotion(nn.Module):
    """Rolls the objects of the context out over any horizon.

    Args:
        hidden: width of an object's memory.
        num_classes: K; what is learned of a class tells a sphere, which rolls on, from a cube.
    """

    homography: Tensor

    def __init__(self, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("homography", torch.zeros(8))
        self.kind = nn.Embedding(num_classes, KIND)
        nn.init.normal_(self.kind.weight, std=0.1)
        self.history = _mlp((PAST + 1) * 8 + KIND, hidden, hidden)
        self.start = nn.Linear(hidden, PAST + 4)
        self.pair_own, self.pair_other = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.pair_shape = nn.Linear(8, hidden)
        self.pair = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.push = nn.Linear(hidden, 2)
        self.node = _mlp(2 * hidden + 8, hidden, hidden)
        self.memory = nn.GRUCell(hidden, hidden)
        self.change = nn.Linear(hidden, 4)
        self.doubt = nn.Sequential(nn.Linear(2 * hidden + 8, hidden), nn.SiLU(), nn.Linear(hidden, 2))
        self.rest()

    def rest(self) -> None:
        """Makes it move nothing, on a plane that is the picture's, as sure as before any training."""
        self.homography.zero_()
        for head in (self.start, self.push, self.change, self.doubt[-1]):
            set_to_zero(head)

    @torch.no_grad()
    def coast(self) -> None:
        """Makes every object keep its velocity, across the picture."""
        self.rest()
        self.start.bias[PAST - len(SLOPE) : PAST] = torch.tensor(SLOPE)

    def forward(self, object_BN: Tensor, tracks: Tracks, horizon: int) -> Path:
        """Returns the path over ``horizon`` steps of objects, of those that ``tracks`` never shows any path.

        Args:
            object_BN: class ids, 0 as padding.
            tracks: of these objects in the context; what lies more than ``PAST`` frames back is not used.
            horizon: steps after the last frame.
        """
        tracks = _latest(tracks)
        sight = tracks.last_sight()
        place, velocity, memory, log_scale = self._start(object_BN, tracks, sight)
        pairs_BNN = sight.exists_BN[:, :, None] & sight.exists_BN[:, None]
        pairs_BNN = pairs_BNN & ~torch.eye(object_BN.shape[1], dtype=torch.bool, device=object_BN.device)
        centres, scales, doubts = [], [], []
        doubt = torch.full_like(place, SURE)
        offset = sight.centre_BN2 - self.to_picture(place).detach()  # exact for an object that stays
        ago = (PAST - sight.frame_BN)[..., None]
        place = place + velocity * ago
        centre = self.to_picture(place) + offset
        for _ in range(horizon):
            push, message = self._interact(place, velocity, memory, sight.spread_BN2, pairs_BNN)
            features = [memory, message, _cut(velocity * SPEED), _cut(push * SPEED), _cut(centre), log_scale]
            inputs = torch.cat(features, -1)
            memory_BNF = self.memory(self.node(inputs).flatten(0, 1), memory.flatten(0, 1))
            memory = memory_BNF.view_as(memory)
            bend, grow = self.change(memory).split(2, dim=-1)
            along, across = _bounded(bend, BOUND).split(1, dim=-1)
            velocity = velocity * (1 + along) + _turned(velocity) * across + push
            place = place + velocity
            log_scale = log_scale + 0.1 * grow
            doubt = doubt + F.softplus(self.doubt(inputs.detach()) + DOUBT)  # no path is bent to be surer of it
            centre = self.to_picture(place) + offset
            centres.append(centre)
            scales.append(log_scale)
            doubts.append(doubt)
        return Path(torch.stack(centres, 1), torch.stack(scales, 1), torch.stack(doubts, 1))

    def loss(self, context_BTS8: Tensor, target_BhS8: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of the paths after packed tracks (``tracks.PACKED``), and its parts."""
        object_BN, context = unpack_tracks(context_BTS8)
        _, future = unpack_tracks(target_BhS8, object_BN)
        with torch.autocast(context_BTS8.device.type, enabled=False):
            parts = path_loss(self(object_BN, context, target_BhS8.shape[1]), context, future)
        return path_total(parts), {name: float(part.detach()) for name, part in parts.items()}

    def _start(self, object_BN: Tensor, tracks: Tracks, sight: Sight) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns place (when last seen) and velocity on the plane, memory, and log scale."""
        visible = tracks.visible_BTN
        place = self.to_plane(tracks.centre_BTN2)
        both = (visible[:, 1:] & visible[:, :-1])[..., None]
        moved_BLN2 = (place[:, 1:] - place[:, :-1]) * both
        first = torch.zeros_like(moved_BLN2[:, :1])
        features = torch.cat(
            [
                visible[..., None],
                tracks.cut_BTN[..., None],
                tracks.centre_BTN2 * visible[..., None],
                tracks.spread_BTN2 * SPREAD,
                torch.cat([first, moved_BLN2 * SPEED], dim=1),
            ],
            dim=-1,
        )
        memory = self.history(torch.cat([features.transpose(1, 2).flatten(2), self.kind(object_BN)], -1))
        weight, shift, grow = self.start(memory).split([PAST, 2, 2], dim=-1)
        velocity = (weight.transpose(1, 2)[..., None] * moved_BLN2).sum(1)
        seen = place.gather(1, sight.frame_BN[:, None, :, None].expand(-1, 1, -1, 2))[:, 0]
        return seen + 0.1 * shift, velocity, memory, 0.1 * grow

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
        when = when.clamp(0.0, 1.5)
        nearest = (line + relative * when).norm(dim=-1, keepdim=True)
        size = spread.mean(-1)
        sizes = torch.stack([size[:, :, None].expand_as(pairs_BNN), size[:, None].expand_as(pairs_BNN)], -1)
        shape = torch.cat(
            [
                _cut(distance * 4),
                _cut(0.1 / distance),
                _cut(approach * SPEED),
                _cut(pass_by * SPEED),
                when,
                _cut(nearest * 10),
                sizes * SPREAD,
            ],
            -1,
        )
        pair = self.pair(
            self.pair_own(memory)[:, :, None] + self.pair_other(memory)[:, None] + self.pair_shape(shape)
        )
        pair = pair * pairs_BNN[..., None]
        along, across = (_bounded(0.1 * self.push(pair), PUSH) * pairs_BNN[..., None]).split(1, dim=-1)
        return (along * normal + across * _turned(normal)).sum(2), pair.sum(2)

    @torch.no_grad()
    def calibrate(self, class_M: Tensor, centre_M2: Tensor, spread_M: Tensor) -> None:
        """Lays the plane where the sizes of M sights of whole objects say that it is.

        On a plane that a camera looks at, the size of an object in the picture is linear in its place: the slope
        is that of the homography's denominator, and the horizon it tells, with a usual focal length, how much the
        plane is foreshortened. Sizes of classes and the slope are fitted in turn. Few sights change nothing.

        Args:
            class_M: class of the object of each sight; objects of a class are of one size.
            centre_M2: its centre.
            spread_M: its size.
        """
        if len(class_M) < ENOUGH:
            return
        slope_2 = torch.zeros(2)
        for _ in range(10):
            flat_M = spread_M / (1 + centre_M2 @ slope_2).clamp(min=0.2)
            count_K = torch.bincount(class_M).clamp(min=1)
            size_M = (torch.bincount(class_M, weights=flat_M) / count_K)[class_M].float()
            slope_2 = torch.linalg.lstsq(centre_M2, (spread_M / size_M - 1)[:, None]).solution[:, 0]
            slope_2 = slope_2 * min(1.0, TILT / max(float(slope_2.norm()), 1e-6))
        stretch = (1 + (slope_2.norm() * FOCAL_LENGTH) ** 2).sqrt() - 1
        along = slope_2 / slope_2.norm().clamp(min=1e-6)
        (a, b), (c, d) = (stretch * torch.outer(along, along)).tolist()
        self.homography.copy_(torch.tensor([a, b, 0.0, c, d, 0.0, *slope_2.tolist()]))

    def to_plane(self, centre: Tensor) -> Tensor:
        """Returns picture positions (..., 2) on the plane."""
        y, x = centre.unbind(-1)
        a = self.homography
        scale = (1 + a[6] * y + a[7] * x).clamp(min=0.25)
        return torch.stack([y + a[0] * y + a[1] * x + a[2], x + a[3] * y + a[4] * x + a[5]], -1) / scale[..., None]

    def to_picture(self, place: Tensor) -> Tensor:
        """Returns plane positions (..., 2) in the picture: the inverse of ``to_plane``."""
        a = self.homography
        one = torch.ones_like(a[0])
        x, y, z = torch.stack([1 + a[0], a[1], a[2], a[3], 1 + a[4], a[5], a[6], a[7], one]).view(3, 3)
        adjugate = torch.stack([torch.linalg.cross(y, z), torch.linalg.cross(z, x), torch.linalg.cross(x, y)])
        point = torch.cat([place, torch.ones_like(place[..., :1])], -1) @ (adjugate / (x * adjugate[0]).sum())
        return point[..., :2] / point[..., 2:].clamp(min=0.3)  # what flies off must not drown all gradients


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs), nn.SiLU())


def _cut(feature: Tensor) -> Tensor:
    return feature.clamp(-FAR, FAR)


def _bounded(x: Tensor, bound: float) -> Tensor:
    """Returns ``x`` where it is small: a rollout that may amplify itself without bound ends in chaos."""
    return bound * torch.tanh(x / bound)


def _turned(vector: Tensor) -> Tensor:
    """Returns the vector turned by a right angle."""
    return torch.stack([-vector[..., 1], vector[..., 0]], -1)


def _latest(tracks: Tracks) -> Tracks:
    """Returns the last ``PAST + 1`` frames, with frames of nothing in front where there are fewer."""
    missing = max(0, PAST + 1 - tracks.visible_BTN.shape[1])

    def last(field: Tensor) -> Tensor:
        nothing = [torch.zeros_like(field[:, :1])] * missing
        return torch.cat([*nothing, field[:, -PAST - 1 :]], 1)

    return Tracks(
        last(tracks.visible_BTN),
        last(tracks.centre_BTN2),
        last(tracks.spread_BTN2),
        last(tracks.cut_BTN),
        tracks.aspect,
    )
