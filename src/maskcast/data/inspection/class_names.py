"""Names of classes, from a list that lies beside the data.

It is called `label_colors.txt`, `class_dict.csv`, `classes.txt`, or `labelmap.txt` as CVAT writes it.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maskcast.data.labelling.formats.cityscapes import TABLE
from maskcast.data.masks.panoptic import COLOURS
from maskcast.data.masks.rules import VOID
from maskcast.files import files_below
from maskcast.labels import IGNORE

LISTS = re.compile(r".*(class|label|palette|colou?r).*\.(txt|csv)", re.IGNORECASE)
NAMES = tuple(name for name, *_ in TABLE)
TRAINED = tuple(name for name, _, _, left_out in TABLE if not left_out)  # in the order of their ids in training
CITYSCAPES = {"_labelIds": NAMES, "_instanceIds": NAMES, "_labelTrainIds": TRAINED}  # by what masks are called
STEP = range(7, len(TRAINED))  # highest class: MOTChallenge-STEP has 0 to 6, of its own
_LABELMAP = re.compile(r"^([^:]+):(\d+,\d+,\d+):[^:]*:[^:]*$")
LARGEST = 65536  # bytes of a list
NO_LABEL = re.compile(r"_*(void|ignore|unlabell?ed|unknown|none)_*", re.IGNORECASE)


class Named(NamedTuple):
    """A line of a list: a name, and its colour as 0xRRGGBB, if it has one."""

    name: str
    colour: int | None


def listed_classes(raw: Path) -> tuple[list[Named], str]:
    """Returns the classes of the first list below a folder, and its path; nothing where there is none."""
    for path in files_below(raw):
        parts = path.relative_to(raw).parts
        if len(parts) > 3 or not LISTS.fullmatch(path.name) or path.stat().st_size > LARGEST:
            continue
        found = _read(path.read_text(encoding="utf-8-sig", errors="replace"))
        if len(found) > 1:
            return found, "/".join(parts)
    return [], ""


def named_source(source: dict[str, Any], listed: Sequence[Named]) -> dict[str, Any] | None:
    """Returns the keys of a source with the names of a list; None where the list is of other masks.

    Args:
        source: with `classes`, and `values` where masks hold colours.
        listed: by id, or by colour.
    """
    if "values" in source:
        by_colour = {f"#{one.colour:06x}": one.name for one in listed if one.colour is not None}
        if not set(source["values"]) <= by_colour.keys():
            return None
        names = dict.fromkeys(name for name in by_colour.values() if not NO_LABEL.fullmatch(name))
        values = {colour: name if name in names else VOID for colour, name in by_colour.items()}
        background_first = sorted(names, key=lambda name: name.lower() != "background")
        return {"classes": background_first, "values": values} if len(names) > 1 else None
    names_by_id = [one.name for one in listed]
    by_id = source.get("encoding") == "index" or "label_divisor" in source
    if not by_id or len(names_by_id) != len(source["classes"]):
        return None
    if len(set(names_by_id)) < len(names_by_id):
        return None
    void = [number for number, name in enumerate(names_by_id) if NO_LABEL.fullmatch(name)]
    if void == [len(names_by_id) - 1] and "ignore" not in source and len(names_by_id) > 2:
        return {"classes": names_by_id[:-1], "ignore": void[0]}
    return {"classes": names_by_id}


def known_source(source: dict[str, Any], mask: Path, values: Sequence[int]) -> dict[str, Any] | None:
    """Returns the keys of a source with the names of Cityscapes; None where masks are not of its form.

    Args:
        source: with `label_divisor` of masks of classes and objects.
        mask: one of its masks: what Cityscapes writes is known by the name.
        values: ids of classes in the masks.
    """
    known = next((names for ending, names in CITYSCAPES.items() if mask.stem.endswith(ending)), ())
    ids = [value for value in values if value != IGNORE]
    if source.get("label_divisor") == COLOURS and IGNORE in values and ids[-1] in STEP:
        known = TRAINED  # of KITTI-STEP
    if not known or not ids or ids[-1] >= len(known):
        return None
    source.pop("values", None)
    void = {"ignore": IGNORE} if IGNORE in values else {}
    return {"classes": list(known), **({} if "label_divisor" in source else {"encoding": "index"}), **void}


def _read(text: str) -> list[Named]:
    """Returns the lines of a list: `64 128 64 Animal`, `Animal,64,128,64`, `Animal:64,128,64::` or names alone."""
    found, bare = [], []
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        line = _LABELMAP.sub(r"\1 \2", line)
        words = [word for word in re.split(r"[,;\t ]+", line.strip()) if word]
        numbers = [int(word) for word in words if word.isdigit()]
        name = " ".join(word for word in words if not word.isdigit())
        if not name:
            continue
        if len(numbers) == 3 and max(numbers) < 256:
            found.append(Named(name, numbers[0] << 16 | numbers[1] << 8 | numbers[2]))
        elif not numbers:
            bare.append(Named(name, None))
    return found or bare
