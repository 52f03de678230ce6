"""Friction: how much a displacement shrinks per frame, and how long a frame of a clip lasts.

Sliding friction does not depend on speed, rolling friction grows with it, and the time between frames scales both.
In a frame a displacement loses ``slide * tempo^2 + drag * tempo * speed + air * speed^2``. ``slide``, ``drag`` and
``air`` belong to a class, the tempo to a clip. The tempo is not given: it is one of a few candidates, whose
probabilities follow from how well each explains the deceleration of all objects in all windows of the context.

Shapes: B clips, R frames, N objects, W windows of some of the frames, F features, C tempos; the last 2 is (y, x).
An axis of 3 is place, displacement per frame and its change per frame, in the middle of a window; or slide, drag
and air.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.models.objects.pairs import clamped
from maskcast.models.objects.plane import perpendicular
from maskcast.models.recurrent.cells import set_to_zero

LOSS_UNITS = (0.004, 0.01, 0.2)  # scale usual ``slide``, ``drag`` and ``air`` to about 0.5
TEMPOS = 8
SLOWEST, FASTEST = 0.4, 2.2  # range of the initial tempos, relative to the usual one
LENGTHS = (4, 6, 8, 11)  # frames of the windows in which paths are measured, anywhere in the context
ENDS = (3, 4, 5, 6, 8, 11)  # frames of the windows that end with the last frame, which are features of an object
NOISE = 0.03  # error of the place of a whole observation, in units of the object's size
MAX_RESIDUAL = 0.12  # largest residual of a fit, in these units, without a collision
MOVES = 0.003  # least displacement at the end of a window; with less, the object came to rest in it
ACCELERATION_UNIT = 200.0  # scales the change of a displacement per frame, on the plane, to about 1
MIN_DISPLACEMENT = 1e-6  # displacements below it have no direction


@dataclass(frozen=True)
class Friction:
    """The friction of every object."""

    parts_BN3: Tensor

    def deceleration(self, velocity_BN2: Tensor) -> Tensor:
        """Returns by how much displacements shrink in a frame, (B, N, 1)."""
        speed = velocity_BN2.norm(dim=-1, keepdim=True)
        slide, drag, air = self.parts_BN3.split(1, dim=-1)
        return slide + (drag + air * speed) * speed

    def next_velocity(self, velocity_BN2: Tensor) -> Tensor:
        """Returns displacements one frame later; none reverses."""
        speed = velocity_BN2.norm(dim=-1, keepdim=True).clamp(min=MIN_DISPLACEMENT)
        slide, drag, air = self.parts_BN3.split(1, dim=-1)
        return velocity_BN2 * (1 - slide / speed - drag - air * speed).clamp(0, 2)


@dataclass(frozen=True)
class Paths:
    """Speed and acceleration of every object's path in every window."""

    speed_BNW: Tensor  # displacement per frame in the middle of the window
    along_BNW: Tensor  # its change per frame, along the motion
    across_BNW: Tensor
    residual_BNW: Tensor  # residual of a parabola, in units of the object's size
    weight_BNW: Tensor  # weight of the most uncertain observation, 0 if one is missing


