"""Estimates place and velocity of objects on the plane in the last frame, from observations since a collision.

A velocity from two observations is noisy. One from many observations is biased by friction, and by collisions in
between. So motion with friction (estimated in ``friction``) is fitted to the last 2, 3, ... frames. The state is a
weighted mean of the fits, in which long ones count while no observation has a large residual.

Shapes: B clips, R frames, N objects, W windows that end with the last frame, F features, the last 2 is (y, x).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskcast.models.objects.friction import (
    MAX_RESIDUAL,
    MIN_DISPLACEMENT,
    NOISE,
    TEMPOS,
    Friction,
    FrictionEstimate,
    Paths,
)
from maskcast.models.objects.plane import to_plane
from maskcast.models.objects.tracks import Tracks
from maskcast.models.recurrent.cells import set_to_zero

RADIUS = 1.5  # initial radius of an object in units of its size; that of a disc seen from above is 2
SHARPNESS = 2.0  # log of the sharpness with which fits with large residuals are excluded


@dataclass(frozen=True)
class Observations:
    """Observations of objects, on the plane."""

    place_BRN2: Tensor
    weight_BRN: Tensor  # 0 if an object is not visible, 1 if nothing cuts it, else by its uncertainty
    size_BN: Tensor  # mean standard deviation of the pixels

    @staticmethod
    def of(homography: Tensor, tracks: Tracks) -> "Observations":
        """Makes the observations from completed tracks."""
        assert tracks.doubt_BTN2 is not None
        std_BRN1 = tracks.std_BTN2.mean(-1, keepdim=True)
        place_BRN2 = to_plane(homography, tracks.centre_BTN2)
        one_std_right = tracks.centre_BTN2 + torch.cat([torch.zeros_like(std_BRN1), std_BRN1], -1)
        size_BRN = (to_plane(homography, one_std_right) - place_BRN2).norm(dim=-1) * tracks.visible_BTN
        size_BN = (size_BRN.sum(1) / tracks.visible_BTN.sum(1).clamp(min=1)).clamp(min=1e-3)
        doubt_BRN = tracks.doubt_BTN2.mean(-1) / std_BRN1[..., 0].clamp(min=1e-3)
        return Observations(place_BRN2, tracks.visible_BTN / (1 + (doubt_BRN / NOISE) ** 2), size_BN)

    def latest(self, frames: int) -> "Observations":
        """Returns the observations of the last frames."""
        return Observations(self.place_BRN2[:, -frames:], self.weight_BRN[:, -frames:], self.size_BN)


@dataclass(frozen=True)
class State:
    """Places of objects in the last frame and when seen last, and their velocities.

    Friction and radius are given if they are estimated.
    """

    place_BN2: Tensor
    seen_place_BN2: Tensor
    velocity_BN2: Tensor  # displacement per frame
    friction: Friction | None = None
    radius_BN: Tensor | None = None

    def later(self, horizon: int) -> Tensor:
        """Returns the places (B, h, N, 2) in the next frames, without interactions."""
        assert self.friction is not None
        place, velocity, places = self.place_BN2, self.velocity_BN2, []
        for _ in range(horizon):
            next_velocity = self.friction.next_velocity(velocity)
            place, velocity = place + (velocity + next_velocity) / 2, next_velocity
            places.append(place)
        return torch.stack(places, 1)


class StateEstimate(nn.Module):
    """Estimates the state.

    Args:
        hidden: width of the object features.
        kind: width of the class features.
        frames: number of frames for the fits.
        context: number of frames for estimating friction.
    """

    def __init__(self, hidden: int, kind: int, frames: int, context: int) -> None:
        super().__init__()
        self.frames = frames
        self.friction = FrictionEstimate(kind, hidden, context)
        self.features = self.friction.features + frames
        self.scene = nn.Linear(hidden, hidden + 1)
        self.told = nn.Sequential(
            nn.Linear(2 * hidden + TEMPOS, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.head = nn.Linear(hidden, frames)

    def reset_to_persistence(self) -> None:
        """Resets it to no motion."""
        set_to_zero(self.head)
        self.friction.reset()

    @torch.no_grad()
    def reset_to_constant_velocity(self) -> None:
        """Resets it to constant fitted velocities."""
        self.reset_to_persistence()
        self.head.bias[0] = 1.0

    def extract_features(self, paths: Paths, observations: Observations) -> Tensor:
        """Returns features (B, N, F): deceleration of paths, and certainty of observations."""
        return torch.cat([self.friction.extract_features(paths), observations.weight_BRN.transpose(1, 2)], -1)

    def add_clip_context(
        self, memory_BNF: Tensor, kind_BNF: Tensor, paths: Paths, size_BN: Tensor, exists_BN: Tensor
    ) -> tuple[Tensor, Friction]:
        """Returns object features that include information of the whole clip, and the friction."""
        values, gate = self.scene(memory_BNF).split([memory_BNF.shape[-1], 1], -1)
        gate = gate.sigmoid() * exists_BN[..., None]
        scene_B1F = (values * gate).sum(1, keepdim=True) / (gate.sum(1, keepdim=True) + 0.01)
        friction, tempo_BC = self.friction(kind_BNF, scene_B1F[:, 0], paths, size_BN, exists_BN)
        of_clip = torch.cat([scene_B1F, tempo_BC[:, None]], -1).expand(-1, memory_BNF.shape[1], -1)
        return memory_BNF + self.told(torch.cat([memory_BNF, of_clip], -1)), friction

    def forward(
        self,
        memory_BNF: Tensor,
        observations: Observations,
        friction: Friction,
        frame_BN: Tensor,
        added_BN2: Tensor,
    ) -> State:
        """Returns the state.

        Args:
            memory_BNF: from ``add_clip_context``.
            observations: of the last R frames.
            friction: from ``add_clip_context``.
            frame_BN: index of the last frame in which an object is visible.
            added_BN2: correction that is added to the velocity.
        """
        windows = observations.weight_BRN.shape[1] - 1
        gain, logit_BNW = self.head(memory_BNF).split([1, windows], -1)
        place, velocity, residual, precision = fit(observations, friction)
        logit_BNW = logit_BNW + precision.log() - SHARPNESS * (residual / MAX_RESIDUAL).clamp(max=4) ** 2
        weight_BNW1 = logit_BNW.softmax(-1)[..., None]
        place, velocity = (weight_BNW1 * place).sum(2), gain * (weight_BNW1 * velocity).sum(2) + added_BN2
        ago_BN1 = (windows - frame_BN)[..., None]
        seen_place = extrapolate(place, velocity, friction.deceleration(velocity), -ago_BN1)
        return State(place, seen_place, velocity, friction, RADIUS * observations.size_BN)


def fit(observations: Observations, friction: Friction) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fits motion with constant deceleration to the last 2, 3, ... R frames, by weighted least squares.

    Returns:
        Place and velocity in the last frame, (B, N, W, 2); the largest weighted residual relative to the object's
        size, (B, N, W); and the precision of the velocity: 1 / variance, in units of that of an observation.
    """
    frames = observations.weight_BRN.shape[1]
    t_R1 = torch.arange(1.0 - frames, 1.0, device=observations.size_BN.device)[:, None]
    lengths_W = torch.arange(2, frames + 1, device=t_R1.device)
    in_window_W1R1 = (t_R1 > -lengths_W[:, None, None])[:, None]
    weight_WBRN1 = (in_window_W1R1 * observations.weight_BRN)[..., None]
    mean_velocity_WBN2 = _fit_line(observations.place_BRN2, weight_WBRN1, t_R1)[1]
    along_WBN2, deceleration_WBN1 = _direction(mean_velocity_WBN2), friction.deceleration(mean_velocity_WBN2)
    acceleration_WB1N2 = (deceleration_WBN1 * along_WBN2)[:, :, None]
    frictionless_WBRN2 = observations.place_BRN2 + (0.5 * t_R1**2)[..., None] * acceleration_WB1N2
    place_WBN2, velocity_WBN2, precision_WBN1 = _fit_line(frictionless_WBRN2, weight_WBRN1, t_R1)
    reversal = (velocity_WBN2 * along_WBN2).sum(-1, keepdim=True).clamp(max=0)
    velocity_WBN2 = velocity_WBN2 - reversal * along_WBN2  # an object that would reverse has come to rest
    error_WBRN2 = frictionless_WBRN2 - place_WBN2[:, :, None] - t_R1[..., None] * velocity_WBN2[:, :, None]
    worst_WBN = ((error_WBRN2.square() * weight_WBRN1).sum(-1).amax(2) + 1e-12).sqrt() / observations.size_BN
    place, velocity, residual, precision = (
        found.movedim(0, 2) for found in (place_WBN2, velocity_WBN2, worst_WBN, precision_WBN1[..., 0])
    )
    return place, velocity, residual, precision


