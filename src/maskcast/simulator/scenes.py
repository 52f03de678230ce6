"""Synthetic CLEVRER: scenes similar to the annotated ones, from `physics`, `camera` and `render`.

A scene has 4 to 6 objects of different classes. Some rest in view; one to three enter from outside at 2.7 to 3.0
units per unit of time, timed to meet another object, so that a video of 128 frames has 2 or 3 collisions.

Shapes: T frames, N objects, H rows, W columns.
"""

from math import cos, pi, sin

import numpy as np

from maskcast.seed import rng
from maskcast.simulator.appearance import draw_camera
from maskcast.simulator.camera import CLASSES, Motion, class_parts, on_ground, paint_masks
from maskcast.simulator.physics import FRAME_TIME, Body, Trajectory, rollout, slow_down
from maskcast.simulator.render import render_frames

VIDEO_FRAMES = 128
OBJECT_COUNTS, OBJECT_ODDS = (4, 5, 6), (0.1, 0.6, 0.3)
MOVER_COUNTS, MOVER_ODDS = (1, 2, 3), (0.2, 0.3, 0.5)
REST_LOW, REST_HIGH = (-2.4, -1.5), (0.8, 1.6)  # corners of the area where objects rest; movers start outside it
ENTRY_SPEED = (2.7, 3.0)
FIRST_MEETING, LATER_MEETING = (15, 45), (40, 165)  # range of frames in which a mover meets its target
AIM_SPREAD = 0.1
CLEARANCE = 0.65  # minimum distance of centres in frame 0
COLLISIONS = (2, 3)
RESTITUTION_MEAN, RESTITUTION_SPREAD = 0.37, 0.1
SCENE_ATTEMPTS, PLACE_ATTEMPTS = 30, 200


def simulate_clip(
    seed: int,
    *,
    frames: int = 22,
    stride: int = 5,
    height: int = 160,
    width: int = 240,
    keep: int | None = None,
    render: bool = True,
    randomize: float = 0.0,
) -> tuple[np.ndarray | None, np.ndarray]:
    """Simulates a clip, which is a window of its own video; a pure function of the arguments.

    Args:
        seed: identifies video and window; the scene does not depend on size and `render`.
        frames: number of frames of the window.
        stride: distance between consecutive frames, in frames of the video (25 per second, as in CLEVRER).
        height: rows.
        width: columns.
        keep: returns only the first `keep` frames of the window; None returns all.
        render: False returns no RGB frames, which is several times faster.
        randomize: how far light, colours, camera and noise may differ from CLEVRER's: 0 not at all, 1 as far as is
            useful for training; the motion stays the same.

    Returns:
        Frames (T, H, W, 3) uint8 RGB or None, and masks (T, H, W) uint8 class ids.
    """
    span = (frames - 1) * stride + 1
    num_frames = max(VIDEO_FRAMES, span)
    start = int(rng(seed, 1).integers(num_frames - span + 1))
    window = simulate_motion(seed, num_frames=num_frames)[start : start + span : stride][:keep]
    camera = draw_camera(seed, randomize)
    masks = paint_masks(window, height, width, camera)
    if not render:
        return None, masks
    return render_frames(window, height, width, seed=seed, randomize=randomize, camera=camera), masks


def simulate_motion(seed: int, *, num_frames: int = VIDEO_FRAMES) -> Motion:
    """Simulates the objects of a video with `num_frames` frames, a pure function of the arguments."""
    random = rng(seed)
    best: tuple[int, np.ndarray, Trajectory] | None = None
    for _ in range(SCENE_ATTEMPTS):
        class_ids, trajectory = _draw_scene(random, num_frames)
        collisions = len({(i, j) for _, i, j in trajectory.impacts})
        missing = max(COLLISIONS[0] - collisions, collisions - COLLISIONS[1], 0)
        if best is None or missing < best[0]:
            best = missing, class_ids, trajectory
        if not missing:
            break
    assert best is not None
    _, class_ids, trajectory = best
    return on_ground(class_ids, trajectory.poses)


def _draw_scene(random: np.random.Generator, num_frames: int) -> tuple[np.ndarray, Trajectory]:
    count = int(random.choice(OBJECT_COUNTS, p=OBJECT_ODDS))
    movers = int(random.choice(MOVER_COUNTS, p=MOVER_ODDS))
    class_ids = 1 + random.permutation(len(CLASSES) - 1)[:count].astype(np.uint8)
    restitution = np.clip(random.normal(RESTITUTION_MEAN, RESTITUTION_SPREAD, (count, count)), 0.0, 0.8)
    scene: list[Body] = []
    for index, class_index in enumerate(class_ids):
        body = Body(class_parts(int(class_index))[0], 0.0, 0.0, yaw=float(random.uniform(0, 2 * pi)))
        if index < count - movers:
            _place_at_rest(random, body, scene)
        else:
            meeting = int(random.integers(*(FIRST_MEETING if index == count - movers else LATER_MEETING)))
            _place_moving(random, body, scene, _target(random, scene, meeting, restitution), meeting)
        scene.append(body)
    return class_ids, _simulate(scene, num_frames, restitution)


def _target(random: np.random.Generator, scene: list[Body], meeting: int, restitution: np.ndarray) -> np.ndarray:
    """Returns the target (x, y) of a mover: a moving object if there is one, so that others stay at rest."""
    trajectory = _simulate(scene, meeting + 1, restitution)
    moving = np.flatnonzero((trajectory.velocities != 0).any(axis=(0, 2)))
    return trajectory.poses[meeting, random.choice(moving if len(moving) else len(scene)), :2]


def _simulate(scene: list[Body], num_frames: int, restitution: np.ndarray) -> Trajectory:
    return rollout([Body(**vars(body)) for body in scene], num_frames, restitution)


def _place_at_rest(random: np.random.Generator, body: Body, scene: list[Body]) -> None:
    for _ in range(PLACE_ATTEMPTS):
        body.x, body.y = random.uniform(REST_LOW, REST_HIGH).tolist()
        if _is_clear(body, scene):
            return


def _place_moving(
    random: np.random.Generator, body: Body, scene: list[Body], target: np.ndarray, meeting: int
) -> None:
    """Places a body outside so that it reaches `target` after `meeting` frames, unless it hits something first."""
    speed = float(random.uniform(*ENTRY_SPEED))
    probe, path = Body(body.shape, 0.0, 0.0, vx=speed), 0.0
    for _ in range(meeting):
        slow_down(probe, FRAME_TIME)
        path += probe.vx * FRAME_TIME
    for _ in range(PLACE_ATTEMPTS):
        angle, miss = float(random.uniform(0, 2 * pi)), float(random.normal(0, AIM_SPREAD))
        body.x = float(target[0]) - path * cos(angle) - miss * sin(angle)
        body.y = float(target[1]) - path * sin(angle) + miss * cos(angle)
        body.vx, body.vy = speed * cos(angle), speed * sin(angle)
        inside = REST_LOW[0] < body.x < REST_HIGH[0] and REST_LOW[1] < body.y < REST_HIGH[1]
        if not inside and _is_clear(body, scene):
            return


def _is_clear(body: Body, scene: list[Body]) -> bool:
    return all((body.x - other.x) ** 2 + (body.y - other.y) ** 2 > CLEARANCE**2 for other in scene)
