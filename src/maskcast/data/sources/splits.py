"""Assigns splits to sequences, or to parts of each sequence."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import fsum
from pathlib import Path
from typing import TypeVar

from maskcast.data.frame_names import NameIndex, folded, original_name
from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.labels import SPLITS
from maskcast.params import ByName
from maskcast.reading import first_few

Key = TypeVar("Key", bound=Hashable)
Splits = ByName[str, float | tuple[str, ...]]  # share or names
# Order of the splits in a ranking; `train` is last. A single new item moves others to a neighbour only. So with a
# share of `val`, none of `train` becomes `test`, where a training that goes on would be scored on what it knows.
RANKED_SPLITS = ("test", "hidden", "val", "unlabeled")


def assign_splits(
    names: Sequence[str], splits: Splits, seed: int, labelled: Collection[str] | None = None
) -> dict[str, str]:
    """Assigns a split to each name: as listed, else by share (see `split_by_shares`), else `train`.

    Listed names may differ in case, leading zeros or Unicode form.

    Args:
        names: all names.
        splits: shares or names.
        seed: seed of the ranking.
        labelled: names with labels; others are `unlabeled` if they are not listed. None: all have some.

    Raises:
        MaskcastError: on an unknown split, a listed name that does not exist or is listed twice, or a sum above 1.
    """
    assigned: dict[str, str] = {}
    shares, index = _shares(splits), NameIndex(names)
    for split, members in splits.items():
        for listed in members if isinstance(members, tuple) else ():
            name = index.find(listed)
            if name is None or name in assigned:
                problem = "is not among the sequences" if name is None else "is in two splits"
                raise MaskcastError(
                    f"source.splits.{split}: {listed!r} {problem} ({first_few(names, 20)}); fix the list, "
                    "or the paths that sequences are found by"
                )
            assigned[name] = split
    others = [name for name in names if name not in assigned and (labelled is None or name in labelled)]
    assigned |= split_by_shares(others, shares, seed)
    return {name: assigned.get(name, "unlabeled") for name in names}


def split_by_shares(names: Iterable[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Assigns a split to each name by shares; the rest is `train`.

    Varied copies of one image (see ``original_name``) count as one item and stay together. Items are ranked by a
    hash of the seed and their name, so the order of ``names`` does not matter. The splits follow each other in the
    ranking as in ``RANKED_SPLITS``, and each ends at its rounded share; each gets one at least, if there are any.

    An item that is added or removed moves at most one other across the end of each split, so at most as many as
    there are shares, `train`'s not counted. With a share of `val` alone, a new item in `val` moves one of `val` to
    `train` if the number of `val` stays, and one in `train` moves one of `train` to `val` if that number grows.

    Args:
        names: all names; repeated ones count once.
        shares: share of each split, checked.
        seed: seed of the ranking.
    """
    copies: dict[str, list[str]] = defaultdict(list)
    for name in names:
        copies[original_name(name)].append(name)
    ranking = sorted(copies, key=lambda name: (_rank(name, seed), name))
    ranked_splits = [split for split in RANKED_SPLITS if shares.get(split)]
    ends = [0]
    for count in range(1, len(ranked_splits) + 1):
        rounded = round(fsum(shares[each] for each in ranked_splits[:count]) * len(ranking))
        kept = len(ranked_splits) - count  # items for the splits that follow
        ends.append(max(0, min(max(rounded, ends[-1] + 1), len(ranking) - kept)))
    split_of = dict.fromkeys(ranking, "train")
    for split, (begin, end) in zip(ranked_splits, pairwise(ends), strict=True):
        split_of |= dict.fromkeys(ranking[begin:end], split)
    return {name: split_of[item] for item, members in copies.items() for name in members}


def _rank(name: str, seed: int) -> bytes:
    """Returns a hash of the seed and a name, the same for all Unicode forms of the name."""
    text = f"{seed}\0{folded(name)}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def listed_names(splits: Splits, names: Iterable[str]) -> set[str]:
    """Returns those of ``names`` that splits list."""
    index = NameIndex(names)
    found = {index.find(name) for members in splits.values() if isinstance(members, tuple) for name in members}
    return {name for name in found if name is not None}


def check_no_copies(files: Mapping[Key, Path], splits: Mapping[Key, str]) -> None:
    """Refuses copies of one file in two splits: validation would score on training data.

    Files that cannot be read are reported later, when they are read.

    Args:
        files: by name.
        splits: of each name.

    Raises:
        MaskcastError: names both files.
    """
    there = {name: path for name, path in files.items() if path.is_file()}
    sizes = Counter(path.stat().st_size for path in there.values())
    seen: dict[str, Key] = {}
    for name, path in there.items():
        if sizes[path.stat().st_size] == 1:
            continue
        other = seen.setdefault(sha256_of(path), name)
        if splits[other] != splits[name]:
            raise MaskcastError(
                f"{path}: the same as {there[other]}, and they are in splits {splits[name]!r} and "
                f"{splits[other]!r}; remove one of them"
            )


def time_parts(frames: range, splits: Splits) -> dict[str, range]:
    """Cuts a sequence into consecutive parts: `train`, which gets the rest, then the other splits in their order.

    Splits that are given by names get no part.

    Raises:
        MaskcastError: on an unknown split, a share of `train`, or shares that sum to more than 1.
    """
    shares = _shares(splits)
    if "train" in shares:
        raise MaskcastError(
            "splits.train: with split_by: time train gets the rest of each sequence; give the other splits "
            "shares, e.g. val: 0.2, or name the sequences that are whole in train"
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
            raise MaskcastError(f"splits.{split}: unknown split; allowed: {', '.join(SPLITS)}")
    shares = {split: share for split, share in splits.items() if not isinstance(share, tuple)}
    # fsum is exact: a plain sum of 0.33, 0.56 and 0.11 is above 1.
    if any(share < 0 for share in shares.values()) or fsum(shares.values()) > 1:
        raise MaskcastError(f"splits: shares must be at least 0 and sum to at most 1, got {shares}; lower them")
    return shares