def _fit_line(place_RN2: Tensor, weight_RN1: Tensor, t_R1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fits place at time 0, velocity (..., N, 2) and its precision (..., N, 1) by weighted least squares.

    With a single observation the velocity is 0; without any, the precision is minimal. Places and weights may have
    further leading axes.
    """
    t_R11 = t_R1[..., None]
    total = weight_RN1.sum(-3).clamp(min=1e-9)
    middle = (weight_RN1 * t_R11).sum(-3) / total
    mean = (weight_RN1 * place_RN2).sum(-3) / total
    t = t_R11 - middle[..., None, :, :]
    precision = (weight_RN1 * t**2).sum(-3)
    velocity = (weight_RN1 * t * (place_RN2 - mean[..., None, :, :])).sum(-3) / precision.clamp(min=1e-6)
    return mean - velocity * middle, velocity, precision.clamp(min=1e-6) * (total > 1e-8) + 1e-20


def extrapolate(place: Tensor, velocity: Tensor, deceleration: Tensor, frames: Tensor) -> Tensor:
    """Returns the places (..., 2) ``frames`` frames later, or earlier if it is negative."""
    lost = 0.5 * deceleration * frames / velocity.norm(dim=-1, keepdim=True).clamp(min=MIN_DISPLACEMENT)
    return place + velocity * frames * (1 - lost.clamp(-4.0, 0.5))


def _direction(vector: Tensor) -> Tensor:
    return vector / vector.norm(dim=-1, keepdim=True).clamp(min=MIN_DISPLACEMENT)
