import json
from math import cos, hypot, pi, sin
from pathlib import Path

import numpy as np
import pytest

from maskcast.data.sources.clevrer import read_motion
from maskcast.simulator.physics import (
    DISC_RADIUS,
    FRAME_TIME,
    SQUARE_HALF,
    SQUARE_INERTIA,
    Body,
    find_contact,
    resolve,
    rollout,
    slow_down,
)


def no_bounce(count: int) -> np.ndarray:
    return np.zeros((count, count))


@pytest.mark.parametrize(("shape", "loss"), [("cube", 0.29 + 0.08 + 0.16), ("sphere", 0.08 + 0.16)])
def test_speed_lost_in_a_short_time_by_hand(shape, loss):
    body = Body(shape, 0.0, 0.0, vx=1.2, vy=1.6)  # speed 2: 0.04 * 2 = 0.08, 0.04 * 4 = 0.16
    slow_down(body, 0.01)
    assert (body.vx, body.vy) == pytest.approx((0.6 * (2 - 0.01 * loss), 0.8 * (2 - 0.01 * loss)))


def test_sliding_bodies_stop_and_stay_and_rolling_spheres_do_not():
    course = rollout([Body("cylinder", 0, 0, vx=0.2), Body("sphere", 0, 3, vx=0.2)], 60, no_bounce(2))
    assert course.velocities[-1, 0, 0] == 0.0
    assert course.poses[-1, 0, 0] == course.poses[-5, 0, 0]
    assert course.velocities[-1, 1, 0] > 0.17


def test_decay_per_frame_is_that_of_the_annotations(shared_data: Path):
    annotation = next((shared_data / "clevrer").rglob("annotation_01000.json"))
    trajectory = json.loads(annotation.read_text())["motion_trajectory"]
    for index, shape in ((0, "cylinder"), (2, "sphere")):  # both run free until frame 38
        states = [frame["objects"][index] for frame in trajectory]
        start = states[0]
        body = Body(shape, *start["location"][:2], *start["velocity"][:2])
        course = rollout([body], 36, no_bounce(1))
        speeds = [hypot(*state["velocity"][:2]) for state in states[:36]]
        np.testing.assert_allclose(np.hypot(*course.velocities[:, 0, :2].T), speeds, atol=0.03)
        places = [state["location"][:2] for state in states[:36]]
        np.testing.assert_allclose(course.poses[:, 0, :2], places, atol=0.03)


def test_seven_videos_come_out_as_annotated(shared_data: Path):
    errors = []
    for annotation in sorted((shared_data / "clevrer").rglob("annotation_*.json")):
        content = json.loads(annotation.read_text())
        shapes = [item["shape"] for item in content["object_property"]]
        places = read_motion(annotation).locations[..., :2]
        for start in (0, 32, 64):
            bodies = [
                Body(shape, *item["location"][:2], *item["velocity"][:2], item["orientation"][2])
                for shape, item in zip(shapes, content["motion_trajectory"][start]["objects"], strict=True)
            ]
            course = rollout(bodies, 56, np.full((len(bodies),) * 2, 0.37))
            errors += np.linalg.norm(course.poses[-1, :, :2] - places[start + 55], axis=-1).tolist()
    assert np.median(errors) < 0.02
    assert np.mean(errors) < 0.12  # a third of the objects collide meanwhile and travel more than 1


def test_head_on_collision_by_hand():
    a, b = Body("sphere", 0, 0, vx=2.0, vy=0.5), Body("cylinder", 2 * DISC_RADIUS - 0.01, 0, vx=-1.0)
    contact = find_contact(a, b)
    assert contact is not None
    assert contact.normal == pytest.approx((1, 0))
    assert contact.depth == pytest.approx(0.01)
    assert resolve(a, b, contact, restitution=0.2)
    # equal masses: the mean 0.5 stays, the difference -3 along x becomes 0.6, y is untouched
    assert (a.vx, a.vy, b.vx, b.vy) == pytest.approx((0.2, 0.5, 0.8, 0.0))
    assert b.x - a.x == pytest.approx(2 * DISC_RADIUS)


