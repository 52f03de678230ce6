"""Definitions for labels: label maps, splits, kinds of clips, and the class id for "no label"."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, get_args

from pydantic import SkipValidation, Strict

from maskcast.errors import MaskcastError

IGNORE = 255  # mask value that losses and metrics ignore
MAX_SIDE = 1 << 15  # maximum height or width of a frame
KINDS = ("labelled", "unlabelled", "hidden")
Split = Literal["train", "val", "test", "unlabeled", "hidden"]
SPLITS: tuple[Split, ...] = get_args(Split)
KIND_OF_SPLIT: dict[str, str] = {
    **dict.fromkeys(SPLITS, "labelled"),
    "unlabeled": "unlabelled",
    "hidden": "hidden",
}
OBJECTS = "objects"  # name of the map of instances that sources add
MASK = "mask"  # name of a store's only map if it has no name, as in format 1

MapKind = Literal["classes", "instances", "alpha"]
Attributes = Mapping[str, tuple[str | None, ...]]  # for each attribute its value for each class, or None
MirrorSwaps = tuple[tuple[str, str], ...]  # pairs of maps, or of classes, that a horizontal flip swaps
MIRROR_SWAPS = "mirror_swaps"  # key of these pairs in a store's meta
LOOKBACK = "lookback"  # key of a store's meta: how many frames at the start of a clip may be of the split before
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")  # used in file names


class LabelError(MaskcastError):
    """Labels that contradict the params, e.g. an unknown class id.

    A damaged file affects one clip, which may be skipped. This error affects all clips, so it always stops the
    stage.
    """


@dataclass(frozen=True)
class LabelMap:
    """The meaning of the values of a mask.

    Attributes:
        name: letters, digits and ``_``.
        classes: class names by id, background first; for kind ``alpha`` ``("background", "foreground")``.
        kind: ``classes``: uint8 class ids, `IGNORE` for no label; ``instances``: uint16 object ids, unique in a
            clip, 0 for none, each with one of ``classes``; ``alpha``: uint8 opacity of the foreground, 255 =
            opaque.
        things: for kind ``classes``: whether all classes are countable objects (cars) rather than stuff (road).
            Objects can be followed, and have one class in all frames.
        attributes: for kind ``classes``: for each attribute its value for each class, or None:
            ``{"side": (None, "left", "right")}``. A masker then learns classes from their attributes. Maps that
            differ only in ``things`` or ``attributes`` are equal.

    Raises:
        MaskcastError: on an unknown kind, a name that is not valid in file names, no or too many classes, or
            attributes with another number of values than classes.
    """

    name: str
    classes: tuple[str, ...]
    kind: Annotated[MapKind, SkipValidation] = "classes"  # checked below, whether pydantic makes it or not
    things: Annotated[bool, Strict()] = field(default=False, compare=False)
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
        """Number of classes, background included."""
        return len(self.classes)

    def to_entry(self) -> dict[str, Any]:
        """Returns the map as JSON; newer keys are left out if empty, so that old files stay the same."""
        newer = ("things", "attributes")
        return {name: value for name, value in asdict(self).items() if value or name not in newer}


def single_map(
    classes: Iterable[str], *, things: bool = False, attributes: Attributes | None = None
) -> tuple[LabelMap, ...]:
    """Returns the label maps of a store with a single map, which has the default name."""
    return (LabelMap(MASK, tuple(classes), things=things, attributes=attributes or {}),)


def label_maps_from_json(entries: Iterable[Mapping[str, Any]]) -> tuple[LabelMap, ...]:
    """Returns label maps from their JSON (see ``LabelMap.to_entry``)."""
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


def first_class_map(maps: Iterable[LabelMap]) -> LabelMap | None:
    """Returns the first map of kind ``classes``, which represents all maps where only one can be shown."""
    return next((one for one in maps if one.kind == "classes"), None)


def mirror_swaps_from_json(value: object) -> MirrorSwaps:
    """Returns pairs of names from a list of them, or from two names, which are one pair.

    Raises:
        ValueError: if it is neither, or a name occurs twice.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"is {value!r}, not a list of pairs of names, e.g. [[left hand, right hand]]")
    pairs = (value,) if value and all(isinstance(name, str) for name in value) else value
    found = []
    for pair in pairs:
        match pair:
            case [str(one), str(other)]:
                found.append((one, other))
            case _:
                raise ValueError(f"is {value!r}, not two names or pairs of names, e.g. [[left hand, right hand]]")
    names = [name for pair in found for name in pair]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"has {twice[0]!r} twice; give it one partner")
    return tuple(found)


def mirror_swaps_to_json(swaps: MirrorSwaps) -> list[str] | list[list[str]]:
    """Returns pairs of names as JSON; a single pair is written as two names, as in older stores."""
    return list(swaps[0]) if len(swaps) == 1 else [list(pair) for pair in swaps]


def natural_sort_key(clip_id: str) -> list[tuple[int, int | str]]:
    """Sort key for natural order: ``video_2`` before ``video_10``."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", clip_id) if part]
