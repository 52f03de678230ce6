"""Object motion: where every object that was seen goes.

A recurrent network over objects and pairs of objects (an interaction network: Battaglia et al. 2016, arXiv
1612.00222). Positions live on the ground plane (``plane``), where motion is straight. Every vector that the
network adds is a learned multiple of a vector at hand: a past displacement, or the line between two objects. So it
need not learn each direction anew. All outputs start at zero: an untrained network moves nothing.

Shapes: B clips, T context frames, h horizon, N objects, S objects of a packed track, F features, L displacements
used.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.models.objects.completion import Completion
from maskcast.models.objects.plane import displaced, fit_plane, inverse, projected, to_plane
from maskcast.models.objects.tracks import DOUBT, LastObservation, Tracks, unpack_tracks
from maskcast.models.objects.trajectories import Trajectory, trajectory_loss, trajectory_total
from maskcast.models.recurrent.cells import set_to_zero

PAST = 5  # displacements before the last frame that the velocity is made of
SLOPE = (0.3, 0.4, 0.3)  # weights of the last displacements in the least-squares velocity of four places
KIND = 16  # width of what is learned of a class: friction, bounce, size
STD_UNIT = 20.0  # brings sizes of objects, about 0.05 picture heights, to about 1
SPEED_UNIT = 10.0  # the same for displacements per frame
DOUBT_UNIT = 100.0  # the same for the error of a completed centre
FEATURE_LIMIT = 5.0  # features are clamped: one object that flies off must not drown the gradient of all others
SCALE_BIAS = (
    -5.0
)  # what an untrained network adds to it at each step, before softplus: 0.7 % of the picture's height
BEND_LIMIT = 0.25  # most that a step turns or changes a velocity by, relative to it
PUSH_LIMIT = 0.2  # most that one object changes the velocity of another by, in a step


class ObjectMotion(nn.Module):
    """Rolls the objects of the context out over any horizon.

    Args:
        hidden: width of an object's memory.
        num_classes: K; what is learned of a class tells a sphere, which rolls on, from a cube.
        whole: tracks are those of whole objects (``completion``), with the doubt that is left.
    """

    homography: Tensor

    def __init__(self, hidden: int, num_classes: int, *, whole: bool = False) -> None:
        super().__init__()
        self.register_buffer("homography", torch.zeros(8))
        self.completion = Completion(num_classes) if whole else None
        self.kind = nn.Embedding(num_classes, KIND)
        nn.init.normal_(self.kind.weight, std=0.1)
        self.history = _mlp((PAST + 1) * (8 + len(DOUBT) * whole) + KIND, hidden, hidden)
        self.start = nn.Linear(hidden, PAST + 4)
        self.pair_own, self.pair_other = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.pair_shape = nn.Linear(8, hidden)
        self.pair = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.push = nn.Linear(hidden, 2)
        self.node = _mlp(2 * hidden + 8, hidden, hidden)
        self.memory = nn.GRUCell(hidden, hidden)
        self.change = nn.Linear(hidden, 4)
        self.doubt = nn.Sequential(nn.Linear(2 * hidden + 8, hidden), nn.SiLU(), nn.Linear(hidden, 2))
        self.reset_to_persistence()

    def reset_to_persistence(self) -> None:
        """Makes it move nothing, on a plane that is the picture's, as sure as before any training."""
        self.homography.zero_()
        for head in (self.start, self.push, self.change, self.doubt[-1]):
            set_to_zero(head)

    @torch.no_grad()
    def reset_to_constant_velocity(self) -> None:
        """Makes every object keep its velocity, across the picture."""
        self.reset_to_persistence()
        self.start.bias[PAST - len(SLOPE) : PAST] = torch.tensor(SLOPE)

    def forward(
        self, object_BN: Tensor, tracks: Tracks, horizon: int, missed_BN4: Tensor | None = None
    ) -> Trajectory:
        """Returns where the objects go in ``horizon`` steps; of an object that ``tracks`` never shows, anything.

        Args:
            object_BN: class ids, or numbers of objects (``parts``); 0 as padding.
            tracks: of these objects in the context; what lies more than ``PAST`` frames back is not used.
            horizon: steps after the last frame.
            missed_BN4: how far place and velocity when last seen are from those expected (``displaced``).
        """
        tracks = _latest(tracks)
        seen = tracks.last_observation()
        place, velocity, memory, log_size = self._start(object_BN, tracks, seen)
        pairs_BNN = seen.exists_BN[:, :, None] & seen.exists_BN[:, None]
        pairs_BNN = pairs_BNN & ~torch.eye(object_BN.shape[1], dtype=torch.bool, device=object_BN.device)
        centres, sizes, scales = [], [], []
        scale = seen.expected_error
        back_33 = inverse(self.homography)
        offset = seen.centre_BN2 - projected(place, back_33).detach()  # exact for an object that stays
        if missed_BN4 is not None:
            place, velocity = displaced(self.homography, place, velocity, missed_BN4)
        ago = (PAST - seen.frame_BN)[..., None]
        place = place + velocity * ago
        centre = projected(place, back_33) + offset
        for _ in range(horizon):
            push, message = self._interact(place, velocity, memory, seen.std_BN2, pairs_BNN)
            moves = torch.cat([velocity, push], -1) * SPEED_UNIT
            inputs = torch.cat([memory, message, _clamped(torch.cat([moves, centre], -1)), log_size], -1)
            memory_BNF = self.memory(self.node(inputs).flatten(0, 1), memory.flatten(0, 1))
            memory = memory_BNF.view_as(memory)
            bend, grow = self.change(memory).split(2, dim=-1)
            along, across = _bounded(bend, BEND_LIMIT).split(1, dim=-1)
            velocity = velocity * (1 + along) + _turned(velocity) * across + push
            place = place + velocity
            log_size = log_size + 0.1 * grow
            # detached: no trajectory is bent so that its error is easier to foretell
            scale = scale + F.softplus(self.doubt(inputs.detach()) + SCALE_BIAS)
            centre = projected(place, back_33) + offset
            centres.append(centre)
            sizes.append(log_size)
            scales.append(scale)
        return Trajectory(torch.stack(centres, 1), torch.stack(sizes, 1), torch.stack(scales, 1))

    def loss(self, context_BTS8: Tensor, target_BhS8: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss of the trajectories after packed tracks (``tracks.PACKED``), and its parts."""
        object_BN, context = unpack_tracks(context_BTS8)
        _, future = unpack_tracks(target_BhS8, object_BN)
        with torch.autocast(context_BTS8.device.type, enabled=False):
            parts = trajectory_loss(self(object_BN, context, target_BhS8.shape[1]), context, future)
        return trajectory_total(parts), {name: part.detach() for name, part in parts.items()}

    def _start(
        self, object_BN: Tensor, tracks: Tracks, seen: LastObservation
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns place (when last seen) and velocity on the plane, memory, and log size."""
        visible = tracks.visible_BTN
        place = to_plane(self.homography, tracks.centre_BTN2)
        both = (visible[:, 1:] & visible[:, :-1])[..., None]
        moved_BLN2 = (place[:, 1:] - place[:, :-1]) * both
        first = torch.zeros_like(moved_BLN2[:, :1])
        features = [
            visible[..., None],
            tracks.truncated_BTN[..., None],
            tracks.centre_BTN2 * visible[..., None],
            tracks.std_BTN2 * STD_UNIT,
            torch.cat([first, moved_BLN2 * SPEED_UNIT], dim=1),
        ]
        if tracks.doubt_BTN2 is not None:
            features.append(_clamped(tracks.doubt_BTN2 * DOUBT_UNIT))
        past = torch.cat(features, dim=-1).transpose(1, 2).flatten(2)
        kind = self.kind(object_BN % self.kind.num_embeddings)
        memory = self.history(torch.cat([past, kind], -1))
        weight, shift, grow = self.start(memory).split([PAST, 2, 2], dim=-1)
        velocity = (weight.transpose(1, 2)[..., None] * moved_BLN2).sum(1)
        last = place.gather(1, seen.frame_BN[:, None, :, None].expand(-1, 1, -1, 2))[:, 0]
        return last + 0.1 * shift, velocity, memory, 0.1 * grow

    def _interact(
        self, place: Tensor, velocity: Tensor, memory: Tensor, std_BN2: Tensor, pairs_BNN: Tensor
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
        size = std_BN2.mean(-1)
        sizes = torch.stack([size[:, :, None].expand_as(pairs_BNN), size[:, None].expand_as(pairs_BNN)], -1)
        speeds = torch.cat([approach, pass_by], -1) * SPEED_UNIT
        # clamped together: each operation on a few objects costs as much as on many
        shape = _clamped(torch.cat([distance * 4, 0.1 / distance, speeds, when, nearest * 10], -1))
        shape = torch.cat([shape, sizes * STD_UNIT], -1)
        pair = self.pair(
            self.pair_own(memory)[:, :, None] + self.pair_other(memory)[:, None] + self.pair_shape(shape)
        )
        pair = pair * pairs_BNN[..., None]
        along, across = (_bounded(0.1 * self.push(pair), PUSH_LIMIT) * pairs_BNN[..., None]).split(1, dim=-1)
        return (along * normal + across * _turned(normal)).sum(2), pair.sum(2)

    @torch.no_grad()
    def calibrate(self, class_M: Tensor, centre_M2: Tensor, std_M: Tensor) -> None:
        """Lays the plane where the sizes of whole objects put it (see ``fit_plane``); too few change nothing."""
        plane = fit_plane(class_M, centre_M2, std_M)
        if plane is not None:
            self.homography.copy_(plane)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs), nn.SiLU())


def _clamped(feature: Tensor) -> Tensor:
    return feature.clamp(-FEATURE_LIMIT, FEATURE_LIMIT)


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
        last(tracks.std_BTN2),
        last(tracks.truncated_BTN),
        tracks.aspect,
        None if tracks.doubt_BTN2 is None else last(tracks.doubt_BTN2),
    )