@pytest.mark.parametrize(
    ("first", "second"), [("sphere", "sphere"), ("cube", "sphere"), ("sphere", "cube"), ("cube", "cube")]
)
def test_collisions_keep_momentum_and_angular_momentum_and_act_along_the_normal(first, second):
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        angle = random.uniform(0, 2 * pi)
        a = Body(first, 0.0, 0.0, *random.normal(size=2), *random.normal(size=2))
        b = Body(second, 0.38 * cos(angle), 0.38 * sin(angle), *random.normal(size=2), *random.normal(size=2))
        contact = find_contact(a, b)
        if contact is None:
            continue

        def state(a: Body = a, b: Body = b) -> tuple[np.ndarray, float, float]:
            spins = sum(SQUARE_INERTIA * body.spin for body in (a, b) if body.shape == "cube")
            return (
                np.array([a.vx + b.vx, a.vy + b.vy]),
                spins + sum(body.x * body.vy - body.y * body.vx for body in (a, b)),
                sum(body.vx**2 + body.vy**2 for body in (a, b)) + spins_energy(a) + spins_energy(b),
            )

        contact = type(contact)(contact.normal, 0.0, contact.point)  # no push apart: places stay
        before, velocity = state(), (a.vx, a.vy)
        hit = resolve(a, b, contact, restitution=0.4)
        after = state()
        if hit:
            hits += 1
            change = np.array([a.vx - velocity[0], a.vy - velocity[1]])
            across = change[0] * contact.normal[1] - change[1] * contact.normal[0]
            assert across == pytest.approx(0, abs=1e-12)
            np.testing.assert_allclose(after[0], before[0], atol=1e-12)
            if first == second == "cube":  # what a disc would turn is not followed
                assert after[1] == pytest.approx(before[1], abs=1e-12)
            assert after[2] <= before[2] + 1e-12
    assert hits > 20


def spins_energy(body: Body) -> float:
    return SQUARE_INERTIA * body.spin**2 if body.shape == "cube" else 0.0


def test_contacts_of_squares_by_hand():
    square = Body("cube", 0, 0)
    assert find_contact(square, Body("sphere", SQUARE_HALF + DISC_RADIUS + 0.001, 0)) is None
    side = find_contact(square, Body("sphere", 0.3, 0.1))
    assert side is not None and side.normal == pytest.approx((1, 0))
    assert side.point == pytest.approx((SQUARE_HALF, 0.1))
    corner = find_contact(square, Body("sphere", 0.3, 0.3))
    assert corner is not None and corner.normal == pytest.approx((0.5**0.5, 0.5**0.5))
    tilted = find_contact(square, Body("cube", 0.43, 0.05, yaw=pi / 4))
    assert tilted is not None and tilted.normal == pytest.approx((1, 0))
    assert tilted.point == pytest.approx((0.43 - SQUARE_HALF * 2**0.5, 0.05), abs=1e-3)
    assert tilted.depth == pytest.approx(SQUARE_HALF * (1 + 2**0.5) - 0.43)
    inside = find_contact(square, Body("sphere", 0.1, 0.0))
    assert inside is not None and inside.depth == pytest.approx(DISC_RADIUS + SQUARE_HALF - 0.1)


def test_a_cube_hit_off_centre_turns():
    course = rollout([Body("cube", 0, 0), Body("sphere", -1.5, 0.12, vx=2.5)], 40, np.full((2, 2), 0.3))
    assert course.impacts
    assert course.velocities[..., 0, 2].min() < -0.5  # pushed at +y towards +x: clockwise
    assert abs(course.velocities[-1, 0, 2]) < abs(course.velocities[..., 0, 2]).max()


def test_crowded_bodies_do_not_pass_through_each_other():
    random = np.random.default_rng(3)
    shapes = ("cube", "sphere", "cylinder")
    bodies = [
        Body(shapes[k % 3], cos(k), sin(k), *(-3 * np.array([cos(k), sin(k)]) + random.normal(0, 0.1, 2)).tolist())
        for k in range(6)
    ]
    course = rollout(bodies, 100, np.full((6, 6), 0.3))
    assert len(course.impacts) >= 6
    distance = np.linalg.norm(course.poses[:, :, None, :2] - course.poses[:, None, :, :2], axis=-1)
    distance += np.eye(6)
    assert distance.min() > 2 * SQUARE_HALF - 0.08
    assert distance[-1].min() > 2 * SQUARE_HALF - 0.02
    assert FRAME_TIME == 0.0279


def test_course_is_repeatable():
    courses = [rollout([Body("cube", 0, 0, vx=1), Body("cube", 1, 0.1)], 50, no_bounce(2)) for _ in range(2)]
    np.testing.assert_array_equal(courses[0].poses, courses[1].poses)
