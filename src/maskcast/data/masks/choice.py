"""Chooses the rule by which the masks of a set are read, from a survey of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from maskcast.data.masks.rules import (
    BINARY_REMEDY,
    LOSSY_MESSAGE,
    MaskRule,
    class_id_remedy,
    palette_conflict_message,
)
from maskcast.data.masks.stored import WHITE_16
from maskcast.data.masks.survey import MaskSurvey, format_values
from maskcast.labels import IGNORE, LabelError
from maskcast.reading import pluralize

Encoding = Literal["auto", "index", "binary"]


def choose_rule(
    survey: MaskSurvey,
    *,
    encoding: Encoding,
    ignore: int | None,
    num_classes: int,
    table: Mapping[int, int] | None = None,
    objects: bool = False,
) -> MaskRule:
    """Decides what the pixel values of a set's masks mean.

    Args:
        survey: contents of the set; colours, if the keys of ``table`` are colours.
        encoding: `index` or `binary` as the owner says, or `auto` if the values allow only one interpretation.
        ignore: pixel value that means no label.
        num_classes: K.
        table: class ids by pixel value, `IGNORE` for no label; if given, it alone decides.
        objects: whether each value except 0 is an object; without ``table``, of the second of two classes.

    Raises:
        LabelError: if the values contradict the arguments, or `auto` allows more than one interpretation.
    """
    if not survey.num_read:  # either no mask is needed, or loading will report why none is readable
        return MaskRule("index", num_classes, ignore, read_mode=survey.read_mode, panoptic=survey.panoptic)
    if table is not None:
        return _table_rule(survey, table, num_classes)
    foreground = sorted(set(survey.values) - {0, ignore})
    if encoding == "auto":
        check_palettes(survey)
    if objects:
        rule = _binary_rule(survey, foreground, ignore, explicit=True, are_objects=True)
    else:
        rule = _choose_by_encoding(survey, foreground, encoding, ignore, num_classes)
    palette = {index: colour for index, (colour, _) in survey.palette.items()} if encoding == "auto" else {}
    return replace(rule, read_mode=survey.read_mode, panoptic=survey.panoptic, palette=palette)


def _choose_by_encoding(
    survey: MaskSurvey, foreground: list[int], encoding: Encoding, ignore: int | None, num_classes: int
) -> MaskRule:
    if encoding == "binary" or (encoding == "auto" and num_classes == 2 and foreground and foreground[-1] > 1):
        return _binary_rule(survey, foreground, ignore, explicit=encoding == "binary")
    if survey.colours:
        example = survey.format_values(foreground[:1])
        raise LabelError(
            f"{survey.first_file[foreground[0]]}: the masks contain colours ({survey.format_values(foreground)}); "
            f"give the class of each in source.values, e.g. '{example}': NAME"
        )
    if survey.lossy is not None:
        raise LabelError(
            f"{survey.lossy}: {LOSSY_MESSAGE}, and these contain {survey.format_values(survey.values)}; export "
            "them as PNG, or, if white is the only foreground, list two classes"
        )
    wrong = [value for value in foreground if value >= num_classes]
    if wrong:
        value, what = wrong[-1], "value" if survey.panoptic is None else "class"
        raise LabelError(
            f"{survey.first_file[value]}: the {what} {value} ({survey.files[value]} of "
            f"{pluralize(survey.num_read, 'mask')}, "
            f"{pluralize(survey.pixels[value], 'pixel')}) is not a class id in 0..{num_classes - 1}; "
            f"{class_id_remedy(set(wrong), is_only=len(wrong) == len(foreground), num_classes=num_classes)}"
        )
    if encoding == "auto" and ignore and not foreground and ignore in survey.pixels:
        raise LabelError(
            f"{survey.first_file[ignore]}: the masks contain only 0 and {ignore}, so source.ignore: {ignore} "
            f"hides everything but the background; if {ignore} is the foreground, leave out source.ignore and "
            f"{BINARY_REMEDY}; else set source.encoding: index"
        )
    description = f"{survey}: each value is a class id"
    if survey.panoptic is not None:
        description = f"{survey}: each value is class * {survey.panoptic.divisor} + object"
    elif num_classes == 2:
        description = _foreground_text(survey, foreground, ignore)
    return MaskRule("index", num_classes, ignore, description=description)


def check_palettes(survey: MaskSurvey) -> None:
    """Checks that each palette index has the same colour in all masks.

    Raises:
        LabelError: if one has two colours, as from programs that write a new palette for each file.
    """
    if survey.palette_conflict is not None:
        index, colour, path = survey.palette_conflict
        first_colour, first_path = survey.palette[index]
        other = f"{format_values([first_colour], colours=True)} in {first_path}"
        raise LabelError(palette_conflict_message(path, index, colour, other))


def grey_class_error(survey: MaskSurvey) -> LabelError:
    """Returns the error for masks with soft edges, or noise of JPEG, whose grey areas may be a class."""
    top = sorted(value for value, _ in survey.pixels.most_common(4))
    return LabelError(
        f"{survey.lossy or survey.first_file[survey.values[-1]]}: the masks have soft edges, and areas of grey "
        f"that may be classes (most pixels have {survey.format_values(top)}); export them as PNG without soft "
        "edges, or set source.encoding: binary and two classes for foreground from 128 on"
    )


def _binary_rule(
    survey: MaskSurvey, foreground: list[int], ignore: int | None, *, explicit: bool, are_objects: bool = False
) -> MaskRule:
    """Returns the rule for masks with one foreground class.

    Args:
        survey: contents of the set.
        foreground: its values except 0 and ``ignore``.
        ignore: pixel value that means no label.
        explicit: whether the owner says so; else it is the only interpretation left.
        are_objects: whether values are object numbers: then many values are no soft edge, and 128 is no threshold.
    """
    is_soft = survey.is_soft and not (are_objects and survey.lossy is None)
    if is_soft and (explicit or not survey.has_grey_class):
        between_share = survey.share(value for value in survey.pixels if 0 < value < 255)
        description = (
            f"{survey}: 128 and more is foreground ({between_share:.1%} of the pixels lie between 0 and 255)"
        )
        return MaskRule("threshold", 2, ignore, description=description)
    if is_soft:
        raise grey_class_error(survey)
    if survey.lossy is not None:
        raise LabelError(
            f"{survey.lossy}: {LOSSY_MESSAGE}, and these are not black and white "
            f"({survey.format_values(survey.values)}); export them as PNG"
        )
    if not explicit and IGNORE in foreground and len(foreground) == 2 and foreground[0] == 1:
        raise LabelError(
            f"{survey.first_file[IGNORE]}: the masks contain 0, 1 and 255; if 255 means no label, set "
            "source.ignore: 255, else give the class of each value in source.values"
        )
    if len(foreground) > 1:
        are_numbers = survey.has_object_ids and WHITE_16 not in foreground  # 65535 may mean no label
        known_form = are_objects or survey.colours or survey.indexed or are_numbers
        mixed = not known_form and foreground[0] < 128 <= foreground[-1]
        if not explicit or mixed:
            raise LabelError(
                f"{survey.first_file[foreground[-1]]}: the masks contain {survey.format_values(survey.values)}, "
                "which may be one foreground or several classes; list the classes in source.classes, or give the "
                "class of each value in source.values"
                + (
                    ", or set source.instances: true where each value is an object of one class"
                    if mixed
                    else ", or set source.encoding: binary for one foreground"
                )
            )
    allowed = None if explicit else frozenset({0, *foreground})
    description = _foreground_text(survey, foreground, ignore)
    return MaskRule("nonzero", 2, ignore, allowed, description=description)


def _foreground_text(survey: MaskSurvey, foreground: list[int], ignore: int | None) -> str:
    share = survey.share(foreground)
    hint = "; if that is the background, set source.values" if share > 0.5 else ""
    others = f"0 and {survey.format_values([ignore])}" if ignore in survey.values and ignore else "0"
    return f"{survey}: every value but {others} is foreground ({share:.1%} of the pixels{hint})"


def _table_rule(survey: MaskSurvey, table: Mapping[int, int], num_classes: int) -> MaskRule:
    for value in survey.values:
        if value not in table:
            raise LabelError(
                f"{survey.first_file[value]}: the value {survey.format_values([value])} ({survey.files[value]} of "
                f"{pluralize(survey.num_read, 'mask')}, {pluralize(survey.pixels[value], 'pixel')}) is not in "
                "source.values; add it there (`ignore` for no label)"
            )
    if survey.lossy is not None:
        raise LabelError(f"{survey.lossy}: {LOSSY_MESSAGE}, so source.values cannot map them; export them as PNG")
    description = f"{survey}: classes as in source.values"
    return MaskRule(
        "table",
        num_classes,
        table=table,
        read_mode=survey.read_mode,
        panoptic=survey.panoptic,
        description=description,
    )
