"""Rigid bodies sliding on the ground plane, with physics estimated from CLEVRER's annotations.

Measured on seven annotated videos (33 objects, 17 collisions):

* one frame lasts 0.0279 units of time;
* a sliding body loses (0.29 + 0.04 v + 0.04 v^2) of its speed v per unit of time; a rolling sphere loses the same
  without 0.29 (the fit is within 0.0002 per frame for metal);
* a rotating cube loses about (2.8 + 1.2 w) of its yaw rate w per unit of time;
* bodies have equal masses and exchange no tangential momentum; cubes get their spin from off-centre hits; the
  best restitution is 0.37.

Simulated for 55 frames from an annotated state, positions differ from the annotated ones by 0.009 (median) and
0.09 (mean), collisions included. Bodies are discs (spheres, cylinders) and squares (cubes) of mass 1. The loop is
plain Python on floats, which is faster than numpy for 4 to 6 bodies.
"""

from dataclasses import dataclass
from math import cos, exp, hypot, sin

import numpy as np

FRAME_TIME = 0.0279
SLIDING_FRICTION = 0.29
LINEAR_DRAG = 0.04
QUADRATIC_DRAG = 0.04
SPIN_FRICTION = 2.8
SPIN_DRAG = 1.2
SUBSTEPS = 6
RESTING_SPEED = 0.25  # slower impacts do not bounce
DISC_RADIUS = 0.205  # half the distance of centres at contact, which is 0.41
SQUARE_HALF = 0.195
SQUARE_INERTIA = 2 / 3 * SQUARE_HALF**2


@dataclass
class Body:
    """A body on the plane: position `x`, `y`, velocity `vx`, `vy` (units per unit of time), `yaw` and its rate."""

    shape: str
    x: float
    y: float
    vx: float = 0.0
    vy: float = 0.0
    yaw: float = 0.0
    spin: float = 0.0

    @property
    def inverse_inertia(self) -> float:
        """Zero for discs: their rotation is neither visible nor does it affect collisions."""
        return 1 / SQUARE_INERTIA if self.shape == "cube" else 0.0

    @property
    def is_moving(self) -> bool:
        """Whether the body slides or rotates."""
        return self.vx != 0.0 or self.vy != 0.0 or self.spin != 0.0


@dataclass(frozen=True)
class Contact:
    """The contact of two bodies: unit normal from the first to the second, overlap `depth`, contact point."""

    normal: tuple[float, float]
    depth: float
    point: tuple[float, float]


def slow_down(body: Body, time: float) -> None:
    """Applies friction and drag for a short time step."""
    speed = hypot(body.vx, body.vy)
    if speed:
        friction = 0.0 if body.shape == "sphere" else SLIDING_FRICTION
        new_speed = max(0.0, speed - time * (friction + LINEAR_DRAG * speed + QUADRATIC_DRAG * speed * speed))
        body.vx *= new_speed / speed
        body.vy *= new_speed / speed
    if body.spin:
        loss = time * (SPIN_FRICTION + SPIN_DRAG * abs(body.spin))
        body.spin -= min(max(body.spin, -loss), loss)


def find_contact(a: Body, b: Body) -> Contact | None:
    """Returns the contact of two overlapping bodies, or None."""
    dx, dy = b.x - a.x, b.y - a.y
    reach = (DISC_RADIUS if a.shape != "cube" else 1.4143 * SQUARE_HALF) + (
        DISC_RADIUS if b.shape != "cube" else 1.4143 * SQUARE_HALF
    )
    if dx * dx + dy * dy >= reach * reach:
        return None
    if a.shape != "cube" and b.shape != "cube":
        distance = hypot(dx, dy) or 1e-9
        normal = (dx / distance, dy / distance)
        return Contact(normal, reach - distance, (a.x + DISC_RADIUS * normal[0], a.y + DISC_RADIUS * normal[1]))
    if a.shape != "cube":
        return _flipped(_square_disc(b, a))
    return _square_square(a, b) if b.shape == "cube" else _square_disc(a, b)


def _flipped(contact: Contact | None) -> Contact | None:
    return contact and Contact((-contact.normal[0], -contact.normal[1]), contact.depth, contact.point)


def _square_disc(square: Body, disc: Body) -> Contact | None:
    c, s = cos(square.yaw), sin(square.yaw)
    dx, dy = disc.x - square.x, disc.y - square.y
    u, v = c * dx + s * dy, c * dy - s * dx
    near_u, near_v = min(max(u, -SQUARE_HALF), SQUARE_HALF), min(max(v, -SQUARE_HALF), SQUARE_HALF)
    nu, nv = u - near_u, v - near_v
    distance = hypot(nu, nv)
    if distance >= DISC_RADIUS:
        return None
    if distance > 1e-9:
        nu, nv = nu / distance, nv / distance
    else:  # the disc's centre is inside the square: push out through the nearest side
        distance = max(abs(u), abs(v)) - SQUARE_HALF
        nu, nv = (np.sign(u) or 1.0, 0.0) if abs(u) > abs(v) else (0.0, np.sign(v) or 1.0)
    point = (square.x + c * near_u - s * near_v, square.y + s * near_u + c * near_v)
    return Contact((c * nu - s * nv, s * nu + c * nv), DISC_RADIUS - distance, point)


