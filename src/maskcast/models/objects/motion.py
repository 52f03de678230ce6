"""Object motion: forecasts the trajectory of every observed object.

It is a recurrent network over objects and pairs of objects (an interaction network: Battaglia et al. 2016, arXiv
1612.00222). Positions are on the ground plane (``plane``), where motion is straight. Every vector that the network
adds is a learned multiple of a given vector: a past displacement, or the line between two objects. So it need not
learn each direction separately. All outputs start at zero, so that an untrained network moves nothing.

Shapes: B clips, T context frames, h horizon, N objects, S objects of a packed track, F features, L displacements
used.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.models.objects.completion import Completion
from maskcast.models.objects.pairs import (
    FEATURES,
    OF_CONTACTS,
    SPEED_UNIT,
    STD_UNIT,
    PairIndex,
    clamped,
    pair_features,
)
from maskcast.models.objects.plane import displaced, fit_plane, inverse, perpendicular, project, to_plane
from maskcast.models.objects.state import Observations, State, StateEstimate
from maskcast.models.objects.tracks import DOUBT, LastObservation, Tracks, unpack_tracks
from maskcast.models.objects.trajectories import Trajectory, trajectory_loss, trajectory_total
from maskcast.models.recurrent.cells import set_to_zero

PAST = 5  # displacements before the last frame that enter the velocity
CONTEXT = 11  # frames from which state and friction are estimated
SLOPE = (0.3, 0.4, 0.3)  # weights of the last three displacements in the least-squares velocity of four places
KIND = 16  # width of a class embedding, which holds friction, bounce and size
DOUBT_UNIT = 100.0  # scales the error of a completed centre, in picture heights, to about 1
SCALE_BIAS = -5.0  # initial growth of the expected error per step, before softplus: 0.7 % of the height
CHANGE_LIMIT = 0.25  # most that a step changes a velocity, relative to it
STATE_WEIGHT = 0.5  # weight of the error of the state without interactions, relative to that of the trajectory
PUSH_LIMIT = 0.2  # most that one object changes the velocity of another in a step


class ObjectMotion(nn.Module):
    """Continues the trajectories of the objects in the context over any horizon.

    Args:
        hidden: width of an object's memory.
        num_classes: K; a class embedding tells, e.g., a sphere, which rolls on, from a cube.
        whole: whether tracks are those of whole objects (``completion``), with their uncertainty.
    """

    homography: Tensor

    def __init__(self, hidden: int, num_classes: int, *, whole: bool = False) -> None:
        super().__init__()
        self.register_buffer("homography", torch.zeros(8))
        self.completion = Completion(num_classes) if whole else None
        self.kind = nn.Embedding(num_classes, KIND)
        nn.init.normal_(self.kind.weight, std=0.1)
        self.context = CONTEXT if whole else PAST + 1
        self.estimate = StateEstimate(hidden, KIND, PAST + 1, CONTEXT) if whole else None
        state_features = self.estimate.features if self.estimate else 0
        self.history = _mlp((PAST + 1) * (8 + len(DOUBT) * whole) + KIND + state_features, hidden, hidden)
        self.start = nn.Linear(hidden, PAST + 2 + 2 * (not whole))
        self.pair_own, self.pair_other = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden, bias=False)
        self.pair_shape = nn.Linear(FEATURES + OF_CONTACTS * whole, hidden)
        self.pair = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.push = nn.Linear(hidden, 2 + 2 * whole)
        self.reach = nn.Linear(KIND, 1) if whole else None
        self.node = _mlp(2 * hidden + 8, hidden, hidden)
        self.memory = nn.GRUCell(hidden, hidden)
        self.change = nn.Linear(hidden, 4)
        self.doubt = nn.Sequential(nn.Linear(2 * hidden + 8, hidden), nn.SiLU(), nn.Linear(hidden, 2))
        self.reset_to_persistence()

    def reset_to_persistence(self) -> None:
        """Resets it to no motion, a plane equal to the image plane, and the initial expected errors."""
        self.homography.zero_()
        for head in (self.start, self.push, self.change, self.doubt[-1]):
            set_to_zero(head)
        if self.estimate is not None and self.reach is not None:
            self.estimate.reset_to_persistence()
            set_to_zero(self.reach)

    @torch.no_grad()
    def reset_to_constant_velocity(self) -> None:
        """Resets it to constant velocities in the image."""
        self.reset_to_persistence()
        if self.estimate is not None:
            self.estimate.reset_to_constant_velocity()
        else:
            self.start.bias[PAST - len(SLOPE) : PAST] = torch.tensor(SLOPE)

    def forward(
        self, object_BN: Tensor, tracks: Tracks, horizon: int, moved_BN4: Tensor | None = None
    ) -> Trajectory:
        """Returns the trajectories over ``horizon`` steps; they are arbitrary for objects that were never visible.

        Args:
            object_BN: class ids or object numbers (``parts``); 0 as padding.
            tracks: of these objects in the context, of which the last ``context`` frames are used.
            horizon: number of steps after the last frame.
            moved_BN4: displacement of place and velocity when last seen from their estimates (``displaced``).
        """
        return self._roll_out(object_BN, tracks, horizon, moved_BN4)[0]

    def _roll_out(
        self, object_BN: Tensor, tracks: Tracks, horizon: int, moved_BN4: Tensor | None = None
    ) -> tuple[Trajectory, State, Tensor]:
        """Returns the trajectories, their initial state, and the offsets of centres from their places."""
        seen = tracks.latest(PAST + 1).last_observation()
        kind = self.kind(object_BN % self.kind.num_embeddings)
        state, memory, log_size = self._initial_state(kind, tracks, seen)
        place, velocity = state.place_BN2, state.velocity_BN2
        index = PairIndex.of(seen.exists_BN)
        centres, sizes, step_inputs = [], [], []
        to_image_33 = inverse(self.homography)
        offset = seen.centre_BN2 - project(state.seen_place_BN2, to_image_33)  # exact for resting objects
        if self.estimate is None:
            offset = offset.detach()
        if moved_BN4 is not None:
            seen_place, velocity = displaced(self.homography, state.seen_place_BN2, velocity, moved_BN4)
            later = (velocity - state.velocity_BN2) * (PAST - seen.frame_BN)[..., None]
            place = place + seen_place - state.seen_place_BN2 + later
        centre = project(place, to_image_33) + offset
        radius_BN = None
        if state.radius_BN is not None and self.reach is not None:
            radius_BN = state.radius_BN * self.reach(kind)[..., 0].exp()
        for _ in range(horizon):
            push, delayed, message = self._interact(index, place, velocity, memory, seen.std_BN2, radius_BN)
            moves = torch.cat([velocity, push], -1) * SPEED_UNIT
            inputs = torch.cat([memory, message, clamped(torch.cat([moves, centre], -1)), log_size], -1)
            memory_BNF = self.memory(self.node(inputs).flatten(0, 1), memory.flatten(0, 1))
            memory = memory_BNF.view_as(memory)
            change, growth = self.change(memory).split(2, dim=-1)
            along, across = _bounded(change, CHANGE_LIMIT).split(1, dim=-1)
            if state.friction is not None:
                next_velocity = state.friction.next_velocity(velocity)
                place, velocity = place + (velocity - next_velocity) / 2 - delayed, next_velocity
            velocity = velocity * (1 + along) + perpendicular(velocity) * across + push
            place = place + velocity
            log_size = log_size + 0.1 * growth
            centre = project(place, to_image_33) + offset
            centres.append(centre)
            sizes.append(log_size)
            step_inputs.append(inputs)
        # detached: trajectories must not change to make their errors easier to predict
        grows = F.softplus(self.doubt(torch.stack(step_inputs, 1).detach()) + SCALE_BIAS)
        scales = seen.expected_error[:, None] + grows.cumsum(1)
        trajectory = Trajectory(torch.stack(centres, 1), torch.stack(sizes, 1), scales)
        return trajectory, state, offset

    def loss(self, context_BTS8: Tensor, target_BhS8: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss of the trajectories after packed tracks (``tracks.PACKED``), and its terms."""
        object_BN, context = unpack_tracks(context_BTS8)
        _, future = unpack_tracks(target_BhS8, object_BN)
        with torch.autocast(context_BTS8.device.type, enabled=False):
            trajectory, state, offset_BN2 = self._roll_out(object_BN, context, target_BhS8.shape[1])
            parts = trajectory_loss(trajectory, context, future)
            total = trajectory_total(parts)
            if state.friction is not None:  # the state alone should predict a path without interactions
                centre_BhN2 = project(state.later(target_BhS8.shape[1]), inverse(self.homography))
                without_interactions = replace(trajectory, centre_BhN2=centre_BhN2 + offset_BN2[:, None])
                parts["state"] = trajectory_loss(without_interactions, context, future)["place"]
                total = total + STATE_WEIGHT * parts["state"]
        return total, {name: part.detach() for name, part in parts.items()}

    def _initial_state(self, kind: Tensor, tracks: Tracks, seen: LastObservation) -> tuple[State, Tensor, Tensor]:
        """Returns the state in the last frame, the memory and the log size of each object."""
        recent = tracks.latest(PAST + 1)
        visible = recent.visible_BTN
        place = to_plane(self.homography, recent.centre_BTN2)
        both_visible = (visible[:, 1:] & visible[:, :-1])[..., None]
        displacement_BLN2 = (place[:, 1:] - place[:, :-1]) * both_visible
        first = torch.zeros_like(displacement_BLN2[:, :1])
        features = [
            visible[..., None],
            recent.truncated_BTN[..., None],
            recent.centre_BTN2 * visible[..., None],
            recent.std_BTN2 * STD_UNIT,
            torch.cat([first, displacement_BLN2 * SPEED_UNIT], dim=1),
        ]
        if recent.doubt_BTN2 is not None:
            features.append(clamped(recent.doubt_BTN2 * DOUBT_UNIT))
        past = [torch.cat(features, dim=-1).transpose(1, 2).flatten(2), kind]
        if self.estimate is not None:
            observations = Observations.of(self.homography, tracks.latest(self.context))
            latest, size_BN = observations.latest(PAST + 1), observations.size_BN
            paths = self.estimate.friction.measure(observations.place_BRN2, observations.weight_BRN, size_BN)
            memory = self.history(torch.cat([*past, self.estimate.extract_features(paths, latest)], -1))
            memory, friction = self.estimate.add_clip_context(memory, kind, paths, size_BN, seen.exists_BN)
        else:
            memory = self.history(torch.cat(past, -1))
        weight, *shift, growth = self.start(memory).split([PAST, *[2] * (self.estimate is None), 2], dim=-1)
        velocity = (weight.transpose(1, 2)[..., None] * displacement_BLN2).sum(1)
        if self.estimate is not None:
            return self.estimate(memory, latest, friction, seen.frame_BN, velocity), memory, 0.1 * growth
        last = place.gather(1, seen.frame_BN[:, None, :, None].expand(-1, 1, -1, 2))[:, 0] + 0.1 * shift[0]
        return State(last + velocity * (PAST - seen.frame_BN)[..., None], last, velocity), memory, 0.1 * growth

    def _interact(
        self,
        index: PairIndex,
        place: Tensor,
        velocity: Tensor,
        memory: Tensor,
        std_BN2: Tensor,
        radius_BN: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the effect of the others on every object: change of velocity, its delayed part, and message.

        The message is (B, N, F). A push acts only from the contact on. The displacement that it would have caused
        before the contact is the delayed part.
        """
        pairs = pair_features(index, place, velocity, std_BN2, radius_BN)
        own, other = index.own(self.pair_own(memory)), index.other(self.pair_other(memory))
        message = self.pair(own + other + self.pair_shape(pairs.features))
        learned = self.push(message)
        push = 0.1 * learned[..., :2]
        if pairs.contact is not None:  # also a share of the speed at which the two collide
            push = push - pairs.contact.normal_speed * torch.tanh(learned[..., 2:])
        along, across = _bounded(push, PUSH_LIMIT).split(1, dim=-1)
        change = along * pairs.normal + across * perpendicular(pairs.normal)
        delayed = torch.zeros_like(change) if pairs.contact is None else change * pairs.contact.time
        summed = index.summed(torch.cat([change, delayed, message], -1))
        push, delayed, message = summed.split([2, 2, message.shape[-1]], -1)
        return push, delayed, message

    @torch.no_grad()
    def calibrate(self, class_M: Tensor, centre_M2: Tensor, std_M: Tensor) -> None:
        """Fits the plane to the sizes of whole objects (see ``fit_plane``); with too few it is not changed."""
        plane = fit_plane(class_M, centre_M2, std_M)
        if plane is not None:
            self.homography.copy_(plane)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs), nn.SiLU())


def _bounded(x: Tensor, bound: float) -> Tensor:
    """Returns about ``x`` for small ``x``, bounded, as unbounded feedback would make rollouts diverge."""
    return bound * torch.tanh(x / bound)
