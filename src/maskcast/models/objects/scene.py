"""A scene: the objects in some clips, their last observations and their trajectories.

Shapes: B clips, T context frames, R of them that are recent, h horizon, N objects, H height, W width.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from maskcast.models.arithmetic import without_autocast
from maskcast.models.objects.filling import MARGIN, filled_masks
from maskcast.models.objects.futures import future
from maskcast.models.objects.motion import PAST, ObjectMotion
from maskcast.models.objects.picks import ALL, Pick
from maskcast.models.objects.tracks import LastObservation, find_objects, track_objects
from maskcast.models.objects.trajectories import Trajectory, still
from maskcast.models.objects.warp import seen_masks


@dataclass(frozen=True)
class Scene:
    """The objects of some clips and their trajectories."""

    recent_BRHW: Tensor
    object_BN: Tensor
    seen: LastObservation
    trajectory: Trajectory

    @property
    def last_mask(self) -> Tensor:
        """The last mask (B, H, W)."""
        return self.recent_BRHW[:, -1]

    @cached_property
    def masks(self) -> Tensor:
        """The mask of every object when seen last, (B, N, H, W) bool; with a margin it is filled."""
        masks = filled_masks if self.seen.margin else seen_masks
        return masks(self.recent_BRHW, self.object_BN, self.seen)

    def pick(self, clips: slice = ALL, steps: Pick = ALL) -> "Scene":
        """Returns a part of the clips and steps."""
        recent, objects = self.recent_BRHW[clips], self.object_BN[clips]
        return Scene(recent, objects, self.seen.pick(clips), self.trajectory.pick(clips, steps))


def observe(
    context_BTHW: Tensor,
    num_classes: int,
    motion: ObjectMotion | None,
    horizon: int,
    seed: int | None = None,
    *,
    fill: bool = True,
) -> Scene:
    """Makes the scene from (B, T, H, W) masks without unknown pixels.

    With ``motion``, the scene includes objects that are hidden in the last frame but were seen in a recent one.
    Without it, the scene has the objects of the last mask, which do not move. With ``seed``, trajectories are
    drawn at random (``futures``). With ``fill``, completed objects are filled; a loss does without, because shapes
    are not learned.
    """
    recent_BRHW = context_BTHW[:, -1:] if motion is None else context_BTHW[:, -PAST - 1 :]
    object_BN = find_objects(recent_BRHW, num_classes)
    observed_BTHW = recent_BRHW if motion is None else context_BTHW[:, -motion.context :]
    tracks = track_objects(observed_BTHW, object_BN)
    with without_autocast(context_BTHW.device):
        if motion is not None and motion.completion is not None:
            tracks = motion.completion.complete(observed_BTHW, object_BN, tracks)
        if motion is None:
            trajectory = still(tracks, horizon)
        elif seed is None:
            trajectory = motion(object_BN, tracks, horizon)
        else:
            trajectory = future(motion, object_BN, tracks, horizon, seed)
    seen = tracks.latest(recent_BRHW.shape[1]).last_observation()
    if fill and seen.doubt_BN2 is not None:
        seen = replace(seen, margin=round(MARGIN * context_BTHW.shape[2]))
    return Scene(recent_BRHW, object_BN, seen, trajectory)
