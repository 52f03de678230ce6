"""The vocabulary of labels: label maps, splits, kinds of clips, and the class id that means none."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from maskcast.errors import MaskcastError

IGNORE = 255  # mask value left out of losses and metrics
MOST_PIXELS = 1 << 15  # height or width of a frame
KINDS = ("labelled", "unlabelled", "hidden")
Split = Literal["train", "val", "test", "unlabeled", "hidden"]
SPLITS: tuple[Split, ...] = get_args(Split)
KIND_OF_SPLIT: dict[str, str] = {
    **dict.fromkeys(SPLITS, "labelled"),
    "unlabeled": "unlabelled",
    "hidden": "hidden",
}
OBJECTS = "objects"  # name of the map of instances that a source makes beside it
MASK = "mask"  # name of a store's map where it has but one and names none, as in format 1

MapKind = Literal["classes", "instances", "alpha"]
Attributes = Mapping[str, tuple[str | None, ...]]  # by attribute its value of each class, None where it has none
MirrorSwaps = tuple[str, str]  # names of maps, or of classes, that are each other's in a mirrored frame
MIRROR_SWAPS = "mirror_swaps"  # of a store's meta: such names, where its source declares them
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
            can be followed, and has one class in all frames.
        attributes: of kind ``classes``: what classes share, by the name of the attribute its value of each class,
            None where a class has none: ``{"side": (None, "left", "right")}``. A masker learns classes from their
            parts. Maps that differ in ``things`` or ``attributes`` alone are equal.

    Raises:
        MaskcastError: on another kind, a name that cannot be part of a file name, no or too many classes, another
            number of values of an attribute than of classes.
    """

    name: str
    classes: tuple[str, ...]
    kind: MapKind = "classes"
    things: bool = field(default=False, compare=False)
    attributes: Attributes = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise MaskcastError(f"label map {self.name!r}: name it with letters, digits and _ alone")
        if self.kind not in get_args(MapKind):
            raise MaskcastError(f"label map {self.name!r}: kind {self.kind!r}; allowed: {get_args(MapKind)}")
        if not 1 <= len(self.classes) <= IGNORE:
            raise MaskcastError(f"label map {self.name!r}: {len(self.classes)} classes; give 1 to {IGNORE}")
        for name, values in self.attributes.items():
            if len(values) != len(self.classes):
                raise MaskcastError(
                    f"label map {self.name!r}: attribute {name!r} has {len(values)} values for "
                    f"{len(self.classes)} classes; give one of each class, null where it has none"
                )

    @property
    def num_classes(self) -> int:
        """The number of classes, background included."""
        return len(self.classes)

    def to_entry(self) -> dict[str, Any]:
        """Returns it as JSON has it; what says nothing is left out where files from before it lack it."""
        newer = ("things", "attributes")
        return {name: value for name, value in asdict(self).items() if value or name not in newer}


def single_map(
    classes: Iterable[str], *, things: bool = False, attributes: Attributes | None = None
) -> tuple[LabelMap, ...]:
    """Returns the maps of a store whose one map has no name of its own."""
    return (LabelMap(MASK, tuple(classes), things=things, attributes=attributes or {}),)


def maps_of(entries: Iterable[Mapping[str, Any]]) -> tuple[LabelMap, ...]:
    """Returns label maps as JSON has them: ``LabelMap.to_entry`` of each."""
    return tuple(
        LabelMap(
            one["name"],
            tuple(one["classes"]),
            one["kind"],
            bool(one.get("things", False)),
            {name: tuple(values) for name, values in one.get("attributes", {}).items()},
        )
        for one in entries
    )


def first_of_classes(maps: Iterable[LabelMap]) -> LabelMap | None:
    """Returns the first map of kind ``classes``, which stands for all where one alone can be told."""
    return next((one for one in maps if one.kind == "classes"), None)


def id_key(clip_id: str) -> list[tuple[int, int | str]]:
    """Sort key that orders ids as people number them: ``video_2`` before ``video_10``."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", clip_id) if part]
