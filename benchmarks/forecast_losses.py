"""Says where forecasts lose: the loss 1 - J at the last frame, by what happened to each object.

    python benchmarks/forecast_losses.py DATA [--model NAME=FOLDER ...] [--stride 5]

DATA holds CLEVRER's annotations; `simulated` draws `--clips` windows instead. The truth about the world sorts the
objects of each window. Beside the forecasters stand `rigid_body` and the same physics given the true velocity, or
the true place and velocity, at the last seen frame: what is left then is lost in the forecast alone. J is macro
Jaccard of the last frame over all windows; classes that are in no truth are left out.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import atan2
from pathlib import Path

import numpy as np
import torch

from _common import positive_int, print_table
from maskcast.data.sources.clevrer import read_motion
from maskcast.errors import MaskcastError, one_line_errors
from maskcast.models.forecasting import checked
from maskcast.models.forecasting.base import Predictor
from maskcast.models.forecasting.baselines import ConstantVelocity, Persistence
from maskcast.models.forecasting.rigid_body import RigidBody
from maskcast.models.forecasting.table import load_forecaster
from maskcast.seed import derive, rng
from maskcast.simulator.camera import CLEVRER_CAMERA, Camera, Motion, paint_masks
from maskcast.simulator.physics import FRAME_TIME, Body
from maskcast.simulator.scenes import simulate_motion

CASES = (
    "arrives later",
    "has left",
    "hit by what arrives later",
    "hit in the forecast",
    "hit in the last two seen frames",
    "cut by the border",
    "partly hidden",
    "moves freely",
    "rests",
    "background",
)
HIT = 0.1  # world units per unit of time: a greater change of velocity in a frame is a hit
RESTS = 0.05  # world units: an object that moves less during the forecast rests
NEAR = 0.75  # world units: maximum distance between centres of objects that may have collided
HIDDEN = 0.97  # an object counts as hidden if a smaller share of it is visible


@dataclass(frozen=True)
class World:
    """A window with known truth."""

    motion: Motion  # for all frames of the video up to the window's last
    frames: np.ndarray  # frame numbers of the window
    masks_THW: np.ndarray


class Informed(RigidBody):
    """The baseline with some estimates replaced by the truth."""

    world: World

    def __init__(self, camera: Camera, stride: int, seen: int, *, place: bool) -> None:
        super().__init__(camera, stride)
        if seen < 2:
            raise MaskcastError(f"--frames: {seen} seen; see 2 or more, for a velocity")
        self.seen, self.place = seen, place

    def bodies(self, camera: Camera, context_THW: np.ndarray, class_index: int) -> Iterator[Body]:
        """Yields the baseline's bodies with true values."""
        motion, now = self.world.motion, int(self.world.frames[self.seen - 1])
        (column,) = np.flatnonzero(motion.class_ids == class_index)
        for body in super().bodies(camera, context_THW, class_index):
            before, here = motion.locations[now - 1 : now + 1, column]
            turned, yaw = (atan2(turn[1, 0], turn[0, 0]) for turn in motion.rotations[now - 1 : now + 1, column])
            body.vx, body.vy = ((here - before)[:2] / FRAME_TIME).tolist()
            if self.place:
                body.x, body.y, body.yaw = float(here[0]), float(here[1]), yaw
                body.spin = float((yaw - turned + np.pi) % (2 * np.pi) - np.pi) / FRAME_TIME
            yield body


def motions(data: str, clips: int) -> Iterator[Motion]:
    """Yields the motion of annotated videos, or of ``clips`` simulated ones.

    Raises:
        MaskcastError: if the folder ``data`` has no annotations.
    """
    if data == "simulated":
        yield from (simulate_motion(derive(1, k), num_frames=128) for k in range(clips))
        return
    found = sorted(Path(data).rglob("annotation_*.json"))
    if not found:
        raise MaskcastError(f"{data}: no annotation_*.json found; use CLEVRER's release, or `simulated`")
    yield from map(read_motion, found)


def worlds(data: str, clips: int, stride: int, step: int, frames: int, size: tuple[int, int]) -> Iterator[World]:
    """Yields windows of annotated videos, or one window of each simulated video."""
    span = (frames - 1) * stride + 1
    for k, motion in enumerate(motions(data, clips)):
        starts = range(0, len(motion.locations) - span + 1, step)
        if data == "simulated":
            starts = range(first := 1 + int(rng(2, k).integers(len(motion.locations) - span)), first + 1)
        for first in starts:
            yield _window(motion, first + stride * np.arange(frames), size)


def _window(motion: Motion, frames: np.ndarray, size: tuple[int, int]) -> World:
    return World(motion[: int(frames[-1]) + 1], frames, paint_masks(motion[frames], *size))


def cases(world: World, seen: int) -> dict[int, str]:
    """Returns what happened to each class that is visible in the context or in the last frame."""
    last_HW, known = world.masks_THW[-1], {int(k) for k in np.unique(world.masks_THW[:seen]) if k}
    found = {0: CASES[-1]}
    for class_index in sorted(known | {int(k) for k in np.unique(last_HW) if k}):
        if class_index not in known:
            found[class_index] = CASES[0]
        elif not (last_HW == class_index).any():
            found[class_index] = CASES[1]
        else:
            found[class_index] = _case(world, seen, class_index, known)
    return found


