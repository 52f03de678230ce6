"""The vocabulary of labels: label maps, splits, kinds of clips, and the class id that means none."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from maskcast.errors import MaskcastError

IGNORE = 255  # mask value left out of losses and metrics
KINDS = ("labelled", "unlabelled", "hidden")
Split = Literal["train", "val", "test", "unlabeled", "hidden"]
SPLITS: tuple[Split, ...] = get_args(Split)
KIND_OF_SPLIT: dict[str, str] = {
    **dict.fromkeys(SPLITS, "labelled"),
    "unlabeled": "unlabelled",
    "hidden": "hidden",
}
MASK = "mask"  # name of a store's map where it has but one and names none, as in format 1

MapKind = Literal["classes", "instances", "alpha"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")  # part of file names


class LabelError(MaskcastError):
    """Labels that contradict the params, e.g. a class id that does not exist.

    A damaged file concerns one clip, which may be skipped; this concerns all of them, so it always stops.
    """


@dataclass(frozen=True)
class LabelMap:
    """What the values of a mask mean.

    Attributes:
        name: of letters, digits and ``_``.
        classes: class names by id, background first; of an ``alpha`` map ``("background", "foreground")``.
        kind: ``classes``: uint8 class ids, `IGNORE` for no label; ``instances``: uint16 ids of objects, unique in
            a clip, 0 for none, each of one of ``classes``; ``alpha``: uint8 opacity of the foreground, 255 = 1.
        things: of kind ``classes``: whether each is a kind of object (a car), none stuff (a road): then an object
            can be followed, and has one class in all frames. Maps that differ in this alone are equal.

    Raises:
        MaskcastError: on another kind, a name that cannot be part of a file name, no or too many classes.
    """

    name: str
    classes: tuple[str, ...]
    kind: MapKind = "classes"
    things: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise MaskcastError(f"label map {self.name!r}: name it with letters, digits and _ alone")
        if self.kind not in get_args(MapKind):
            raise MaskcastError(f"label map {self.name!r}: kind {self.kind!r}; allowed: {get_args(MapKind)}")
        if not 1 <= len(self.classes) <= IGNORE:
            raise MaskcastError(f"label map {self.name!r}: {len(self.classes)} classes; give 1 to {IGNORE}")

    @property
    def num_classes(self) -> int:
        """The number of classes, background included."""
        return len(self.classes)

    def to_entry(self) -> dict[str, Any]:
        """Returns it as JSON has it; ``things`` is left out where it is false, as in files from before it."""
        entry = asdict(self)
        if not self.things:
            del entry["things"]
        return entry


def single_map(classes: Iterable[str], *, things: bool = False) -> tuple[LabelMap, ...]:
    """Returns the maps of a store whose one map has no name of its own."""
    return (LabelMap(MASK, tuple(classes), things=things),)


def maps_of(entries: Iterable[Mapping[str, Any]]) -> tuple[LabelMap, ...]:
    """Returns label maps as JSON has them: ``LabelMap.to_entry`` of each."""
    return tuple(
        LabelMap(one["name"], tuple(one["classes"]), one["kind"], bool(one.get("things", False)))
        for one in entries
    )


def first_of_classes(maps: Iterable[LabelMap]) -> LabelMap | None:
    """Returns the first map of kind ``classes``, which stands for all where one alone can be told."""
    return next((one for one in maps if one.kind == "classes"), None)


def id_key(clip_id: str) -> list[tuple[int, int | str]]:
    """Sort key that orders ids as people number them: ``video_2`` before ``video_10``."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", clip_id) if part]
