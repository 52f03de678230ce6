"""Masks are told from photographs by the number of their colours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskcast.data.inspection.image_groups import MAX_MASK_VALUES, looks_like_masks


@pytest.mark.parametrize("mode", ["L", "I;16", "F", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("channel", [0, -1])
def test_images_of_up_to_64_colours_look_like_masks(tmp_path: Path, mode: str, channel: int) -> None:
    dtype = {"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8)
    channels = len(Image.new(mode, (1, 1)).getbands())
    file = tmp_path / "a.tif"
    for colours in (MAX_MASK_VALUES, MAX_MASK_VALUES + 1):
        pixels = np.full((40, 50, channels), 200, dtype)
        pixels[..., channel] = (np.arange(2000).reshape(40, 50) % colours) / (100 if mode == "F" else 1)
        Image.fromarray(pixels.squeeze()).save(file)
        with Image.open(file) as image:
            assert image.mode == mode
        assert looks_like_masks((file,), "") == (colours <= MAX_MASK_VALUES, "")
