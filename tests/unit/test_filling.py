"""What is hidden of a completed object is painted as the mirror image of what is seen."""

import torch

from maskcast.models.objects.filling import filled_masks
from maskcast.models.objects.tracks import LastObservation
from maskcast.models.objects.trajectories import Trajectory
from maskcast.models.objects.warp import paint

HEIGHT, WIDTH, MARGIN, CUBE, BALL = 20, 30, 5, 1, 2


def seen(row: float, column: float, doubt: float) -> LastObservation:
    """Returns that a cube was last seen in the only frame, the centre of the whole at this place in pixels."""
    centre = torch.tensor([[[(row - (HEIGHT - 1) / 2) / HEIGHT, (column - (WIDTH - 1) / 2) / HEIGHT]]])
    exists, frame = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.long)
    size = torch.full((1, 1, 2), 0.1)
    return LastObservation(exists, frame, centre, size, torch.full((1, 1, 2), doubt), MARGIN)


def filled(frame_HW: torch.Tensor, observation: LastObservation) -> torch.Tensor:
    return filled_masks(frame_HW[None, None], torch.tensor([[CUBE]]), observation)[0, 0]


def test_what_the_border_cuts_is_filled_beyond_it() -> None:
    frame = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    frame[8:13, :4] = CUBE  # five rows, and four of seven columns
    whole = torch.zeros(HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN, dtype=torch.bool)
    whole[MARGIN + 8 : MARGIN + 13, MARGIN - 3 : MARGIN + 4] = True
    observation = seen(10, 0, doubt=0.1)
    found = filled(frame, observation)
    assert torch.equal(found, whole)
    moved = observation.centre_BN2[:, None] + torch.tensor([0, 10 / HEIGHT])
    still = torch.zeros(1, 1, 1, 2)
    painted = paint(found[None, None], torch.tensor([[CUBE]]), observation, Trajectory(moved, still, still))[0, 0]
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.long)
    expected[8:13, 7:14] = CUBE
    assert torch.equal(painted, expected)
    assert filled(frame, seen(10, 0, doubt=0.0)).sum() == 5 * 4  # nothing was completed


def test_what_another_object_hides_is_filled_and_background_is_not() -> None:
    frame = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    frame[8:13, 10:17] = CUBE
    frame[8:10, 15:17] = BALL  # in front of a corner
    frame[12, 16] = 0  # a corner that is seen not to be there
    found = filled(frame, seen(10, 13, doubt=0.1))[MARGIN:-MARGIN, MARGIN:-MARGIN]
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    expected[8:13, 10:17] = True
    expected[12, 16] = False
    assert torch.equal(found, expected)
