"""Proposes params for a folder of masks of unknown form."""

from dataclasses import dataclass, field
from typing import Any

from maskcast.data.masks.choice import check_palettes, grey_class_error
from maskcast.data.masks.panoptic import PanopticEncoding
from maskcast.data.masks.rules import LOSSY_MESSAGE, VOID
from maskcast.data.masks.soft_edges import edge_colours
from maskcast.data.masks.survey import MAX_LABEL_VALUES, MaskSurvey, are_numbers
from maskcast.labels import IGNORE, LabelError

MAX_ID_RATIO = 2  # ids up to this multiple of their count are class ids; larger ones need names in `values`


@dataclass(frozen=True)
class MaskProposal:
    """Proposed params of `frame_folders`.

    Attributes:
        source: the keys to set: `classes` and, if needed, `encoding`, `ignore` or `values`.
        notes: what the owner should check, one sentence each.
    """

    source: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def propose_mask_params(survey: MaskSurvey) -> MaskProposal:
    """Proposes how to read the masks of a survey.

    Raises:
        LabelError: if there is nothing to propose: images are lossy, palettes differ, or no mask can be read.
    """
    if not survey.num_read:
        raise LabelError(f"no mask can be read: {survey.read_error}")
    check_palettes(survey)
    if survey.panoptic is not None:
        return _propose_panoptic(survey, survey.panoptic)
    foreground = [value for value in survey.values if value]
    binary = {"classes": ["background", "foreground"]}
    if survey.colours:
        return _propose_values(survey, "each colour is taken as a class")
    if survey.is_soft and survey.has_grey_class:
        raise grey_class_error(survey)
    if survey.is_soft:
        return MaskProposal(binary, ("the masks are black and white with soft edges: 128 and more is foreground",))
    if survey.lossy is not None:
        raise LabelError(f"{survey.lossy}: {LOSSY_MESSAGE}; export the masks as PNG")
    if len(foreground) < 2:
        return MaskProposal(binary, _foreground_notes(survey, foreground))
    void = {"ignore": survey.void} if survey.void in foreground else {}
    ids = [value for value in foreground if value != survey.void]
    if survey.has_object_ids:
        note = (
            f"values up to {ids[-1]} are taken as object ids, and all of them as foreground: if they are classes, "
            "name each in source.values and remove encoding"
        )
        if survey.void == IGNORE:  # 255 is one of many ids
            return MaskProposal({**binary, "encoding": "binary"}, (note,))
        return MaskProposal(
            {**binary, "encoding": "binary", **void}, (note, f"{survey.void} is taken as no label")
        )
    if ids[-1] >= IGNORE or ids[-1] > MAX_ID_RATIO * len(ids) + MAX_LABEL_VALUES:
        return _propose_values(survey, "the values are not 0, 1, 2, ... without gaps")
    names = ["background", *(f"class {k}" for k in range(1, ids[-1] + 1))]
    notes = ["masks contain no class names: set them in source.classes"]
    if 0 not in survey.pixels:
        most = max(ids, key=lambda value: survey.pixels[value])
        notes.append(
            f"no pixel has the value 0, and {survey.share([most]):.0%} have {most}: if {most} is the background, "
            "map each value in source.values, and remove encoding"
        )
    if void:
        notes.append(f"{survey.void} is taken as no label, as 255 in Pascal VOC")
    if survey.indexed:
        notes.append("if the values are object ids, use encoding: binary and two classes")
    return MaskProposal({"encoding": "index", "classes": names, **void}, tuple(notes))


def _foreground_notes(survey: MaskSurvey, foreground: list[int]) -> tuple[str, ...]:
    if not foreground:
        return ("no mask has foreground: every value is 0",)
    if (share := survey.share(foreground)) <= 0.5:
        return ()
    swapped = f"source.values: {{0: foreground, {foreground[0]}: background}}"
    return (
        f"the foreground, {foreground[0]}, has {share:.0%} of the pixels: if that is the background, set "
        f"{swapped}",
    )


def _propose_panoptic(survey: MaskSurvey, encoding: PanopticEncoding) -> MaskProposal:
    if survey.lossy is not None:
        raise LabelError(f"{survey.lossy}: {LOSSY_MESSAGE}; export the masks as PNG")
    void_values = [value for value in survey.values if value >= IGNORE]
    void_values = void_values if encoding.ignore is None else [encoding.ignore]
    ids = [value for value in survey.values if value < IGNORE]
    names = ["background", *(f"class {k}" for k in range(1, ids[-1] + 1))]
    notes = [
        "masks contain no class names: set them in source.classes",
        f"values hold class * {encoding.divisor} + object: source.instances: true keeps the objects",
    ]
    if void_values:
        notes.append(f"{void_values[0]} is taken as no label")
    source = {
        "label_divisor": encoding.divisor,
        "classes": names,
        **({"ignore": void_values[0]} if void_values else {}),
    }
    return MaskProposal(source, tuple(notes))


def _propose_values(survey: MaskSurvey, reason: str) -> MaskProposal:
    if len(survey.values) > IGNORE:
        note = (
            f"{len(survey.values)} values are too many for classes, so all but 0 count as foreground: if they are "
            "classes, export the masks without soft edges"
        )
        return MaskProposal({"classes": ["background", "foreground"], "encoding": "binary"}, (note,))
    most = max(survey.pixels, key=lambda value: survey.pixels[value])
    background = 0 if 0 in survey.pixels else most
    texts = {value: survey.format_values([value]) for value in survey.values}
    table = {
        text: "background" if value == background else f"class {text.removeprefix('#')}"
        for value, text in texts.items()
    }
    void = survey.void
    others = [value for value in survey.values if value != void]
    if not survey.colours and void in survey.values and are_numbers(others, void):
        table[texts[void]] = VOID
        reason += f", and {void} is taken as no label"
    edges = edge_colours(survey)
    table |= {texts[value]: VOID for value in edges}
    names = ["background", *(name for name in table.values() if name not in ("background", VOID))]
    if background != 0:
        reason += f", and {texts[background]}, the value of most pixels, as the background"
    notes = [f"{reason}: rename {names[-1]!r} and so on in source.values and classes; `ignore` means no label"]
    if not survey.colours:
        notes[0] += "; if values are object ids, use encoding: binary and two classes instead of values"
    if most != background and survey.share([most]) > 0.5:
        notes.append(
            f"{texts[most]} has {survey.share([most]):.0%} of the pixels, and {texts[background]} has "
            f"{survey.share([background]):.0%}: if {texts[most]} is the background, swap the names of both in "
            "source.values"
        )
    if edges:
        notes.append(
            f"{len(edges)} colours, with {survey.share(edges):.1%} of the pixels, are mixtures of others, as soft "
            "edges are, so they are no label: export the masks without soft edges"
        )
    return MaskProposal({"classes": names, "values": table}, tuple(notes))
