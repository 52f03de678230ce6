"""Clips on a page: every frame of every panel in one picture, small, and where the slider looks for it."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from maskcast.evaluation.view import ForecastView
from maskcast.report.clip_player import MAX_BYTES, MAX_FRAMES, MAX_PIXELS, PADDING, draw_sprite, player, sprite_of
from maskcast.report.pictures import panels


def view(frames: int, height: int, width: int, *, noise: bool) -> ForecastView:
    rng = np.random.default_rng(0)
    masks = np.zeros((frames, height, width), np.uint8)
    for t in range(frames):
        masks[t, 4:12, 2 + t % 8 : 10 + t % 8] = 1 + t % 3
    pictures = rng.integers(0, 255, (frames, height, width, 3), dtype=np.uint8) if noise else None
    seen = frames // 2
    forecasts = {"forecaster": np.roll(masks[seen:], 2, 2), "constant_velocity": masks[seen:]}
    return ForecastView("clip", pictures, masks[:seen], masks, forecasts)


def test_masks_are_kept_to_the_last_bit() -> None:
    shown = view(8, 24, 32, noise=False)
    sprite = draw_sprite(shown)
    assert sprite.frames == tuple(range(8)) and sprite.size == (24, 32)
    assert sprite.panels == ("truth", "forecaster", "constant_velocity", "error")
    with Image.open(BytesIO(sprite.data)) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (4 * 40, 8 * 48, 3)  # with 8 pixels around each panel
    for column, t in enumerate(sprite.frames):
        for row, panel in enumerate(panels(shown, t).values()):
            np.testing.assert_array_equal(pixels[40 * row + 8 :][:24, 48 * column + 8 :][:, :32], panel)


def test_colours_of_a_panel_do_not_bleed_into_the_next() -> None:
    red, blue = (np.full((29, 45, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    sprite = sprite_of(4, lambda t: {"a": red if t % 2 else blue, "b": blue if t % 2 else red})
    with Image.open(BytesIO(sprite.data)) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    for row in range(2):
        for column in range(4):
            top, left = (29 + 2 * PADDING) * row + PADDING, (45 + 2 * PADDING) * column + PADDING
            panel = pixels[top : top + 29, left : left + 45]
            assert np.ptp(panel, axis=(0, 1)).max() < 8


def test_before_the_forecast_what_was_seen_is_shown() -> None:
    shown = view(8, 24, 32, noise=False)
    early, late = panels(shown, 3), panels(shown, 4)
    np.testing.assert_array_equal(early["forecaster"], early["truth"])  # its context was right
    assert not np.array_equal(late["forecaster"], late["truth"])
    np.testing.assert_array_equal(late["constant_velocity"], late["truth"])


@pytest.mark.parametrize(("frames", "height", "width"), [(22, 160, 240), (60, 480, 270)])
def test_large_and_long_clips_of_noise_stay_small(frames: int, height: int, width: int) -> None:
    sprite = draw_sprite(view(frames, height, width, noise=True))
    assert len(sprite.data) <= MAX_BYTES
    assert len(sprite.frames) == min(frames, MAX_FRAMES)
    assert (sprite.frames[0], sprite.frames[-1]) == (0, frames - 1)
    assert sprite.size[0] * sprite.size[1] <= MAX_PIXELS
    with Image.open(BytesIO(sprite.data)) as picture:
        height, width = (side + 2 * PADDING for side in sprite.size)
        assert picture.size == (width * len(sprite.frames), height * len(sprite.panels))


@pytest.mark.parametrize(("height", "width", "size"), [(64, 1024, (44, 711)), (5000, 8, (3984, 6))])
def test_frames_that_are_very_wide_or_high_fit_into_a_picture(
    height: int, width: int, size: tuple[int, int]
) -> None:
    """WebP has at most 16,383 pixels a side."""
    sprite = draw_sprite(view(22, height, width, noise=False))
    assert sprite.size == size and len(sprite.frames) == 22
    with Image.open(BytesIO(sprite.data)) as picture:
        assert picture.size == (22 * (size[1] + 16), 4 * (size[0] + 16))


@pytest.mark.parametrize(("frames", "moving"), [(8, True), (1, False)])
def test_one_frame_has_nothing_to_move(frames: int, moving: bool) -> None:
    sprite = sprite_of(frames, lambda t: {"frame": np.full((4, 6, 3), t, np.uint8)})
    said = [f"frame {t + 1} of {frames}" for t in sprite.frames]
    text = player("clip-0", "A clip", sprite, {"frame": "frame"}, said, [])
    assert ("<button" in text) == ("<input" in text) == (said[-1] in text.split("</figure>")[1]) == moving
    assert f'aria-label="frame, {said[-1]}"' in text
