"""The baseline that knows CLEVRER's world: what it finds in masks, where it applies, its score on real masks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import write_store

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.evaluation.metrics import confusion, macro_jaccard
from maskcast.labels import MASK, single_map
from maskcast.models.forecasting.rigid_body import RigidBody, _fit, rigid_body_of
from maskcast.simulator.camera import CLASSES, CLEVRER_CAMERA, Motion, class_id, paint_masks, yaw_rotations
from maskcast.simulator.physics import FRAME_TIME, Body, rollout

STRIDE = 5
SPHERE, CUBE = class_id("sphere", "rubber", "red"), class_id("cube", "metal", "blue")


def simulate(bodies: dict[int, Body], frames: int = 16) -> torch.Tensor:
    """Returns masks (1, frames, 160, 240) of every fifth frame of bodies that move."""
    course = rollout(list(bodies.values()), frames * STRIDE, np.full((len(bodies),) * 2, 0.37))
    poses = course.poses[::STRIDE]
    places = np.stack([poses[..., 0], poses[..., 1], np.full(poses.shape[:2], 0.195)], -1)
    motion = Motion(np.array(list(bodies), np.uint8), places, yaw_rotations(poses[..., 2]))
    return torch.from_numpy(paint_masks(motion, 160, 240))[None]


def overlap(forecast: torch.Tensor, truth: torch.Tensor, class_index: int) -> float:
    ours, theirs = forecast == class_index, truth == class_index
    return float((ours & theirs).sum() / (ours | theirs).sum())


def test_a_sphere_rolls_on_and_slows_down() -> None:
    masks = simulate({SPHERE: Body("sphere", -1.5, -1.5, vx=1.2, vy=1.0)})
    forecast = RigidBody(CLEVRER_CAMERA, STRIDE).forecast(masks[:, :11], 5)
    assert forecast.shape == (1, 5, 160, 240) and forecast.dtype == torch.uint8
    assert overlap(forecast[:, -1], masks[:, -1], SPHERE) > 0.8


def test_a_hit_passes_the_motion_on() -> None:
    masks = simulate({SPHERE: Body("sphere", -2.0, 0.0, vx=1.5), CUBE: Body("cube", 0.75, 0.0)})
    forecast = RigidBody(CLEVRER_CAMERA, STRIDE).forecast(masks[:, :11], 5)
    moved = (masks[0, 10] == CUBE).ne(masks[0, -1] == CUBE).sum() / (masks[0, 10] == CUBE).sum()
    assert moved > 0.5  # it is hit after the context
    assert overlap(forecast[:, -1], masks[:, -1], CUBE) > 0.5


def test_a_resting_cube_keeps_its_angle() -> None:
    masks = simulate({CUBE: Body("cube", 0.0, 0.3, yaw=0.4)})
    forecast = RigidBody(CLEVRER_CAMERA, STRIDE).forecast(masks[:, :11], 5)
    assert overlap(forecast[:, -1], masks[:, -1], CUBE) > 0.93


def test_an_object_behind_another_comes_out_again() -> None:
    masks = simulate({SPHERE: Body("sphere", -1.5, -1.0, vx=1.0, vy=0.9)}, frames=14)
    masks[:, 10] = 0  # hidden when the forecast starts
    forecast = RigidBody(CLEVRER_CAMERA, STRIDE).forecast(masks[:, :11], 3)
    assert overlap(forecast[:, 0], masks[:, 11], SPHERE) > 0.8


def test_a_sliver_of_another_class_is_no_object() -> None:
    masks = simulate({CUBE: Body("cube", 0.0, 0.3, yaw=0.4)})
    edge = torch.where(masks == CUBE, 0, 1).diff(dim=-1, prepend=torch.ones(1, 16, 160, 1).int()) < 0
    noisy = masks.masked_fill(edge, SPHERE)
    baseline = RigidBody(CLEVRER_CAMERA, STRIDE)
    forecast = baseline.forecast(noisy[:, :11], 5)
    assert (noisy == SPHERE).sum() > 0 and not (forecast == SPHERE).any()
    assert overlap(forecast[:, -1], masks[:, -1], CUBE) > 0.9


def test_empty_and_unknown_pixels_give_background() -> None:
    masks = torch.full((1, 11, 32, 48), 255, dtype=torch.uint8)
    assert not RigidBody(CLEVRER_CAMERA, STRIDE).forecast(masks, 2).any()


def test_it_applies_where_the_world_is_known(tmp_path: Path) -> None:
    def store(name: str, classes: tuple[str, ...], meta: dict[str, object], strides: list[int]) -> ClipStore:
        with ClipWriter(tmp_path / name, height=16, width=24, maps=single_map(classes), meta=meta) as writer:
            for index, stride in enumerate(strides):
                masks = np.zeros((22, 16, 24), np.uint8)
                writer.add(f"v{index}", split="val", kind="labelled", masks={MASK: masks}, meta={"stride": stride})
        return ClipStore(tmp_path / name)

    camera = {"camera": CLEVRER_CAMERA.scaled(16, 24).to_meta()}
    known = store("known", CLASSES, camera, [3, 3])
    found = rigid_body_of(known, known.clips)
    assert found is not None and (found.stride, found.camera) == (3, CLEVRER_CAMERA.scaled(16, 24))
    for name, classes, meta, strides in (
        ("no_camera", CLASSES, {}, [3]),
        ("other_classes", ("background", "ball"), camera, [3]),
        ("strides", CLASSES, camera, [3, 5]),
    ):
        other = store(name, classes, meta, strides)
        assert rigid_body_of(other, other.clips) is None, name
    plain = write_store(tmp_path / "plain")
    assert rigid_body_of(plain, plain.clips) is None


def test_measured_score_on_real_masks(real_windows: np.ndarray) -> None:
    baseline = RigidBody(CLEVRER_CAMERA, STRIDE)
    forecast = baseline.forecast(torch.from_numpy(real_windows[:, :11]), 11)[:, -1].numpy()
    matrix = confusion(real_windows[:, -1], forecast, 49)
    assert macro_jaccard(matrix, absent="omit") == pytest.approx(0.607, abs=0.005)


def test_after_a_hit_in_the_context_only_what_followed_counts() -> None:
    ago, place = np.array([10, 5, 0]), np.array([[-0.3, 0.0], [0.0, 0.0], [0.0, 0.2]])  # it turns by a right angle
    x, y, vx, vy = _fit(ago, place, 0.003)
    assert (x, y) == pytest.approx((0.0, 0.2)) and vx == pytest.approx(0.0, abs=1e-9)
    assert vy == pytest.approx(0.2 / (FRAME_TIME * (np.exp(0.015) - 1) / 0.003))
    straight = np.array([[-0.3, 0.0], [-0.15, 0.001], [0.0, 0.0]])  # a pixel's noise is no hit
    assert _fit(ago, straight, 0.003)[2] == pytest.approx(0.3 / (FRAME_TIME * 10), rel=0.05)
