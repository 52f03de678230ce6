"""Proposes params for a folder of masks of unknown form."""

from dataclasses import dataclass, field
from typing import Any

from maskcast.data.masks.choice import check_palettes
from maskcast.data.masks.panoptic import Split
from maskcast.data.masks.rules import LOSSY
from maskcast.data.masks.survey import FEW, MaskSurvey
from maskcast.labels import IGNORE, LabelError

DENSE = 2  # ids up to this multiple of their count are class ids; larger ones need names in `values`


@dataclass(frozen=True)
class Proposal:
    """Proposed params of `frame_folders`.

    Attributes:
        source: the keys to set: `classes` and, if needed, `encoding`, `ignore` or `values`.
        notes: what the owner should check, one sentence each.
    """

    source: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def propose(survey: MaskSurvey) -> Proposal:
    """Proposes how to read the masks of a survey.

    Raises:
        LabelError: if there is nothing to propose: images are lossy, palettes differ, or no mask can be read.
    """
    if not survey.looked_at:
        raise LabelError(f"no mask can be read: {survey.unread}")
    check_palettes(survey)
    if survey.split is not None:
        return _panoptic(survey, survey.split)
    shown = [value for value in survey.values if value]
    two = {"classes": ["background", "foreground"]}
    if survey.colours:
        return _named_values(survey, "each colour is taken for a class")
    if survey.two_sided and (survey.lossy is not None or len(shown) > FEW):
        return Proposal(two, ("the masks are black and white with soft edges: 128 and more is foreground",))
    if survey.lossy is not None:
        raise LabelError(f"{survey.lossy}: {LOSSY}; export the masks as PNG")
    if len(shown) < 2:
        return Proposal(two, _of_one_foreground(survey, shown))
    void = {"ignore": IGNORE} if IGNORE in shown else {}
    ids = [value for value in shown if value != IGNORE]
    if survey.numbered:
        note = (
            f"values up to {ids[-1]} are taken for numbers of objects, and all of them for foreground: where they "
            "are classes, name each in source.values, in place of encoding"
        )
        return Proposal({**two, "encoding": "binary"}, (note,))
    if ids[-1] >= IGNORE or ids[-1] > DENSE * len(ids) + FEW:
        return _named_values(survey, "the values are not 0, 1, 2, ... without gaps")
    names = ["background", *(f"class {k}" for k in range(1, ids[-1] + 1))]
    notes = ["names of classes are not in the masks: name them in source.classes"]
    if void:
        notes.append("255 is taken as no label, as in Pascal VOC")
    if survey.indexed:
        notes.append("if the ids are objects and no classes, take encoding: binary and two classes")
    return Proposal({"encoding": "index", "classes": names, **void}, tuple(notes))


def _of_one_foreground(survey: MaskSurvey, shown: list[int]) -> tuple[str, ...]:
    if not shown:
        return ("no mask has foreground: every value is 0",)
    if (share := survey.share(shown)) <= 0.5:
        return ()
    swapped = f"source.values: {{0: foreground, {shown[0]}: background}}"
    return (
        f"the foreground, {shown[0]}, has {share:.0%} of the pixels: if that is the background, set {swapped}",
    )


def _panoptic(survey: MaskSurvey, split: Split) -> Proposal:
    if survey.lossy is not None:
        raise LabelError(f"{survey.lossy}: {LOSSY}; export the masks as PNG")
    void = [value for value in survey.values if value >= IGNORE]
    void = void if split.ignore is None else [split.ignore]
    ids = [value for value in survey.values if value < IGNORE]
    names = ["background", *(f"class {k}" for k in range(1, ids[-1] + 1))]
    notes = [
        "names of classes are not in the masks: name them in source.classes",
        f"values hold class * {split.divisor} + object: source.instances: true keeps the objects",
    ]
    if void:
        notes.append(f"{void[0]} is taken as no label")
    source = {"label_divisor": split.divisor, "classes": names, **({"ignore": void[0]} if void else {})}
    return Proposal(source, tuple(notes))


def _named_values(survey: MaskSurvey, why: str) -> Proposal:
    if len(survey.values) > IGNORE:
        note = (
            f"{len(survey.values)} values are too many for classes, and all but 0 are taken for foreground: where "
            "they are classes, export the masks without soft edges"
        )
        return Proposal({"classes": ["background", "foreground"], "encoding": "binary"}, (note,))
    ground = 0 if 0 in survey.pixels else max(survey.pixels, key=lambda value: survey.pixels[value])
    texts = {value: f"#{value:06x}" if survey.colours else str(value) for value in survey.values}
    table = {
        text: "background" if value == ground else f"class {text.removeprefix('#')}"
        for value, text in texts.items()
    }
    names = ["background", *(name for name in table.values() if name != "background")]
    why += "" if ground == 0 else f", and {texts[ground]}, which most pixels have, for the background"
    note = f"{why}: rename {names[-1]!r} and so on in source.values and classes, `ignore` for no label"
    if not survey.colours:
        note += "; if they number objects, take encoding: binary and two classes in place of values"
    return Proposal({"classes": names, "values": table}, (note,))
