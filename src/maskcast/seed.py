"""Seeds: each random draw is a pure function of a seed and a key, so that a killed run can resume exactly."""

import numpy as np


def rng(seed: int, *key: int) -> np.random.Generator:
    """Returns a generator that depends only on ``(seed, *key)``; different keys give independent streams.

    Exception: trailing zeros make no difference, because NumPy pads with zeros: ``rng(5)`` equals ``rng(5, 0)``.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *key])))


def derive(seed: int, *key: int) -> int:
    """Returns a 63-bit seed for libraries that need one integer; a pure function of ``(seed, *key)``."""
    return int(np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)[0] >> np.uint64(1))