class FrictionEstimate(nn.Module):
    """Estimates friction.

    Args:
        kind: width of the class features.
        scene: width of the clip features.
        frames: R.
    """

    fit_W3R: Tensor
    residual_WRR: Tensor
    in_window_WR: Tensor
    length_W: Tensor
    error_W: Tensor
    share_W: Tensor
    units_3: Tensor

    def __init__(self, kind: int, scene: int, frames: int) -> None:
        super().__init__()
        spans = [(frames - length, frames) for length in ENDS if length <= frames]
        self.ends = len(spans)
        spans += [(end - n, end) for n in LENGTHS for end in range(n, frames + 1)]
        fit_W3R, residual_WRR = (np.zeros((len(spans), rows, frames)) for rows in (3, frames))
        for k, (start, end) in enumerate(spans):
            t_L1 = np.arange(end - start)[:, None] - (end - start - 1) / 2
            basis_L3 = t_L1 ** np.arange(3) / (1, 1, 2)
            fit_W3R[k, :, start:end] = solved = np.linalg.pinv(basis_L3)
            residual_WRR[k, start:end, start:end] = np.eye(end - start) - basis_L3 @ solved
        lengths_W = np.array([end - start for start, end in spans])
        for name, matrix in (
            ("fit_W3R", fit_W3R),
            ("residual_WRR", residual_WRR),
            ("in_window_WR", residual_WRR.any(1)),
            ("length_W", lengths_W),
            ("error_W", np.linalg.norm(fit_W3R[:, 2], axis=-1)),  # error of an acceleration, relative to a place's
            ("units_3", np.array(LOSS_UNITS)),
            ("share_W", np.array([1 / (frames + 1 - n) for n in lengths_W])),
        ):
            self.register_buffer(name, torch.from_numpy(matrix).float(), persistent=False)
        self.of_kind = nn.Linear(kind, 3)
        self.tempo = nn.Parameter(torch.linspace(np.log(SLOWEST), np.log(FASTEST), TEMPOS))
        windows = len(spans)
        self.noise = nn.Parameter(torch.full((windows,), float(np.log(NOISE))))
        self.counts = nn.Parameter(torch.zeros(windows))
        self.usual = nn.Linear(scene, TEMPOS)
        self.features = 4 * self.ends
        self.reset()

    def reset(self) -> None:
        """Resets friction to 0 at any tempo."""
        for layer in (self.of_kind, self.usual):
            set_to_zero(layer)

    def measure(self, place_BRN2: Tensor, weight_BRN: Tensor, size_BN: Tensor) -> Paths:
        """Measures the deceleration of paths."""
        fitted = torch.einsum("wkr,brnc->kbnwc", self.fit_W3R, place_BRN2)
        speed = fitted[1].norm(dim=-1)
        forward = fitted[1] / speed.clamp(min=MIN_DISPLACEMENT)[..., None]
        residual = torch.einsum("wsr,brnc->bnwsc", self.residual_WRR, place_BRN2).square().sum(-1).amax(-1).sqrt()
        in_window = self.in_window_WR > 0
        weight = weight_BRN.transpose(1, 2)[:, :, None].masked_fill(~in_window, 1.0).amin(-1)
        along, across = ((fitted[2] * axis).sum(-1) for axis in (forward, perpendicular(forward)))
        return Paths(speed, along, across, residual / size_BN[..., None], weight)

    def extract_features(self, paths: Paths) -> Tensor:
        """Returns features (B, N, F) of the paths' deceleration at the end of the context."""
        at_end = paths.along_BNW, paths.across_BNW, paths.residual_BNW, paths.weight_BNW
        along, across, residual, weight = (field[..., : self.ends] for field in at_end)
        observed = (weight > 0).to(weight.dtype)
        features = torch.cat([along * ACCELERATION_UNIT, across * ACCELERATION_UNIT, residual * 4], -1)
        return torch.cat([clamped(features) * observed.repeat(1, 1, 3), observed], -1)

    def forward(
        self, kind_BNF: Tensor, scene_BF: Tensor, paths: Paths, size_BN: Tensor, exists_BN: Tensor
    ) -> tuple[Friction, Tensor]:
        """Returns the friction, and the probability of each tempo (B, C)."""
        slide, drag, air = (self.units_3 * F.silu(self.of_kind(kind_BNF))).split(1, dim=-1)
        tempo_C = self.tempo.exp()
        speed, deceleration = paths.speed_BNW.detach(), -paths.along_BNW
        expected = (slide * tempo_C**2)[:, :, None] + (drag * tempo_C)[:, :, None] * speed[..., None]
        expected = expected + (air * speed**2)[..., None]
        noise = self.noise.exp() * size_BN[..., None] * self.error_W / paths.weight_BNW.clamp(min=1e-4).sqrt()
        nll = torch.log1p(((deceleration[..., None] - expected) / (noise[..., None] + 1e-5)) ** 2)
        end_speed = speed - deceleration.abs() * self.length_W / 2
        is_valid = (paths.weight_BNW > 1e-3) & (paths.residual_BNW < MAX_RESIDUAL) & (end_speed > MOVES)
        weight = (is_valid & exists_BN[..., None]) * self.share_W * self.counts.exp()
        share_BC = (self.usual(scene_BF) - (nll * weight[..., None]).sum((1, 2))).softmax(-1)
        tempo_B11 = (share_BC * tempo_C).sum(-1)[:, None, None]
        return Friction(torch.cat([slide * tempo_B11**2, drag * tempo_B11, air.expand_as(slide)], -1)), share_BC
