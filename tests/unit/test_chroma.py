"""Chroma keys, by hand and against figures whose opacity is known."""

import pickle

import numpy as np
import pytest

from maskcast.data.chroma import BoundsKey, Key, SoftKey, check_key, key_with_matte
from maskcast.errors import IllustratedError
from maskcast.params import Params, validate
from maskcast.simulator.figures import background_length, simulate_background, simulate_green_screen

SCREEN, RED = (40, 180, 60), (200, 20, 30)


def half_and_half(share: float = 0.5) -> np.ndarray:
    """Returns a frame (1, 8, 8, 3): screen, red, and a column that is so much red."""
    frame = np.empty((1, 8, 8, 3), np.uint8)
    frame[:, :, :5], frame[:, :, 5:] = SCREEN, RED
    frame[:, :, 4] = np.round(share * np.array(RED) + (1 - share) * np.array(SCREEN))
    return frame


def test_the_bounds_are_those_of_the_system() -> None:
    frame = np.array([[[0, 125, 0], [120, 255, 100], [121, 200, 50], [50, 124, 50], [50, 200, 101]]], np.uint8)
    light, alpha = BoundsKey()(frame[None])
    assert alpha[0, 0].tolist() == [0, 0, 255, 255, 255]
    assert light[0, 0].tolist() == [[0, 0, 0], [0, 0, 0], [121, 200, 50], [50, 124, 50], [50, 200, 101]]
    light, _ = BoundsKey(despill=True)(frame[None])
    assert light[0, 0, 2].tolist() == [121, 121, 50]


def test_a_soft_edge_is_half_opaque_and_loses_the_light_of_the_screen() -> None:
    # The greenness of the screen is 180 - 60 = 120. A pixel that is a quarter red has (80, 140, 52.5), so 60, half
    # the screen's: its opacity is 1 - (0.5 - 0.15) / (0.85 - 0.15) = 0.5.
    light, alpha = SoftKey(despill=False)(half_and_half(0.25))
    assert alpha[0, 0].tolist() == [0, 0, 0, 0, 128, 255, 255, 255]
    assert light[0, 0, 4].tolist() == pytest.approx([80 - 0.5 * 40, 140 - 0.5 * 180, 52 - 0.5 * 60], abs=1)


def test_a_known_matte_gives_back_the_light_of_the_foreground() -> None:
    matte = np.zeros((1, 8, 8), np.uint8)
    matte[:, :, 5:], matte[:, :, 4] = 255, 128
    light, alpha = key_with_matte(half_and_half(), matte)
    assert (alpha == matte).all()
    assert light[0, 0, 4].tolist() == pytest.approx([100, 10, 15], abs=1)
    assert light[0, 0, 0].tolist() == [0, 0, 0]
    grey = np.full((1, 2, 2, 3), 90, np.uint8)  # no screen: opacity alone counts
    assert (key_with_matte(grey, np.full((1, 2, 2), 128, np.uint8)).foreground_THWC == 45).all()


def test_the_soft_key_halves_the_error_of_the_bounds_on_figures() -> None:
    error = {}
    for key in (BoundsKey(), SoftKey()):
        errors = []
        for seed in range(6):
            frames, truth = simulate_green_screen(seed, frames=2, height=80, width=120)
            keyed = key(frames)
            check_key(keyed, frames, key.min_screen)
            errors.append(np.abs(keyed.alpha_THW.astype(int) - truth).mean() / 255)
        error[key.name] = np.mean(errors)
    assert error["soft"] < 0.01 and error["soft"] < 0.6 * error["bounds"]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (
            np.full((2, 8, 8, 3), RED, np.uint8),
            r"0\.0% of frame 0 is green screen, required: 5% \(min_screen\)",
        ),
        (np.full((2, 8, 8, 3), SCREEN, np.uint8), "no foreground found in front of the screen"),
        (np.repeat(half_and_half()[:, :, :5], 2, axis=2), "100% of the foreground is half-transparent"),
    ],
)
@pytest.mark.parametrize("key", [BoundsKey(), SoftKey()])
def test_a_key_that_fails_says_why_and_shows_it(frame: np.ndarray, reason: str, key: Key) -> None:
    keyed = key(frame)
    if "half" in reason:
        keyed = keyed._replace(alpha_THW=np.where(keyed.alpha_THW == 255, 128, keyed.alpha_THW).astype(np.uint8))
    with pytest.raises(IllustratedError, match=reason) as caught:
        check_key(keyed, frame, key.min_screen)
    back = pickle.loads(pickle.dumps(caught.value))  # it comes from another process
    assert str(back) == str(caught.value)
    assert back.picture_HWC.shape == (*frame.shape[1:2], 3 * frame.shape[2], 3)


def test_thresholds_out_of_order_are_refused() -> None:
    class Holder(Params):
        key: Key

    with pytest.raises(Exception, match=r"key.*opaque 0.9 must be below clear 0.85"):
        validate(Holder, {"key": {"name": "soft", "opaque": 0.9}}, "x: ")


def test_figures_are_a_function_of_the_seed_and_move() -> None:
    frames, alpha = simulate_green_screen(5, frames=12, height=80, width=120)
    again, _ = simulate_green_screen(5, frames=12, height=80, width=120)
    assert (frames == again).all() and frames.shape == (12, 80, 120, 3) and alpha.shape == (12, 80, 120)
    assert not (frames == simulate_green_screen(6, frames=12, height=80, width=120)[0]).all()
    assert ((alpha > 25) & (alpha < 230)).mean() > 0.002  # soft edges
    assert (alpha[0] != alpha[11]).mean() > 0.01
    counts = [len(simulate_background(seed, frames=12, height=80, width=120)) for seed in range(8)]
    assert {*counts} == {1, 12} and counts == [background_length(seed, 12) for seed in range(8)]