def _case(world: World, seen: int, class_index: int, known: set[int]) -> str:
    motion, frames = world.motion, world.frames
    (object_index,) = np.flatnonzero(motion.class_ids == class_index)
    place_T2 = motion.locations[:, object_index, :2]
    with np.errstate(invalid="ignore"):
        hits = 1 + np.flatnonzero(np.linalg.norm(np.diff(place_T2, n=2, axis=0), axis=1) > HIT * FRAME_TIME)
    coming = hits[hits >= frames[seen - 1]]
    if len(coming):
        others = np.linalg.norm(motion.locations[coming[0], :, :2] - place_T2[coming[0]], axis=1)
        others[object_index] = np.inf
        nearest = int(np.nan_to_num(others, nan=np.inf).argmin())
        unseen = int(motion.class_ids[nearest]) not in known and others[nearest] < NEAR
        return CASES[2] if unseen else CASES[3]
    if ((hits > frames[max(0, seen - 3)]) & (hits < frames[seen - 1])).any():
        return CASES[4]
    visible_frames = np.flatnonzero((world.masks_THW[:seen] == class_index).any((1, 2)))
    shown_HW = world.masks_THW[visible_frames[-1]] == class_index
    if shown_HW[[0, -1]].any() or shown_HW[:, [0, -1]].any():
        return CASES[5]
    alone = Motion(
        motion.class_ids[[object_index]], motion.locations[:, [object_index]], motion.rotations[:, [object_index]]
    )
    whole = (paint_masks(alone[frames[[visible_frames[-1]]]], *shown_HW.shape) > 0).sum()
    if visible_frames[-1] < seen - 1 or shown_HW.sum() < HIDDEN * whole:
        return CASES[6]
    moved = np.linalg.norm(place_T2[frames[-1]] - place_T2[frames[seen - 1]])
    return CASES[7] if moved > RESTS else CASES[8]


def add_windows(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that define the windows."""
    parser.add_argument("data", help="folder of CLEVRER's release, or `simulated`")
    parser.add_argument("--stride", type=positive_int, default=5)
    parser.add_argument("--step", type=positive_int, default=2, help="frames between the windows of a video")
    parser.add_argument("--clips", type=positive_int, default=100, help="simulated windows")
    parser.add_argument("--frames", type=positive_int, nargs=2, default=[11, 11], metavar=("SEEN", "FORECAST"))
    parser.add_argument("--size", type=positive_int, nargs=2, default=[160, 240], metavar=("HEIGHT", "WIDTH"))


def main() -> None:
    """Forecasts all windows and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME=FOLDER", help="trained forecasters")
    add_windows(parser)
    args = parser.parse_args()
    seen, horizon = args.frames
    physics = CLEVRER_CAMERA, args.stride
    informed = {
        "true velocity": Informed(*physics, seen, place=False),
        "true place and velocity": Informed(*physics, seen, place=True),
    }
    predictors: dict[str, Predictor] = {"copy": Persistence(), "constant velocity": ConstantVelocity()}
    predictors |= {"rigid_body": RigidBody(*physics), **informed}
    for name, _, folder in (model.partition("=") for model in args.model):
        predictors[name] = load_forecaster(Path(folder))[0]
    counted: Counter[str] = Counter()
    missed: Counter[tuple[str, str, int]] = Counter()  # pixels only in the truth or only in the forecast
    union: Counter[tuple[str, int]] = Counter()
    true: Counter[int] = Counter()
    for world in worlds(args.data, args.clips, args.stride, args.step, seen + horizon, tuple(args.size)):
        found, context = cases(world, seen), torch.from_numpy(world.masks_THW[None, :seen])
        counted.update(found.values())
        for oracle in informed.values():
            oracle.world = world
        for name, predictor in predictors.items():
            forecast_HW = checked.forecast(predictor, context, horizon)[0, -1].numpy()
            for k, case in found.items():
                here, there = world.masks_THW[-1] == k, forecast_HW == k
                missed[name, case, k] += int((here ^ there).sum())
                union[name, k] += int((here | there).sum())
                true[k] += int(here.sum())
    classes = [k for k, pixels in true.items() if pixels]
    shares = [[np.mean([missed[n, case, k] / union[n, k] for k in classes]) for n in predictors] for case in CASES]
    rows = [[case, counted[case], *some] for case, some in zip(CASES, shares, strict=True)]
    rows.append(["all: 1 - J", "", *np.sum(shares, 0)])
    lines = [[f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row] for row in rows]
    title = f"{args.data}, stride {args.stride}, {seen} frames seen, frame {seen + horizon}: shares of the loss"
    print_table(title, ["what happens to an object", "objects", *predictors], lines)


if __name__ == "__main__":
    with one_line_errors():
        main()
