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
from maskcast.models.objects.plane import turned
from maskcast.models.recurrent.cells import set_to_zero

LOSS_UNITS = (0.004, 0.01, 0.2)  # scale usual ``slide``, ``drag`` and ``air`` to about 0.5
TEMPOS = 8
SLOWEST, FASTEST = 0.4, 2.2  # range of the initial tempos, relative to the usual one
LENGTHS = (4, 6, 8, 11)  # frames of the windows in which paths are measured, anywhere in the context
ENDS = (3, 4, 5, 6, 8, 11)  # frames of the windows that end with the last frame, which are features of an object
NOISE = 0.03  # error of the place of a whole observation, in units of the object's size
MAX_RESIDUAL = 0.12  # largest residual of a fit, in these units, without a collision
MOVES = 0.003  # least displacement at the end of a window; with less, the object came to rest in it
BEND_UNIT = 200.0  # scales the change of a displacement per frame, on the plane, to about 1
MIN_DISPLACEMENT = 1e-6  # displacements below it have no direction


@dataclass(frozen=True)
class Friction:
    """The friction of every object."""

    parts_BN3: Tensor

    def brake(self, velocity_BN2: Tensor) -> Tensor:
        """Returns by how much displacements shrink in a frame, (B, N, 1)."""
        speed = velocity_BN2.norm(dim=-1, keepdim=True)
        slide, drag, air = self.parts_BN3.split(1, dim=-1)
        return slide + (drag + air * speed) * speed

    def slowed(self, velocity_BN2: Tensor) -> Tensor:
        """Returns displacements one frame later; none reverses."""
        speed = velocity_BN2.norm(dim=-1, keepdim=True).clamp(min=MIN_DISPLACEMENT)
        slide, drag, air = self.parts_BN3.split(1, dim=-1)
        return velocity_BN2 * (1 - slide / speed - drag - air * speed).clamp(0, 2)


@dataclass(frozen=True)
class Bends:
    """The deceleration of every object's path in every window."""

    speed_BNW: Tensor  # displacement per frame in the middle of the window
    along_BNW: Tensor  # its change per frame, along the motion
    across_BNW: Tensor
    missed_BNW: Tensor  # residual of a parabola, in units of the object's size
    weight_BNW: Tensor  # weight of the most uncertain observation, 0 if one is missing


class FrictionEstimate(nn.Module):
    """Estimates friction.

    Args:
        kind: width of the class features.
        scene: width of the clip features.
        frames: R.
    """

    solve_W3R: Tensor
    miss_WRR: Tensor
    inside_WR: Tensor
    length_W: Tensor
    spread_W: Tensor
    share_W: Tensor
    units_3: Tensor

    def __init__(self, kind: int, scene: int, frames: int) -> None:
        super().__init__()
        spans = [(frames - length, frames) for length in ENDS if length <= frames]
        self.ends = len(spans)
        spans += [(end - n, end) for n in LENGTHS for end in range(n, frames + 1)]
        solve_W3R, miss_WRR = (np.zeros((len(spans), rows, frames)) for rows in (3, frames))
        for k, (start, end) in enumerate(spans):
            t_L1 = np.arange(end - start)[:, None] - (end - start - 1) / 2
            basis_L3 = t_L1 ** np.arange(3) / (1, 1, 2)
            solve_W3R[k, :, start:end] = solved = np.linalg.pinv(basis_L3)
            miss_WRR[k, start:end, start:end] = np.eye(end - start) - basis_L3 @ solved
        lengths_W = np.array([end - start for start, end in spans])
        for name, matrix in (
            ("solve_W3R", solve_W3R),
            ("miss_WRR", miss_WRR),
            ("inside_WR", miss_WRR.any(1)),
            ("length_W", lengths_W),
            ("spread_W", np.linalg.norm(solve_W3R[:, 2], axis=-1)),  # error of a bend, relative to a place's
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

    def measure(self, place_BRN2: Tensor, weight_BRN: Tensor, size_BN: Tensor) -> Bends:
        """Measures the deceleration of paths."""
        state = torch.einsum("wkr,brnc->kbnwc", self.solve_W3R, place_BRN2)
        speed = state[1].norm(dim=-1)
        forward = state[1] / speed.clamp(min=MIN_DISPLACEMENT)[..., None]
        missed = torch.einsum("wsr,brnc->bnwsc", self.miss_WRR, place_BRN2).square().sum(-1).amax(-1).sqrt()
        inside = self.inside_WR > 0
        weight = weight_BRN.transpose(1, 2)[:, :, None].masked_fill(~inside, 1.0).amin(-1)
        along, across = ((state[2] * axis).sum(-1) for axis in (forward, turned(forward)))
        return Bends(speed, along, across, missed / size_BN[..., None], weight)

    def extract_features(self, bends: Bends) -> Tensor:
        """Returns features (B, N, F) of the paths' deceleration at the end of the context."""
        fields = bends.along_BNW, bends.across_BNW, bends.missed_BNW, bends.weight_BNW
        along, across, missed, weight = (field[..., : self.ends] for field in fields)
        seen = (weight > 0).to(weight.dtype)
        numbers = torch.cat([along * BEND_UNIT, across * BEND_UNIT, missed * 4], -1)
        return torch.cat([clamped(numbers) * seen.repeat(1, 1, 3), seen], -1)

    def forward(
        self, kind_BNF: Tensor, scene_BF: Tensor, bends: Bends, size_BN: Tensor, exists_BN: Tensor
    ) -> tuple[Friction, Tensor]:
        """Returns the friction, and the probability of each tempo (B, C)."""
        slide, drag, air = (self.units_3 * F.silu(self.of_kind(kind_BNF))).split(1, dim=-1)
        tempo_C = self.tempo.exp()
        speed, found = bends.speed_BNW.detach(), -bends.along_BNW
        expected = (slide * tempo_C**2)[:, :, None] + (drag * tempo_C)[:, :, None] * speed[..., None]
        expected = expected + (air * speed**2)[..., None]
        noise = self.noise.exp() * size_BN[..., None] * self.spread_W / bends.weight_BNW.clamp(min=1e-4).sqrt()
        surprise = torch.log1p(((found[..., None] - expected) / (noise[..., None] + 1e-5)) ** 2)
        left = speed - found.abs() * self.length_W / 2
        counts = (
            (bends.weight_BNW > 1e-3) & (bends.missed_BNW < MAX_RESIDUAL) & (left > MOVES) & exists_BN[..., None]
        )
        weight = counts * self.share_W * self.counts.exp()
        likely_BC = (self.usual(scene_BF) - (surprise * weight[..., None]).sum((1, 2))).softmax(-1)
        tempo_B11 = (likely_BC * tempo_C).sum(-1)[:, None, None]
        return Friction(torch.cat([slide * tempo_B11**2, drag * tempo_B11, air.expand_as(slide)], -1)), likely_BC
