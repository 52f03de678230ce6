"""What is hidden of a completed object is painted: it goes as far to one side of its centre as to the other."""

import pytest
import torch

from maskcast.models.objects.filling import filled_masks
from maskcast.models.objects.tracks import LastObservation
from maskcast.models.objects.trajectories import Trajectory
from maskcast.models.objects.warp import paint

HEIGHT, WIDTH, MARGIN, CUBE, BALL = 20, 30, 5, 1, 2


def seen(row: float, column: float, doubt: float = 0.1, *, ball: float = 0.0) -> LastObservation:
    """Returns that a cube and a ball were seen last in the only frame.

    Args:
        row: of the centre of the whole cube, in pixels.
        column: likewise.
        doubt: of both centres.
        ball: how many pixels the ball's centre is below the cube's.
    """
    y, x = (row - (HEIGHT - 1) / 2) / HEIGHT, (column - (WIDTH - 1) / 2) / HEIGHT
    exists, frame = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.long)
    centre, size = torch.tensor([[[y, x], [y + ball / HEIGHT, x]]]), torch.full((1, 2, 2), 0.1)
    return LastObservation(exists, frame, centre, size, torch.full((1, 2, 2), doubt), MARGIN)


def filled(frame_HW: torch.Tensor, observation: LastObservation) -> torch.Tensor:
    """Returns the mask of the cube, with a margin."""
    return filled_masks(frame_HW[None, None], torch.tensor([[CUBE, BALL]]), observation)[0, 0]


def picture(rows: slice, columns: slice) -> torch.Tensor:
    """Returns a frame of background and a cube in some rows and columns."""
    frame = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    frame[rows, columns] = CUBE
    return frame


def with_margin(rows: slice, columns: slice) -> torch.Tensor:
    """Returns a mask with a margin; rows and columns are counted from the picture's first ones."""
    mask = torch.zeros(HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN, dtype=torch.bool)
    mask[MARGIN + rows.start : MARGIN + rows.stop, MARGIN + columns.start : MARGIN + columns.stop] = True
    return mask


def test_what_the_border_cuts_is_filled_beyond_it() -> None:
    frame = picture(slice(8, 13), slice(4))  # five rows, and four of seven columns
    observation = seen(10, 0)
    found = filled(frame, observation)
    assert torch.equal(found, with_margin(slice(8, 13), slice(-3, 4)))
    moved = observation.centre_BN2[:, None] + torch.tensor([0, 10 / HEIGHT])
    still, masks = torch.zeros(1, 1, 2, 2), torch.stack([found, torch.zeros_like(found)])
    painted = paint(masks[None], torch.tensor([[CUBE, BALL]]), observation, Trajectory(moved, still, still))[0, 0]
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.long)
    expected[8:13, 7:14] = CUBE
    assert torch.equal(painted, expected)
    assert filled(frame, seen(10, 0, doubt=0.0)).sum() == 5 * 4  # nothing was completed


def test_an_object_of_which_less_than_half_is_seen_is_one_piece() -> None:
    beside = filled(picture(slice(8, 13), slice(2)), seen(10, -2))  # two of seven columns
    assert torch.equal(beside, with_margin(slice(8, 13), slice(-5, 2)))
    above = filled(picture(slice(1), slice(10, 13)), seen(-2, 11))  # one of five rows
    assert torch.equal(above, with_margin(slice(-4, 1), slice(10, 13)))
    # two rows of two columns in a corner of the picture: a strip from there to beyond the centre
    corner = filled(picture(slice(2), slice(2)), seen(-1, -1))
    offset = torch.arange(-2, 3)
    strip = (offset[:, None] - offset).abs() <= 1
    assert torch.equal(corner[MARGIN - 3 : MARGIN + 2, MARGIN - 3 : MARGIN + 2], strip)
    assert corner.sum() == strip.sum()


@pytest.mark.parametrize("ball", [1.0, -1.0], ids=["nearer", "farther"])
def test_what_a_nearer_object_hides_is_filled_and_no_more(ball: float) -> None:
    frame = picture(slice(8, 13), slice(10, 17))
    frame[8:10, 15:17] = BALL  # where a corner would be
    frame[12, 16] = 0  # a corner that is seen not to be there
    found = filled(frame, seen(10, 13, ball=ball))[MARGIN:-MARGIN, MARGIN:-MARGIN]
    expected = frame == CUBE
    if ball > 0:
        expected[8:10, 15:17] = True
    assert torch.equal(found, expected)


def test_what_is_not_there_stays_so() -> None:
    nothing = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    assert not filled(nothing, seen(-2, -2)).any()
