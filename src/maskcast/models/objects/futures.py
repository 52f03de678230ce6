"""Futures: where objects may go, because nobody knows exactly where they are and how fast.

Shapes: B clips, h horizon, N objects.
"""

import torch
from torch import Tensor

from maskcast.models.objects.motion import ObjectMotion
from maskcast.models.objects.tracks import Tracks
from maskcast.models.objects.trajectories import Trajectory
from maskcast.seed import rng

FIRST = 2  # steps whose expected errors tell that of the velocity
NEAR = 0.4  # of the expected errors that draws have: the best of a few futures is nearest where they stay near


def future(motion: ObjectMotion, object_BN: Tensor, tracks: Tracks, horizon: int, seed: int) -> Trajectory:
    """Returns where objects may go: place and velocity when last seen are drawn, and rolled out from there.

    So what rests stays where it is, and a hit sends both objects elsewhere. How wide to draw is told by the errors
    that ``motion`` expects: that of what was seen is one of the place, what the first steps add is one of the
    velocity.

    Args:
        motion: rolls out.
        object_BN: class ids, or numbers of objects (``parts``); what is drawn depends on them and ``seed`` alone.
        tracks: of these objects in the context.
        horizon: steps after the last frame.
        seed: of the draws.
    """
    place_BN2 = tracks.last_observation().expected_error
    added_BN2 = (motion(object_BN, tracks, FIRST).scale_BhN2[:, -1] - place_BN2) / FIRST
    scale_BN4 = torch.cat([place_BN2, added_BN2], -1)
    draws = torch.from_numpy(rng(seed).laplace(size=(int(object_BN.max()) + 1, 4))).to(scale_BN4)
    return motion(object_BN, tracks, horizon, NEAR * draws[object_BN] * scale_BN4)
