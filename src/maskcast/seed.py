"""Seeds: each random draw is a pure function of a seed and a key, so that a killed run can resume exactly."""

import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def rng(seed: int, *key: int) -> np.random.Generator:
    """Returns a generator that depends only on ``(seed, *key)``; different keys give independent streams.

    Keys of different lengths differ, too: ``rng(5)``, ``rng(5, 0)`` and ``rng(5, 0, 0)`` are three streams.

    Args:
        seed: at least 0; from 2^32 on it counts as several numbers of 32 bits.
        key: numbers of at least 0 and below 2^32.
    """
    return np.random.Generator(np.random.Philox(_sequence(seed, key)))


def derive(seed: int, *key: int) -> int:
    """Returns a 63-bit seed for libraries that need one integer; a pure function of ``(seed, *key)``."""
    return int(_sequence(seed, key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_libraries(seed: int, *key: int) -> None:
    """Sets the random states of torch, NumPy and Python, which a network may draw from, by ``derive``."""
    import torch

    derived = derive(seed, *key)
    torch.manual_seed(derived)
    np.random.seed(derived % 2**32)
    random.seed(derived)


def _sequence(seed: int, key: tuple[int, ...]) -> np.random.SeedSequence:
    if key and key[-1] == 0:  # NumPy pads entropy with zeros, so that zeros at its end count in a spawn key only
        return np.random.SeedSequence(seed, spawn_key=key)
    return np.random.SeedSequence([seed, *key])  # simulated data are made of these streams


def draw_at_most(items: Sequence[T], limit: int | None, random: np.random.Generator) -> list[T]:
    """Returns at most ``limit`` items, drawn at random, in the order of ``items``; None returns all."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[k] for k in sorted(random.choice(len(items), limit, replace=False))]
