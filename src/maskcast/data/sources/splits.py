"""Assigns splits to sequences, or to parts of each sequence."""

from collections.abc import Sequence
from math import fsum

from maskcast.errors import MaskcastError
from maskcast.labels import SPLITS
from maskcast.params import ByName
from maskcast.seed import rng

Splits = ByName[str, float | tuple[str, ...]]  # share or names


def assign_splits(names: Sequence[str], splits: Splits, seed: int) -> dict[str, str]:
    """Assigns a split to each name: as listed, else by share in a random order (by ``seed``), else `train`.

    Raises:
        MaskcastError: on an unknown split, a listed name that does not exist or is listed twice, or a sum above 1.
    """
    found: dict[str, str] = {}
    shares = _shares(splits)
    for split, members in splits.items():
        for name in members if isinstance(members, tuple) else ():
            if name not in names or name in found:
                problem = "stands in two splits" if name in found else "is not among the sequences"
                known = ", ".join(names[:20]) + (", ..." if names[20:] else "")
                raise MaskcastError(
                    f"source.splits.{split}: {name!r} {problem} ({known}); fix the list, "
                    "or the paths that sequences are found by"
                )
            found[name] = split
    rest = [name for name in names if name not in found]
    order = [rest[i] for i in rng(seed).permutation(len(rest))]
    for split, share in shares.items():
        count = min(len(order), max(round(share * len(rest)), 1 if share else 0))
        found.update(dict.fromkeys(order[:count], split))
        order = order[count:]
    return {name: found.get(name, "train") for name in names}


def time_parts(frames: range, splits: Splits) -> dict[str, range]:
    """Cuts a sequence into consecutive parts: `train`, which gets the rest, then the other splits in their order.

    Raises:
        MaskcastError: on an unknown split, names instead of a share, or shares that sum to more than 1.
    """
    shares = _shares(splits)
    if named := [split for split in splits if split not in shares or split == "train"]:
        raise MaskcastError(
            f"splits.{named[0]}: with split_by: time every split but train takes a share of the sequence, e.g. 0.2"
        )
    parts, end = {}, frames.stop
    for split, share in reversed(shares.items()):
        begin = max(frames.start, end - round(share * len(frames)))
        parts[split], end = range(begin, end), begin
    parts["train"] = range(frames.start, end)
    return {split: part for split, part in reversed(parts.items()) if part}


def _shares(splits: Splits) -> dict[str, float]:
    """Returns the splits that are given by a share, after a check of all."""
    for split in splits:
        if split not in SPLITS:
            raise MaskcastError(f"splits.{split}: no such split; allowed: {', '.join(SPLITS)}")
    shares = {split: share for split, share in splits.items() if not isinstance(share, tuple)}
    # fsum is exact: a plain sum of 0.33, 0.56 and 0.11 is above 1.
    if any(share < 0 for share in shares.values()) or fsum(shares.values()) > 1:
        raise MaskcastError(f"splits: shares must be at least 0 and sum to at most 1, got {shares}; lower them")
    return shares
