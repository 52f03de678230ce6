"""Masks are told from photographs by the number of their colours, and by flat areas."""

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
        values = (np.arange(2000) * colours // 2000).reshape(40, 50)
        pixels[..., channel] = values / (100 if mode == "F" else 1)
        Image.fromarray(pixels.squeeze()).save(file)
        with Image.open(file) as image:
            assert image.mode == mode
        assert looks_like_masks((file,), "") == (colours <= MAX_MASK_VALUES, "")


def test_dim_noisy_images_of_few_colours_are_none(tmp_path: Path) -> None:
    """As of thermal cameras."""
    noise = np.random.default_rng(0).integers(0, 40, (60, 80), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert looks_like_masks((tmp_path / "a.png",), "seq/infrared") == (False, "")
    assert looks_like_masks((tmp_path / "a.png",), "seq/labels") == (True, "")
