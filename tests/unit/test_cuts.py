"""Where shots begin: by hand, and in real video."""

from pathlib import Path

import numpy as np
import pytest

from maskcast.data.video_files.frames import read_video
from maskcast.inference.cuts import CutDetector


def cuts(frames: np.ndarray) -> list[int]:
    detect = CutDetector()
    return [t for t, frame in enumerate(frames) if detect(frame)]


def grey(*levels: int) -> np.ndarray:
    """Frames of one level each: the change of a step is the difference of its levels."""
    return np.stack([np.full((40, 60, 3), level, np.uint8) for level in levels])


@pytest.mark.parametrize(
    ("levels", "found"),
    [
        ((100,), []),
        ((100, 131), []),  # 31 of 255 is less than 2.5 times the 0.05 that is taken for usual
        ((100, 132), [1]),
        ((100, 101, 102, 103, 107), []),  # more than 2.5 times the usual 1, but less than 0.02
        ((100, 101, 102, 103, 109), [4]),
        ((100, 120, 100, 120, 100, 149), []),  # what shakes by 20 is not cut by 49
        ((100, 120, 100, 120, 100, 151), [5]),
        ((0, 255, 0, 0, 0), [1, 2]),  # the shots are too short to tell what is usual
    ],
)
def test_a_cut_changes_more_than_the_steps_before_it(levels: tuple[int, ...], found: list[int]) -> None:
    assert cuts(grey(*levels)) == found


def test_motion_is_no_cut_and_another_place_is(shared_data: Path) -> None:
    fast = read_video(shared_data / "sam2_videos/bedroom.mp4", range(100, 130))
    still = read_video(next((shared_data / "clevrer").rglob("*.mp4")), range(0, 60, 2))
    assert cuts(fast) == cuts(still) == []
    joined = np.concatenate([still, *(frame[None, :320, :480] for frame in fast), still])
    assert cuts(joined) == [30, 60]
