"""Compositions of a foreground with a background."""

import numpy as np
import pytest

from maskcast.serving.backgrounds import compose


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_every_opacity_of_every_value_is_rounded_exactly(dtype: type) -> None:
    opacity_HW, value_HW = np.indices((256, 256)).astype(dtype)
    frame_HWC = np.stack([value_HW, 255 - value_HW, value_HW // 2], -1).astype(np.uint8)
    for background in (np.array([[[0, 100, 255]]], np.uint8), frame_HWC[::-1, ::-1]):
        weighted = (
            opacity_HW[..., None] * frame_HWC.astype(int) + (255 - opacity_HW.astype(int))[..., None] * background
        )
        picture_HWC = compose(frame_HWC, opacity_HW, background)
        assert picture_HWC.dtype == np.uint8
        np.testing.assert_array_equal(picture_HWC, np.floor(weighted / 255 + 0.5))
