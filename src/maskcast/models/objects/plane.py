"""The ground plane: a homography between the image and a plane on which motion is straight.

In the image of a floor, uniform motion slows down with distance; on the floor it is uniform. The change of object
sizes across the image tells where the floor is. A homography that is learned by gradient drifts away, so it is
fitted once, before training.

Positions are (y, x) in picture heights from the picture's centre. A homography is a tensor (8,) of differences
from the identity: the plane's (y, x) are ``((1 + h0) y + h1 x + h2, h3 y + (1 + h4) x + h5) / (1 + h6 y + h7 x)``.

Shapes: M observations of objects.
"""

import torch
from torch import Tensor

FOCAL_LENGTH = 1.5  # of a typical lens, in picture heights
MIN_OBSERVATIONS = 100  # least observations for calibration
MAX_SLOPE = 1.4  # largest relative change of an object's size over a picture height


def to_plane(homography: Tensor, centre: Tensor) -> Tensor:
    """Maps image positions (..., 2) to the plane."""
    y, x = centre.unbind(-1)
    a = homography
    scale = (1 + a[6] * y + a[7] * x).clamp(min=0.25)
    return torch.stack([y + a[0] * y + a[1] * x + a[2], x + a[3] * y + a[4] * x + a[5]], -1) / scale[..., None]


def inverse(homography: Tensor) -> Tensor:
    """Returns the matrix (3, 3) with which ``project`` maps plane positions to the image."""
    a = homography
    one = torch.ones_like(a[0])
    x, y, z = torch.stack([1 + a[0], a[1], a[2], a[3], 1 + a[4], a[5], a[6], a[7], one]).view(3, 3)
    adjugate = torch.stack([torch.linalg.cross(y, z), torch.linalg.cross(z, x), torch.linalg.cross(x, y)])
    return adjugate / (x * adjugate[0]).sum()


def project(place: Tensor, matrix_33: Tensor) -> Tensor:
    """Maps positions (..., 2) by a homography matrix."""
    point = torch.cat([place, torch.ones_like(place[..., :1])], -1) @ matrix_33
    return point[..., :2] / point[..., 2:].clamp(min=0.3)  # a diverging object must not dominate all gradients


def displaced(homography: Tensor, place: Tensor, velocity: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
    """Displaces places and velocities (..., 2) on the plane by amounts given in the image.

    Args:
        homography: of the plane.
        place: on the plane.
        velocity: on the plane, per frame.
        by: (..., 4) in the image, in its heights: displacement of the place (y, x) and of the velocity (y, x).
    """
    centre = project(place, inverse(homography))
    moved, ahead = (to_plane(homography, centre + part) for part in by.split(2, dim=-1))
    return moved, velocity + ahead - place


@torch.no_grad()
def fit_plane(class_M: Tensor, centre_M2: Tensor, std_M: Tensor) -> Tensor | None:
    """Fits the homography (8,) to the sizes of whole objects; returns None if there are too few.

    The size of an object on a plane, as a camera sees it, is linear in its place in the image. The slope gives the
    homography's denominator and the horizon, and with a typical focal length the foreshortening. The sizes of the
    classes and the slope are fitted alternately.

    Args:
        class_M: class of each observed object; objects of a class are assumed to have the same size.
        centre_M2: its centre.
        std_M: its size: the standard deviation of its pixels.
    """
    if len(class_M) < MIN_OBSERVATIONS:
        return None
    # In double precision, so that after rounding to single the result does not depend on the library.
    centre_M2, std_M = centre_M2.double(), std_M.double()
    slope_2 = torch.zeros(2, dtype=torch.float64)
    for _ in range(10):
        normalised_M = std_M / (1 + centre_M2 @ slope_2).clamp(min=0.2)
        count_K = torch.bincount(class_M).clamp(min=1)
        size_M = (torch.bincount(class_M, weights=normalised_M) / count_K)[class_M]
        slope_2 = torch.linalg.lstsq(centre_M2, (std_M / size_M - 1)[:, None]).solution[:, 0]
        slope_2 = slope_2 * min(1.0, MAX_SLOPE / max(float(slope_2.norm()), 1e-6))
    stretch = (1 + (slope_2.norm() * FOCAL_LENGTH) ** 2).sqrt() - 1
    along = slope_2 / slope_2.norm().clamp(min=1e-6)
    (a, b), (c, d) = (stretch * torch.outer(along, along)).tolist()
    return torch.tensor([a, b, 0.0, c, d, 0.0, *slope_2.tolist()])


def perpendicular(vector: Tensor) -> Tensor:
    """Returns vectors (..., 2) turned by a right angle."""
    return torch.stack([-vector[..., 1], vector[..., 0]], -1)
