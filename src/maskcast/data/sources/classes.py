"""The classes of a user's data set: a list of names, or a file in the raw folder that also gives attributes.

    background:
    left thumb:  {side: left, part: thumb}
    right thumb: {side: right, part: thumb}

The file has one class per line, in the order of the ids, each with its attributes, if any.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from maskcast.data.masks.rules import VOID
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, Attributes
from maskcast.params import load_params_file
from maskcast.reading import pluralize

EXAMPLE = "`left thumb: {side: left, part: thumb}`"


def _check_classes(classes: tuple[str, ...] | str) -> tuple[str, ...] | str:
    if not isinstance(classes, str) and (fault := _fault(classes)):
        raise ValueError(fault)
    return classes


def _fault(classes: Collection[str]) -> str | None:
    """Returns what is wrong with the names of classes, with the remedy, or None."""
    if not 2 <= len(classes) <= IGNORE:
        return f"{pluralize(len(classes), 'class')}; give 2 to {IGNORE}, the background first"
    if VOID in classes:
        return f"{VOID!r} means no label, and cannot name a class; rename it"
    return None


Classes = Annotated[tuple[str, ...] | str, AfterValidator(_check_classes)]


def read_classes(raw: Path, classes: Classes) -> tuple[tuple[str, ...], Attributes]:
    """Returns the class names by id, and for each attribute its values by class id.

    Args:
        raw: folder that ``fetch_dataset`` wrote.
        classes: the names, or the path of a classes file below ``raw``.

    Raises:
        MaskcastError: if the file does not exist or does not map classes to attributes.
    """
    if not isinstance(classes, str):
        return classes, {}
    path = raw / classes
    table = load_params_file(
        path, "classes file", "put it there, or list the names in prepare_clips.source.classes"
    )
    for name, values in table.items():
        if not isinstance(name, str) or not isinstance(values, dict | None):
            raise MaskcastError(
                f"{path}: {name!r}: {values!r}; write a class a line, e.g. {EXAMPLE}, names as text"
            )
        for key, value in (values or {}).items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise MaskcastError(
                    f"{path}: {name!r}: {key!r}: {value!r} is not text; put it in quotes, e.g. {EXAMPLE}"
                )
    if fault := _fault(table):
        raise MaskcastError(f"{path}: {fault}")
    attributes = dict.fromkeys(key for values in table.values() for key in values or {})
    shared = {key: tuple((values or {}).get(key) for values in table.values()) for key in attributes}
    return tuple(table), shared
