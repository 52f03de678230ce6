"""Pairs the frames of a sequence with its masks: by name, or by number if the params ask for it.

Legend: a *key* names a frame: the text that stands for `{frame}` in a pattern, else the file name without ending.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskcast.data.frame_names import name_key, name_pattern
from maskcast.errors import MaskcastError


@dataclass(frozen=True)
class PairedMasks:
    """The masks of a sequence's frames.

    Attributes:
        masks: one path or None per frame.
        unpaired: masks without a frame.
        rule: a text that says how they were paired.
    """

    masks: list[Path | None]
    unpaired: list[Path]
    rule: str


def pair_by_name(frames: Iterable[str], masks: Mapping[str, Path], suffix: str) -> PairedMasks:
    """Pairs each frame with the mask of the same key; leading zeros and case are ignored."""
    rule = "a mask has the name of its frame" + (f" and {suffix!r}" if suffix else "")
    by_key = {name_key(key): path for key, path in masks.items()}
    paired = [by_key.pop(name_key(key), None) for key in frames]
    return PairedMasks(paired, list(by_key.values()), rule)


def pair_by_number(
    numbers: Sequence[int], masks: Mapping[str, Path], offset: int | None, location: str
) -> PairedMasks:
    """Pairs each frame with a mask by number.

    Args:
        numbers: of the frames; those of a video count from 0.
        masks: by key.
        offset: number of a mask - number of its frame. None means 0, accepted only if the first frame has a mask.
        location: place of the masks, for errors.

    Raises:
        MaskcastError: if a mask's name does not give exactly one number, two masks have the same number, or the
            masks may belong to other frames.
    """
    by_number: dict[int, Path] = {}
    for key, number in numbers_of(masks, location).items():
        if number in by_number:
            raise MaskcastError(f"{masks[key]}: {by_number[number].name} has the same number; remove one of them")
        by_number[number] = masks[key]
    first, last = min(by_number), max(by_number)
    if offset is None and first != numbers[0]:
        raise MaskcastError(
            f"{by_number[first]}: the first mask has the number {first}, the first frame {numbers[0]}; set "
            f"source.offset: {first - numbers[0]} if they belong together, or 0 if it is the mask of frame {first}"
        )
    shift = offset or 0
    if last - shift > numbers[-1]:
        raise MaskcastError(
            f"{by_number[last]}: with source.offset: {shift} it is the mask of frame {last - shift}, and the last "
            f"frame is {numbers[-1]}; set source.offset to the number of the first frame's mask"
        )
    paired = [by_number.pop(number + shift, None) for number in numbers]
    rule = f"mask N is of frame N - {shift}" + ("" if numbers[0] else ", counted from 0")
    return PairedMasks(paired, list(by_number.values()), rule)


def numbers_of(keys: Iterable[str], location: str, param: str = "masks") -> dict[str, int]:
    """Returns the number in each key: the only one, or, if keys differ in digits only, the only one that varies.

    Args:
        keys: of masks or frames.
        location: their place, for errors.
        param: key of the source with their pattern, for errors.

    Raises:
        MaskcastError: if that does not give one number for each key.
    """
    digits = {key: re.findall(r"\d+", key) for key in keys}
    same_form = len({name_pattern(key) for key in digits}) == 1
    columns = list(zip(*digits.values(), strict=True)) if same_form else []
    varying = [k for k, column in enumerate(columns) if len(set(map(int, column))) > 1]
    if len(varying) == 1:
        return {key: int(found[varying[0]]) for key, found in digits.items()}
    wrong = next((key for key, found in digits.items() if len(found) != 1), None)
    if wrong is not None:
        count = len(digits[wrong]) or "no"
        raise MaskcastError(
            f"{location}: {wrong!r} has {count} numbers, so its frame is ambiguous; let {{frame}} stand for "
            f"the number in source.{param}, e.g. {{clip}}/{param.removesuffix('s')}_{{frame}}.png"
        )
    return {key: int(found[0]) for key, found in digits.items()}
