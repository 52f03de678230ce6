"""Which classes or label maps a horizontal flip swaps: the param of a raw layout, and what names suggest."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, PlainSerializer

from maskcast.labels import (
    MIRROR_SWAPS,
    Attributes,
    LabelError,
    LabelMap,
    MirrorSwaps,
    mirror_swaps_from_json,
    mirror_swaps_to_json,
)
from maskcast.reading import pluralize

MirrorSwapsParam = Annotated[
    MirrorSwaps, BeforeValidator(mirror_swaps_from_json), PlainSerializer(mirror_swaps_to_json)
]
"""Pairs of names; a single pair may be written as two names."""

_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
_WORD = re.compile(r"\b(left|right)\b")
_LETTER = re.compile(r"(?<=.)\b[lr]$|^[lr]\b(?=.)")  # at an end of a name that has other words
_PART = re.compile(r"\b(left|right)|(left|right)\b")  # lefthand
_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[LR])(?=[A-Z][a-z])")


class Sides(NamedTuple):
    """What names and attributes say about sides.

    Attributes:
        pairs: names that differ in left and right only.
        unpaired: names of one side whose other side does not exist.
    """

    pairs: MirrorSwaps
    unpaired: tuple[str, ...]


def check_swaps_named(swaps: MirrorSwaps | None, *groups: Sequence[str]) -> None:
    """Checks that both names of each pair are in the same group: the label maps, or the classes of a map.

    Raises:
        ValueError: if they are not.
    """
    for pair in swaps or ():
        if any({*pair} <= {*group} for group in groups):
            continue
        allowed = [name for group in groups for name in group]
        unknown = next((name for name in pair if name not in allowed), None)
        if unknown is not None:
            raise ValueError(f"{MIRROR_SWAPS} names {unknown!r}, which is none of: {', '.join(allowed)}")
        raise ValueError(
            f"{MIRROR_SWAPS}: {pair[0]!r} and {pair[1]!r} are a label map and a class; pair two of a kind"
        )


def mirror_swaps_meta(swaps: MirrorSwaps | None, *groups: Sequence[str]) -> dict[str, Any]:
    """Returns the meta of a store in which a horizontal flip swaps these pairs; empty for None.

    Args:
        swaps: the pairs.
        groups: names of the label maps, and of the classes of a map without the background.

    Raises:
        LabelError: if a name does not exist.
    """
    try:
        check_swaps_named(swaps, *groups)
    except ValueError as error:
        raise LabelError(f"source.{error}; fix the name") from None
    return {} if swaps is None else {MIRROR_SWAPS: mirror_swaps_to_json(swaps)}


def find_sides(names: Sequence[str], attributes: Attributes | None = None) -> Sides:
    """Returns which of some names are the left and the right of the same.

    `left hand`, `hand_right`, `LeftHand` and `lefthand` have a side. A single letter (`hand.L`, `r_eye`) only
    counts if the same name with the other letter exists, too. Classes whose attributes are equal except for left
    and right are also a pair.

    Args:
        names: of label maps, or of classes.
        attributes: for each attribute its value for each class, or None.
    """
    keys = [_normalised(name) for name in names]
    partner: dict[str, str] = {}
    for pattern in (_WORD, _LETTER, _PART):
        _pair_up(names, keys, [_swapped(pattern, key) for key in keys], partner)
    rows = list(zip(*(attributes or {}).values(), strict=True)) or [()] * len(names)
    signatures = [tuple(value and _normalised(value) for value in row) for row in rows]
    swapped = [tuple(value and _swapped(_WORD, value) for value in row) for row in signatures]
    _pair_up(names, signatures, swapped, partner)
    one_sided = [
        len({*_WORD.findall(key)}) == 1 or own != other
        for key, own, other in zip(keys, signatures, swapped, strict=True)
    ]
    pairs = [(name, partner[name]) for name in names if name in partner]
    return Sides(
        tuple(pair for k, pair in enumerate(pairs) if pair[::-1] not in pairs[:k]),
        tuple(name for name, sided in zip(names, one_sided, strict=True) if sided and name not in partner),
    )


def sides_of_maps(maps: Iterable[LabelMap]) -> Sides:
    """Returns the sides among the names of label maps, and among the classes of each."""
    maps = list(maps)
    found = [find_sides([one.name for one in maps]), *(find_sides(one.classes, one.attributes) for one in maps)]
    pairs = dict.fromkeys(pair for sides in found for pair in sides.pairs)
    return Sides(tuple(pairs), tuple(dict.fromkeys(name for sides in found for name in sides.unpaired)))


def side_warnings(sides: Sides, declared: MirrorSwaps | None, no_flip: str) -> list[str]:
    """Returns warnings about sides that training would confuse, because it flips frames and swaps nothing.

    Args:
        sides: found in the names.
        declared: pairs that swap, or () if none does. What is declared ends the warnings.
        no_flip: how to train without flips.
    """
    if declared is not None:
        return []
    warnings = []
    if sides.pairs:
        one, other = sides.pairs[0]
        more = f" (and {pluralize(len(sides.pairs) - 1, 'more pair')})" if sides.pairs[1:] else ""
        warnings.append(
            f"warning: {one!r} and {other!r}{more} seem to swap in flipped images, but training swaps only what "
            f"source.mirror_swaps declares: set it to {swaps_text(sides.pairs)}, or to [] if they do not swap"
        )
    if unpaired := sides.unpaired:
        more = f" (and {len(unpaired) - 1} more)" if unpaired[1:] else ""
        warnings.append(
            f"warning: {unpaired[0]!r}{more} has a side, and no partner to swap with in flipped images: {no_flip}"
        )
    return warnings


def swaps_text(swaps: MirrorSwaps) -> str:
    """Returns pairs as they are written in a params file."""
    pairs = [f"[{', '.join(pair)}]" for pair in swaps]
    return pairs[0] if len(pairs) == 1 else f"[{', '.join(pairs)}]"


def _normalised(name: str) -> str:
    """Returns a name in lower case, with one space between words."""
    return re.sub(r"[\W_]+", " ", _CAMEL_CASE.sub(" ", name)).strip().lower()


def _swapped(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(lambda found: _SIDES[found[0]], text)


def _pair_up(names: Sequence[str], keys: Sequence[Any], others: Sequence[Any], partner: dict[str, str]) -> None:
    """Pairs names whose key is the other's ``others``; keys that several names have are ambiguous."""
    count = Counter(keys)
    by_key = {key: name for key, name in zip(keys, names, strict=True) if count[key] == 1}
    for name, key, other in zip(names, keys, others, strict=True):
        mate = by_key.get(other)
        if key != other and count[key] == 1 and mate is not None and not {name, mate} & partner.keys():
            partner |= {name: mate, mate: name}
