"""Finds class names that fit the values of masks, in a list beside the data or the table of a known data set."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskcast.data.inspection.class_lists import ListedClass
from maskcast.data.labelling.formats.cityscapes import TABLE
from maskcast.data.labelling.formats.mots import KITTI
from maskcast.data.masks.panoptic import COLOUR_DIVISOR, MOTS_VOID
from maskcast.data.masks.rules import VOID, has_colours
from maskcast.data.masks.stored import BDD_BITMASK, WHITE_16
from maskcast.data.masks.survey import MaskSurvey
from maskcast.labels import IGNORE

BDD = ("background", "pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
CITYSCAPES_NAMES = tuple(name for name, *_ in TABLE)
# in the order of their train ids
CITYSCAPES_TRAIN_NAMES = tuple(name for name, _, _, left_out in TABLE if not left_out)
# by the masks' names
CITYSCAPES_BY_SUFFIX = {
    "_labelIds": CITYSCAPES_NAMES,
    "_instanceIds": CITYSCAPES_NAMES,
    "_labelTrainIds": CITYSCAPES_TRAIN_NAMES,
}
# highest train id; MOTChallenge-STEP has its own classes 0 to 6
STEP_HIGHEST_IDS = range(7, len(CITYSCAPES_TRAIN_NAMES))
COLOUR = "#{:06x}"
BACKGROUND = re.compile(r".*(background|hintergrund).*|bg|others?|nothing|empty", re.IGNORECASE)
MAX_UNLISTED = 0.1  # of soft edges that are not seen to be mixtures, the maximum share of the foreground
NO_LABEL = re.compile(r"_*(void|ignore|unlabell?ed|unknown|none)_*", re.IGNORECASE)


def source_with_list(
    source: Mapping[str, Any], listed: Sequence[ListedClass], survey: MaskSurvey
) -> dict[str, Any] | None:
    """Returns keys that replace those of a source and its `values`; None if the list does not fit the masks.

    Args:
        source: with `classes`, and with `values` if masks hold colours, or ids with gaps.
        listed: classes by id, or by colour.
        survey: the contents of the masks.
    """
    if not has_colours(source.get("values", {})) and (by_id := _by_id(listed)):
        return _source_with_ids(source, by_id, survey.values)
    if "values" in source:
        by_colour = _by_colour(source, listed)
        void = {colour: name for colour, name in source["values"].items() if name == VOID}
        lacking = unlisted_colours(source, listed, survey)
        if lacking is None or survey.share(lacking) > (MAX_UNLISTED * _foreground_share(survey) if void else 0):
            return None
        void |= dict.fromkeys(map(COLOUR.format, lacking), VOID)
        names = dict.fromkeys(name for name in by_colour.values() if not NO_LABEL.fullmatch(name))
        values = void | {colour: name if name in names else VOID for colour, name in by_colour.items()}
        if len(names) < 2:
            return None
        first = _first_class([*names], values, survey)
        return {"classes": sorted(names, key=lambda name: name != first), "values": values}
    if any(one.number is not None for one in listed):
        return None  # the order says nothing of the ids
    names_by_id = [one.name for one in listed]
    if leaves_background_out(source, listed, survey):
        names_by_id.insert(0, "background")
    has_ids = source.get("encoding") == "index" or "label_divisor" in source
    if not has_ids or len(names_by_id) != len(source["classes"]):
        return None
    if len(set(names_by_id)) < len(names_by_id):
        return None
    no_label = [number for number, name in enumerate(names_by_id) if NO_LABEL.fullmatch(name)]
    if no_label == [len(names_by_id) - 1] and "ignore" not in source and len(names_by_id) > 2:
        return {"classes": names_by_id[:-1], "ignore": no_label[0]}
    return {"classes": names_by_id}


def _first_class(names: Sequence[str], values: Mapping[str, str], survey: MaskSurvey) -> str:
    """Returns the class of colours that counts as background: one called so, else the one of most pixels."""
    called = next((name for name in names if name.lower() == "background"), None)
    if called is not None or any(map(BACKGROUND.fullmatch, names)):
        return called or names[0]
    name_of = {value: values.get(survey.format_values([value])) for value in survey.values}
    return max(names, key=lambda name: survey.share([value for value in name_of if name_of[value] == name]))


def leaves_background_out(source: Mapping[str, Any], listed: Sequence[ListedClass], survey: MaskSurvey) -> bool:
    """Whether names in order are those of 1 and more: 0, which most pixels have, is a value too many for them."""
    named = any(BACKGROUND.fullmatch(one.name) or NO_LABEL.fullmatch(one.name) for one in listed)
    in_order = all(one.number is None and one.colour is None for one in listed)
    return in_order and not named and len(listed) + 1 == len(source["classes"]) and survey.share([0]) > 0.5


def lacks_background(source: Mapping[str, Any], survey: MaskSurvey) -> bool:
    """Whether names by id seem to lack the background: class 0 has another name, and most pixels.

    The most frequent class is enough if the last name is of no pixel.
    """
    names, numbered = source["classes"], "values" not in source
    if not numbered or BACKGROUND.fullmatch(names[0]) or NO_LABEL.fullmatch(names[0]):
        return False
    share = survey.share([0])
    unused = len(names) - 1 not in survey.pixels
    return share > 0.5 or (unused and share == max(map(survey.share, ([value] for value in survey.pixels))))


def unlisted_colours(
    source: Mapping[str, Any], listed: Sequence[ListedClass], survey: MaskSurvey
) -> list[int] | None:
    """Returns the colours of masks that a list of classes lacks; None if it lacks most of what is not background.

    Args:
        source: with `values` if masks hold colours; those that it leaves out, soft edges, need no class.
        listed: classes by colour.
        survey: the contents of the masks.
    """
    if not survey.colours or "values" not in source:
        return None
    by_colour = _by_colour(source, listed)
    lacking = [
        value
        for value in survey.values
        if (text := COLOUR.format(value)) not in by_colour and source["values"].get(text) != VOID
    ]
    return lacking if survey.share(lacking) < _foreground_share(survey) / 2 else None


def _by_colour(source: Mapping[str, Any], listed: Sequence[ListedClass]) -> dict[str, str]:
    """Returns names by colour as text."""
    by_colour = {COLOUR.format(one.colour): one.name for one in listed if one.colour is not None}
    if "#000000" in source["values"]:  # lists of objects leave it out
        by_colour.setdefault("#000000", "background")
    return by_colour


def _foreground_share(survey: MaskSurvey) -> float:
    """Returns the fraction of pixels that do not have the most frequent value."""
    return 1 - max(map(survey.share, ([value] for value in survey.pixels)))


def source_of_known_dataset(
    source: Mapping[str, Any], mask: Path, survey: MaskSurvey
) -> tuple[dict[str, Any], str] | None:
    """Returns keys (see ``source_with_list``) with the class names of a known data set, and its name; else None.

    Args:
        source: with `label_divisor` if masks hold classes and objects.
        mask: one of its masks; Cityscapes' masks are recognised by their names.
        survey: the contents of the masks.
    """
    known = next((names for ending, names in CITYSCAPES_BY_SUFFIX.items() if mask.stem.endswith(ending)), ())
    values, place = survey.values, "Cityscapes"
    if BDD_BITMASK in survey.formats:
        known, place = BDD, "BDD100K"
    elif source.get("ignore") == MOTS_VOID:
        known, place = ("background", *KITTI), "KITTI MOTS"
    elif (
        source.get("label_divisor") == COLOUR_DIVISOR
        and IGNORE in values
        and max({*values} - {IGNORE}) in STEP_HIGHEST_IDS
    ):
        known = CITYSCAPES_TRAIN_NAMES  # KITTI-STEP
    found = _source_with_ids(source, known, [value for value in values if value != MOTS_VOID])
    return None if found is None else (found, f"the table of {place}")


def _source_with_ids(
    source: Mapping[str, Any], names: Sequence[str], values: Sequence[int]
) -> dict[str, Any] | None:
    """Returns keys with these names for class ids; None if the masks have other ids."""
    void_value = WHITE_16 if WHITE_16 in values else IGNORE
    ids = [value for value in values if value != void_value]
    if not any(ids) or ids[-1] >= len(names):
        return None
    void = {"ignore": void_value} if void_value in values else {}
    return {"classes": list(names), **({} if "label_divisor" in source else {"encoding": "index"}), **void}


def _by_id(listed: Sequence[ListedClass]) -> list[str]:
    """Returns names by id, with `background` for a lacking 0; empty if ids are lacking, or have gaps.

    Greys count as ids, because masks with grey colours are read as ids.
    """
    numbers = [one.number for one in listed]
    if None in numbers:
        numbers = [None if one.colour is None or one.colour % 0x010101 else one.colour & 255 for one in listed]
    named = {number: one.name for number, one in zip(numbers, listed, strict=True) if number is not None}
    if 0 not in named:
        named[0] = "background"
    names = [named[number] for number in sorted(named)]
    whole = len(named) >= len(listed) and max(named) == len(named) - 1 and len({*names}) == len(names)
    return names if None not in numbers and whole else []
