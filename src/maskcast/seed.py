"""Seeds: each random draw is a pure function of a seed and a key, so that a killed run can resume exactly."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def rng(seed: int, *key: int) -> np.random.Generator:
    """Returns a generator that depends only on ``(seed, *key)``; different keys give independent streams.

    Exception: trailing zeros make no difference, because NumPy pads with zeros: ``rng(5)`` equals ``rng(5, 0)``.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *key])))


def derive(seed: int, *key: int) -> int:
    """Returns a 63-bit seed for libraries that need one integer; a pure function of ``(seed, *key)``."""
    return int(np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def draw_at_most(items: Sequence[T], limit: int | None, random: np.random.Generator) -> list[T]:
    """Returns at most ``limit`` items, drawn at random, in the order of ``items``; None returns all."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[k] for k in sorted(random.choice(len(items), limit, replace=False))]
