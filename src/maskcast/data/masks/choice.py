"""Chooses the rule by which the masks of a set are read, from a survey of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from maskcast.data.masks.rules import LOSSY, TWO, MaskRule, palette_clash, remedy
from maskcast.data.masks.survey import FEW, MaskSurvey, named
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
    if not survey.looked_at:  # either no mask is needed, or loading will report why none is readable
        return MaskRule("index", num_classes, ignore, reading=survey.reading, split=survey.split)
    if table is not None:
        return _from_table(survey, table, num_classes)
    shown = sorted(set(survey.values) - {0, ignore})
    if encoding == "auto":
        check_palettes(survey)
    if objects:
        rule = _binary(survey, shown, ignore, sure=True, numbers=True)
    else:
        rule = _chosen(survey, shown, encoding, ignore, num_classes)
    known = {index: colour for index, (colour, _) in survey.palette.items()} if encoding == "auto" else {}
    return replace(rule, reading=survey.reading, split=survey.split, palette=known)


def _chosen(
    survey: MaskSurvey, shown: list[int], encoding: Encoding, ignore: int | None, num_classes: int
) -> MaskRule:
    if encoding == "binary" or (encoding == "auto" and num_classes == 2 and shown and shown[-1] > 1):
        return _binary(survey, shown, ignore, sure=encoding == "binary")
    if survey.colours:
        example = survey.named(shown[:1])
        raise LabelError(
            f"{survey.first[shown[0]]}: the masks hold colours ({survey.named(shown)}); say the class of each in "
            f"source.values, e.g. '{example}': NAME"
        )
    if survey.lossy is not None:
        raise LabelError(
            f"{survey.lossy}: {LOSSY}, and these hold {survey.named(survey.values)}; export them as PNG, or "
            "for one foreground in white name two classes"
        )
    wrong = [value for value in shown if value >= num_classes]
    if wrong:
        value, what = wrong[-1], "value" if survey.split is None else "class"
        raise LabelError(
            f"{survey.first[value]}: the {what} {value} ({survey.files[value]} of "
            f"{pluralize(survey.looked_at, 'mask')}, "
            f"{pluralize(survey.pixels[value], 'pixel')}) is no class id of 0..{num_classes - 1}; "
            f"{remedy(set(wrong), alone=len(wrong) == len(shown), num_classes=num_classes)}"
        )
    if encoding == "auto" and ignore and not shown and ignore in survey.pixels:
        raise LabelError(
            f"{survey.first[ignore]}: the masks hold 0 and {ignore} alone, so source.ignore: {ignore} hides "
            f"all that is no background; if {ignore} is the foreground, leave out source.ignore and {TWO}; "
            "else set source.encoding: index"
        )
    told = f"{survey}: each value is a class id"
    if survey.split is not None:
        told = f"{survey}: classes of values that hold class * {survey.split.divisor} + object"
    elif num_classes == 2:
        told = _one_foreground(survey, shown, ignore)
    return MaskRule("index", num_classes, ignore, told=told)


def check_palettes(survey: MaskSurvey) -> None:
    """Checks that each palette index has the same colour in all masks.

    Raises:
        LabelError: if one has two colours, as from programs that write a new palette for each file.
    """
    if survey.clash is not None:
        index, colour, path = survey.clash
        first, where = survey.palette[index]
        raise LabelError(palette_clash(path, index, colour, f"{named([first], colours=True)} in {where}"))


def _binary(
    survey: MaskSurvey, shown: list[int], ignore: int | None, *, sure: bool, numbers: bool = False
) -> MaskRule:
    """Returns the rule for masks with one foreground class.

    Args:
        survey: contents of the set.
        shown: its values except 0 and ``ignore``.
        ignore: pixel value that means no label.
        sure: whether the owner says so; else it is the only interpretation left.
        numbers: whether values are object numbers: then many values are no soft edge, and 128 is no threshold.
    """
    soft = survey.two_sided and (survey.lossy is not None or (len(shown) > FEW and not numbers))
    if soft:
        between = survey.share(value for value in survey.pixels if 0 < value < 255)
        told = f"{survey}: 128 and more is foreground ({between:.1%} of the pixels lie between 0 and 255)"
        return MaskRule("threshold", 2, ignore, told=told)
    if survey.lossy is not None:
        raise LabelError(
            f"{survey.lossy}: {LOSSY}, and these are not black and white ({survey.named(survey.values)}); "
            "export them as PNG"
        )
    if not sure and IGNORE in shown and len(shown) == 2 and shown[0] == 1:
        raise LabelError(
            f"{survey.first[IGNORE]}: the masks hold 0, 1 and 255; if 255 means no label, set source.ignore: 255, "
            "else say the class of each value in source.values"
        )
    if len(shown) > 1:
        known_form = numbers or survey.colours or survey.indexed or survey.numbered
        mixed = not known_form and shown[0] < 128 <= shown[-1]
        if not sure or mixed:
            raise LabelError(
                f"{survey.first[shown[-1]]}: the masks hold {survey.named(survey.values)}, which may be one "
                f"foreground or several classes; name these in source.classes, or each value in source.values"
                + (
                    ", or set source.instances: true where each value is an object of one class"
                    if mixed
                    else ", or set source.encoding: binary for one foreground"
                )
            )
    known = None if sure else frozenset({0, *shown})
    told = _one_foreground(survey, shown, ignore)
    return MaskRule("nonzero", 2, ignore, known, told=told)


def _one_foreground(survey: MaskSurvey, shown: list[int], ignore: int | None) -> str:
    share = survey.share(shown)
    hint = "; if that is the background, say so in source.values" if share > 0.5 else ""
    others = f"0 and {survey.named([ignore])}" if ignore in survey.values and ignore else "0"
    return f"{survey}: every value but {others} is foreground ({share:.1%} of the pixels{hint})"


def _from_table(survey: MaskSurvey, table: Mapping[int, int], num_classes: int) -> MaskRule:
    for value in survey.values:
        if value not in table:
            raise LabelError(
                f"{survey.first[value]}: the value {survey.named([value])} ({survey.files[value]} of "
                f"{pluralize(survey.looked_at, 'mask')}, {pluralize(survey.pixels[value], 'pixel')}) is not in "
                "source.values; add it there (`ignore` for no label)"
            )
    if survey.lossy is not None:
        raise LabelError(f"{survey.lossy}: {LOSSY}, so source.values cannot name them; export them as PNG")
    told = f"{survey}: classes as source.values says"
    return MaskRule("table", num_classes, table=table, reading=survey.reading, split=survey.split, told=told)
