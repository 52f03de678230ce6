"""Random draws are pure functions of a seed and a key, and independent of those of all other keys."""

from itertools import product

import numpy as np

from maskcast.seed import derive, rng
from maskcast.training.tasks.forecasting_windows import WindowSampler

NUMBERS = (0, 1, 2**32 - 1)
KEYS = [(seed, *key) for seed in (0, 1, 2**32 - 1) for n in range(5) for key in product(NUMBERS, repeat=n)]


def test_no_two_keys_draw_the_same() -> None:
    drawn = {int(rng(*key).integers(2**63)) for key in KEYS}
    assert len(drawn) == len(KEYS)
    assert len({derive(*key) for key in KEYS}) == len(KEYS)


def test_streams_of_which_simulated_data_are_made_stay() -> None:
    assert [rng(*key).integers(1000) for key in ((5,), (5, 1), (5, 3, 2), (2**62, 4))] == [864, 950, 50, 363]
    assert [derive(*key) % 1000 for key in ((5,), (5, 1), (5, 3, 2))] == [91, 150, 999]


def test_a_key_always_draws_the_same() -> None:
    for key in KEYS[::7]:
        np.testing.assert_array_equal(rng(*key).random(3), rng(*key).random(3))
        assert derive(*key) == derive(*key) < 2**63


def test_the_first_sample_of_a_batch_does_not_repeat_the_draws_of_the_batch() -> None:
    """A forecaster's sample 0 was mirrored depending on the length of the batch's context."""
    sampler = WindowSampler([128] * 200, context=11, min_context=6, horizon=11, seed=0)
    contexts = np.array([sampler.draw(step, 8).context for step in range(2000)])
    mirrored = np.array([rng(0, step, 0).random() < 0.5 for step in range(2000)])
    shares = [mirrored[contexts == context].mean() for context in range(6, 12)]
    assert all(0.4 < share < 0.6 for share in shares)  # over 300 draws each, 0.1 is more than three deviations
