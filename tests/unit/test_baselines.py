"""The baselines by hand, and on real masks of CLEVRER."""

import numpy as np
import pytest
import torch

from maskcast.evaluation.metrics import confusion, macro_jaccard
from maskcast.labels import IGNORE
from maskcast.models.forecasting.baselines import ConstantVelocity, Persistence

WINDOW, CONTEXT = 22, 11


def moving(velocities: dict[int, tuple[int, int]], frames: int = 5) -> torch.Tensor:
    """Returns masks (1, T, 20, 30) of 3x3 squares, class k at (2k, 2k) in frame 0."""
    masks = torch.zeros(1, frames, 20, 30, dtype=torch.uint8)
    for class_id, (dy, dx) in velocities.items():
        for t in range(frames):
            y, x = 2 * class_id + dy * t, 2 * class_id + dx * t
            masks[0, t, y : y + 3, x : x + 3] = class_id
    return masks


def test_persistence_copies_the_last_mask() -> None:
    masks = moving({1: (1, 2)})
    out = Persistence().forecast(masks, 3)
    assert out.shape == (1, 3, 20, 30) and out.dtype == torch.uint8
    assert (out == masks[:, -1:]).all()


def test_constant_velocity_goes_on_along_the_line_and_leaves_background_behind() -> None:
    masks = moving({1: (1, 2)}, frames=8)
    assert torch.equal(ConstantVelocity().forecast(masks[:, :5], 3), masks[:, 5:])


def test_constant_velocity_fits_the_last_four_sights_only() -> None:
    masks = moving({1: (0, 1)}, frames=9)
    masks[:, 0] = 0
    masks[0, 0, 15:18, 20:23] = 1  # an old outlier
    assert torch.equal(ConstantVelocity().forecast(masks[:, :6], 3), masks[:, 6:])


def test_constant_velocity_spans_frames_in_which_an_object_is_hidden() -> None:
    masks = moving({1: (1, 2)}, frames=8)
    masks[:, 3] = 0
    assert torch.equal(ConstantVelocity().forecast(masks[:, :6], 2), masks[:, 6:])


def test_an_object_may_leave_and_the_higher_id_stays_on_top() -> None:
    masks = moving({1: (0, 5), 2: (0, 0)}, frames=5)
    out = ConstantVelocity().forecast(masks, 3)
    assert not (out[0, -1] == 1).any() and (out[0, -1] == 2).sum() == 9
    meeting = torch.zeros(1, 2, 4, 9, dtype=torch.uint8)
    meeting[0, 0, 1, 0], meeting[0, 1, 1, 2], meeting[0, :, 1, 4] = 1, 1, 2
    assert ConstantVelocity().forecast(meeting, 1)[0, 0, 1].tolist() == [0, 0, 0, 0, 2, 0, 0, 0, 0]


def test_unknown_pixels_count_as_background() -> None:
    masks = moving({1: (0, 1)})
    masks[:, :, -1] = IGNORE
    assert ConstantVelocity().forecast(masks, 2).unique().tolist() == [0, 1]


@pytest.mark.parametrize(("baseline", "expected"), [(Persistence(), 0.297), (ConstantVelocity(), 0.343)])
def test_measured_scores_on_real_masks(
    real_windows: np.ndarray, baseline: Persistence | ConstantVelocity, expected: float
) -> None:
    assert len(real_windows) == 84
    context = torch.from_numpy(real_windows[:, :CONTEXT])
    forecast = baseline.forecast(context, WINDOW - CONTEXT)[:, -1].numpy()
    matrix = confusion(real_windows[:, -1], forecast, 49)
    assert macro_jaccard(matrix, absent="omit") == pytest.approx(expected, abs=0.003)
