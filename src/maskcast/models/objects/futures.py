"""Draws possible futures of objects, whose place and velocity are only known with an error.

Shapes: B clips, h horizon, N objects.
"""

import torch
from torch import Tensor

from maskcast.models.objects.motion import ObjectMotion
from maskcast.models.objects.tracks import Tracks
from maskcast.models.objects.trajectories import Trajectory
from maskcast.seed import rng

FIRST = 2  # steps whose expected errors give that of the velocity
# scale of the draws relative to the expected errors: small draws make the best of a few futures better
DRAW_SCALE = 0.4


def future(motion: ObjectMotion, object_BN: Tensor, tracks: Tracks, horizon: int, seed: int) -> Trajectory:
    """Draws place and velocity of objects when last seen, and returns the trajectories from there.

    So objects at rest stay, and a collision changes the paths of both objects consistently. The spread follows
    from the errors that ``motion`` expects: the error of the last observation is that of the place, and its growth
    in the first steps gives that of the velocity.

    Args:
        motion: computes the trajectories.
        object_BN: class ids or object numbers (``parts``); the draws depend on them and ``seed`` only.
        tracks: of these objects in the context.
        horizon: number of steps after the last frame.
        seed: of the draws.
    """
    place_BN2 = tracks.last_observation().expected_error
    added_BN2 = (motion(object_BN, tracks, FIRST).scale_BhN2[:, -1] - place_BN2) / FIRST
    scale_BN4 = torch.cat([place_BN2, added_BN2], -1)
    draws = torch.from_numpy(rng(seed).laplace(size=(int(object_BN.max()) + 1, 4))).to(scale_BN4)
    return motion(object_BN, tracks, horizon, DRAW_SCALE * draws[object_BN] * scale_BN4)
