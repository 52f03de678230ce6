"""Seeds: every random draw is a pure function of a seed and a key, so that a killed run can go on exactly."""

import numpy as np


def rng(seed: int, *key: int) -> np.random.Generator:
    """Returns a generator that depends on nothing but ``(seed, *key)``; other keys give independent streams.

    But for zeros at the end: NumPy adds some, so that ``rng(5)`` and ``rng(5, 0)`` are the same stream.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *key])))


def derive(seed: int, *key: int) -> int:
    """Returns a 63-bit seed for libraries that want one integer, a pure function of ``(seed, *key)``."""
    return int(np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)[0] >> np.uint64(1))