def _corners(square: Body) -> list[tuple[float, float]]:
    c, s = SQUARE_HALF * cos(square.yaw), SQUARE_HALF * sin(square.yaw)
    return [(square.x + i * c - j * s, square.y + i * s + j * c) for i, j in ((1, 1), (1, -1), (-1, -1), (-1, 1))]


def _square_square(a: Body, b: Body) -> Contact | None:
    """Separating-axis test with the sides of both squares; the contact point is the other's deepest corner."""
    best: Contact | None = None
    for owner, other, sign in ((a, b, 1.0), (b, a, -1.0)):
        for angle in (owner.yaw, owner.yaw + np.pi / 2):
            nx, ny = cos(angle), sin(angle)
            if nx * (other.x - owner.x) + ny * (other.y - owner.y) < 0:
                nx, ny = -nx, -ny
            heights = sorted((nx * (x - owner.x) + ny * (y - owner.y), x, y) for x, y in _corners(other))
            depth = SQUARE_HALF - heights[0][0]
            if depth <= 0:
                return None
            if best is None or depth < best.depth:
                # Two corners at nearly the same depth share the contact.
                weight = exp(-((heights[1][0] - heights[0][0]) / 0.01))
                x = (heights[0][1] + weight * heights[1][1]) / (1 + weight)
                y = (heights[0][2] + weight * heights[1][2]) / (1 + weight)
                best = Contact((sign * nx, sign * ny), depth, (x, y))
    return best


def resolve(a: Body, b: Body, contact: Contact, restitution: float) -> bool:
    """Exchanges momentum at a contact and separates the bodies; returns whether it was an impact.

    Args:
        a: first body of the contact.
        b: second body of the contact.
        contact: from `find_contact(a, b)`.
        restitution: normal speed after / before the impact.
    """
    nx, ny = contact.normal
    shift = contact.depth / 2
    a.x, a.y, b.x, b.y = a.x - shift * nx, a.y - shift * ny, b.x + shift * nx, b.y + shift * ny
    ax, ay = contact.point[0] - a.x, contact.point[1] - a.y
    bx, by = contact.point[0] - b.x, contact.point[1] - b.y
    ux = b.vx - b.spin * by - a.vx + a.spin * ay
    uy = b.vy + b.spin * bx - a.vy - a.spin * ax
    closing = ux * nx + uy * ny
    if closing >= 0:
        return False
    a_turn, b_turn = a.inverse_inertia, b.inverse_inertia
    impulse = -(1 + (restitution if closing < -RESTING_SPEED else 0.0)) * closing
    impulse /= 2 + a_turn * (ax * ny - ay * nx) ** 2 + b_turn * (bx * ny - by * nx) ** 2
    px, py = impulse * nx, impulse * ny
    a.vx, a.vy, a.spin = a.vx - px, a.vy - py, a.spin - a_turn * (ax * py - ay * px)
    b.vx, b.vy, b.spin = b.vx + px, b.vy + py, b.spin + b_turn * (bx * py - by * px)
    return True


@dataclass(frozen=True)
class Trajectory:
    """The result of `rollout`.

    Attributes:
        poses: (T, N, 3) x, y, yaw.
        velocities: (T, N, 3) rates of these per unit of time.
        impacts: (frame, i, j) of each impact.
    """

    poses: np.ndarray
    velocities: np.ndarray
    impacts: tuple[tuple[int, int, int], ...]


def rollout(bodies: list[Body], num_frames: int, restitution: np.ndarray) -> Trajectory:
    """Simulates bodies; frame 0 is their present state, and they end in the state of the last frame.

    Args:
        bodies: N bodies that do not overlap.
        num_frames: number of frames T.
        restitution: (N, N) coefficient for each pair.
    """
    poses = np.empty((num_frames, len(bodies), 3))
    velocities = np.empty_like(poses)
    impacts: list[tuple[int, int, int]] = []
    pairs = [(i, j) for i in range(len(bodies)) for j in range(i + 1, len(bodies))]
    step = FRAME_TIME / SUBSTEPS
    for frame in range(num_frames):
        poses[frame] = [(body.x, body.y, body.yaw) for body in bodies]
        velocities[frame] = [(body.vx, body.vy, body.spin) for body in bodies]
        for _ in range(SUBSTEPS):
            for body in bodies:
                if body.is_moving:
                    slow_down(body, step)
                    body.x += body.vx * step
                    body.y += body.vy * step
                    body.yaw += body.spin * step
            for i, j in pairs:
                a, b = bodies[i], bodies[j]
                if abs(b.x - a.x) > 0.6 or abs(b.y - a.y) > 0.6 or not (a.is_moving or b.is_moving):
                    continue
                contact = find_contact(a, b)
                if contact and resolve(a, b, contact, float(restitution[i, j])):
                    impacts.append((frame, i, j))
    return Trajectory(poses, velocities, tuple(impacts))
