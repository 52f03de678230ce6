import json
from pathlib import Path

import numpy as np
import pytest

from maskcast.data.masks.stored import read_mask
from maskcast.simulator.camera import (
    CLASSES,
    CLEVRER_CAMERA,
    Camera,
    Motion,
    class_id,
    class_parts,
    euler_rotations,
    on_ground,
    paint_masks,
    yaw_rotations,
)
from maskcast.simulator.shading import intersect


def scene(*objects: tuple[str, float, float]) -> Motion:
    """One frame of unturned objects: (class name, x, y)."""
    ids = np.array([CLASSES.index(name) for name, _, _ in objects], np.uint8)
    locations = np.array([[[x, y, 0.2] for _, x, y in objects]])
    return Motion(ids, locations, yaw_rotations(np.zeros(locations.shape[:2])))


def test_classes_are_numbered_as_in_the_table_of_the_data(shared_data: Path):
    rows = (shared_data / "clevrer/DERIVED_masks/classes.csv").read_text().split()[1:]
    assert [f"{i},{name.replace(' ', ',')}" for i, name in enumerate(CLASSES)][1:] == rows[1:]
    assert rows[0].startswith("0,background")


def test_class_ids_and_their_parts_are_inverse():
    assert class_id("cube", "rubber", "gray") == 1
    assert class_id("cylinder", "metal", "yellow") == 48
    assert all(class_id(*class_parts(index)) == index for index in range(1, 49))


def test_constants_are_the_fitted_ones(shared_data: Path):
    fitted = json.loads((shared_data / "clevrer/DERIVED_masks/camera.json").read_text())
    assert CLEVRER_CAMERA.rotation == tuple(map(tuple, fitted["R"]))
    assert CLEVRER_CAMERA.translation == tuple(fitted["t"])
    assert Camera(**CLEVRER_CAMERA.to_meta()) == CLEVRER_CAMERA


def test_projection_by_hand():
    plain = Camera(
        height=10,
        width=20,
        focal=(5.0, 5.0),
        center=(10.0, 5.0),
        rotation=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        translation=(0.0, 0.0, 2.0),
    )
    # 5 * (1, -2) / (2 + 2) + (10, 5) at depth 4
    np.testing.assert_allclose(plain.project(np.array([1.0, -2.0, 2.0])), [11.25, 2.5, 4.0])


def test_scaled_camera_sees_the_same_place_at_the_same_share_of_the_picture():
    point = np.array([0.3, -0.8, 0.2])
    column, row, depth = CLEVRER_CAMERA.project(point)
    half = CLEVRER_CAMERA.scaled(160, 240).project(point)
    # integers are pixel centres, so the picture's left edge is at -0.5 at both sizes
    np.testing.assert_allclose(half, [(column + 0.5) / 2 - 0.5, (row + 0.5) / 2 - 0.5, depth])


def test_to_plane_inverts_project():
    points = np.random.default_rng(0).uniform(-2, 1, (20, 3)) * (1, 1, 0)
    pixels = CLEVRER_CAMERA.project(points)
    np.testing.assert_allclose(CLEVRER_CAMERA.to_plane(pixels[:, 0], pixels[:, 1]), points[:, :2], atol=1e-9)


def test_above_the_horizon_there_is_no_ground():
    assert np.isnan(CLEVRER_CAMERA.to_plane(np.array(240.0), np.array(-5000.0))).all()


def test_euler_rotations_are_rotations_and_turn_x_then_y_then_z():
    turns = euler_rotations(np.random.default_rng(0).uniform(-3, 3, (5, 3)))
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (5, 3, 3)), atol=1e-12)
    quarter = euler_rotations(np.array([np.pi / 2, 0.0, np.pi / 2]))
    np.testing.assert_allclose(quarter @ [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], atol=1e-12)  # y -> z -> z
    np.testing.assert_allclose(quarter @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], atol=1e-12)  # x -> x -> y


@pytest.mark.parametrize("shape", ["cube", "sphere", "cylinder"])
def test_nearer_object_covers_the_farther_one_in_any_order(shape):
    near, far = (f"{shape} rubber red", 0.3, 0.0), (f"{shape} metal cyan", -0.3, 0.0)
    masks = [paint_masks(scene(*objects)) for objects in ([near, far], [far, near])]
    np.testing.assert_array_equal(*masks)
    alone = paint_masks(scene(near))
    np.testing.assert_array_equal(masks[0] == alone.max(), alone > 0)
    assert (masks[0] == CLASSES.index(far[0])).any()


def test_what_is_absent_behind_the_camera_or_out_of_view_is_not_painted():
    motion = scene(("cube metal red", 0.0, 0.0), ("cube metal blue", 20.0, 0.0), ("cube metal gray", 0.0, 30.0))
    motion.locations[0, 0] = np.nan
    assert not paint_masks(motion).any()


@pytest.mark.parametrize("size", [(40, 60), (80, 120), (160, 240)])
@pytest.mark.parametrize(("shape", "rim"), [("cube", 0), ("sphere", 0.01), ("cylinder", 0.01)])
def test_a_pixel_belongs_to_the_object_that_the_ray_through_its_centre_meets(size, shape, rim):
    """Outlines of round objects are polygons, so a few pixels of the rim may differ."""
    camera = CLEVRER_CAMERA.scaled(*size)
    drawn, covered, wrong = np.random.default_rng(0), 0, 0
    for _ in range(20):
        motion = on_ground([class_id(shape, "metal", "gray")], drawn.uniform((-2, -2, 0), (2, 2, 3), (1, 1, 3)))
        turn = motion.rotations[0, 0] if shape == "cube" else np.eye(3)
        rays = camera.rays(*np.meshgrid(np.arange(size[1]), np.arange(size[0]))).reshape(-1, 3)
        hit, _ = intersect(shape, (camera.eye - motion.locations[0, 0]) @ turn, rays @ turn, bevel=20.0)
        wrong += ((paint_masks(motion, *size) > 0).ravel() != hit).sum()
        covered += hit.sum()
    assert covered > 0
    assert wrong <= rim * covered


def test_spheres_keep_the_width_that_geometry_gives_them():
    location = np.array([0.0, 0.0, 0.2])
    mask = paint_masks(scene(("sphere metal gray", 0.0, 0.0)))[0] > 0
    distance = np.linalg.norm(location - CLEVRER_CAMERA.eye)
    expected = 2 * 525 * np.tan(np.arcsin(0.2 / distance))
    assert mask.any(axis=0).sum() == pytest.approx(expected, abs=2)


def test_labels_in_the_shared_masks_are_read_as_ids(shared_data: Path):
    mask = read_mask(shared_data / "clevrer/DERIVED_masks/video_00000/00000.png").values_HW
    assert mask.shape == (320, 480) and mask.max() < len(CLASSES)
