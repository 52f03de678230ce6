"""Proposes what the pixel values of masks mean: classes and their names, objects, pixels without label."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskcast.data.inspection.class_lists import class_lists
from maskcast.data.inspection.find_class_names import (
    lacks_background,
    leaves_background_out,
    source_of_known_dataset,
    source_with_list,
    unlisted_colours,
)
from maskcast.data.inspection.findings import Findings
from maskcast.data.inspection.mixed_masks import inverted_note, object_numbers_note, propose_for_ids_and_greys
from maskcast.data.masks.panoptic import COLOUR_DIVISOR, PanopticEncoding, guess_encoding, is_two_byte_format
from maskcast.data.masks.propose_params import propose_mask_params
from maskcast.data.masks.rules import VOID
from maskcast.data.masks.stored import BDD_BITMASK
from maskcast.data.masks.survey import MaskSurvey, survey_masks
from maskcast.data.sources.sequence_files import SequenceFiles
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.progress import log_if_slow
from maskcast.reading import WINDOWS, pluralize


def add_mask_values(raw: Path, found: Findings, footage: Mapping[str, SequenceFiles]) -> None:
    """Adds how the values of masks are read, the share of pixels of each class, and the classes of sequences."""
    masks = {name: [*one.masked.values()] for name, one in footage.items()}
    paths = [path for mine in masks.values() for path in mine]
    with log_if_slow("the values of masks"):
        survey = survey_masks(paths, IGNORE)
        if conflict := survey.palette_conflict:
            survey = survey_masks(paths, IGNORE, "colours")
    if (split := _panoptic_of(survey, paths[0])) is not None:
        survey = survey_masks(paths, IGNORE, survey.read_mode, split)
        found.reasons["label_divisor"] = "values have the form class * label_divisor + object"
    if survey.has_object_ids and survey.panoptic is None and is_two_byte_format(survey.pixels):
        raise MaskcastError(
            f"{paths[0]}: values hold class * 256 + object, as the instances of Mapillary Vistas and KITTI do, "
            "which is not supported; add the class masks (folder labels or semantic) of the same frames"
        )
    proposal = propose_for_ids_and_greys(survey, masks) or propose_mask_params(survey)
    found.source |= proposal.source
    found.reasons["classes"] = f"the masks hold {survey.format_values(survey.values)}"
    notes = proposal.notes
    if note := inverted_note(survey, masks):
        notes += (note,)
    if (named := _named_source(raw, found, paths[0], survey)) is not None:
        keys, place = named
        found.source.pop("values", None)
        found.source |= keys
        found.reasons["classes"] += f"; names are those of {place}"
        notes = tuple(note for note in notes if "name" not in note)
        found.rows.append(("classes", f"{', '.join(found.source['classes'])} ({place})"))
    elif found.source.get("encoding") == "index" and (note := object_numbers_note(survey, masks)):
        notes = (*(one for one in notes if "object ids" not in one), note)
    if conflict:
        path = conflict[2].relative_to(raw).as_posix()
        notes += (
            f"index {conflict[0]} of the palette has another colour in {path}, so classes are told by colour; if "
            "indices are class ids, set encoding: index in place of source.values",
        )
    found.warnings += [f"masks: {note}" for note in notes]
    found.rows.append(("masks", str(survey)))
    known = {value: share for value in survey.values if (share := survey.share([value])) >= 0.0005}
    top = sorted(known.items(), key=lambda item: -item[1])[:6]
    found.rows.append(
        ("pixels", ", ".join(f"{survey.format_values([value])}: {share:.1%}" for value, share in top))
    )
    found.class_shares = {survey.format_values([value]): survey.share([value]) for value in survey.values}
    for name, mine in masks.items():
        read = (survey.counts_by_file.get(path, ()) for path in mine)
        found.classes[name] = _classes_of({value for values in read for value in values}, found.source, survey)


def _named_source(raw: Path, found: Findings, mask: Path, survey: MaskSurvey) -> tuple[dict[str, Any], str] | None:
    """Returns keys with class names for a source, and where they come from; None if nothing has them."""
    unused: list[str] = []
    for listed in class_lists(raw):
        keys = source_with_list(found.source, listed.classes, survey)
        lacking = unlisted_colours(found.source, listed.classes, survey) or []
        lacks = f"{listed.place} lacks {pluralize(len(lacking), 'colour')} of the masks"
        lacks += f" ({survey.format_values(lacking)})"
        if lacking and keys is None:
            unused.append(f"{lacks}, so it is not used: add them to it")
        if keys is not None:
            if lacking:
                found.warnings.append(f"{lacks}, so these are no label")
            if leaves_background_out(found.source, listed.classes, survey):
                found.warnings.append(
                    f"{listed.place} has a name less than the masks have values, so its first is taken for the "
                    "value 1: if it is that of 0, correct source.classes"
                )
            if lacks_background(keys, survey):
                found.warnings.append(
                    f"{listed.place} calls 0 {keys['classes'][0]!r}, which has {survey.share([0]):.0%} of the "
                    "pixels: if 0 is the background, put `background` before it in source.classes"
                )
            if listed.encoding == WINDOWS:
                found.warnings.append(
                    f"{listed.place} is not UTF-8, so it is read as {WINDOWS}: check its accents"
                )
            return keys, listed.place
    found.warnings += unused
    return source_of_known_dataset(found.source, mask, survey)


def _classes_of(values: set[int], source: Mapping[str, Any], survey: MaskSurvey) -> set[str]:
    """Returns the classes that values stand for, without the background and pixels without label."""
    if "values" in source:
        names = {source["values"].get(survey.format_values([value]), VOID) for value in values}
        return names - {VOID, source["classes"][0]}
    shown = values - {0, source.get("ignore")}
    return {*source["classes"][1:]} if shown and len(source["classes"]) == 2 else {*map(str, shown)}


def _panoptic_of(survey: MaskSurvey, mask: Path) -> PanopticEncoding | None:
    """Returns how mask values split into class and object, or None; ``mask`` is one of the masks."""
    if BDD_BITMASK in survey.formats:
        return PanopticEncoding(COLOUR_DIVISOR, 0, IGNORE)
    if not survey.colours and not survey.has_object_ids:
        return None
    split = guess_encoding(survey.pixels, colours=survey.colours)
    vipseg = split is not None and split.divisor == 100 and "panomasks" in mask.parts
    return PanopticEncoding(split.divisor, split.classes, 0) if split is not None and vipseg else split
