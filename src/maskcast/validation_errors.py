"""Describes what is wrong with values for a params class, in one line for their author."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from maskcast.reading import short_repr
from maskcast.spelling import closest_match, did_you_mean, suggestion

HIDE_INPUT = "unshown"  # type of PydanticCustomError for values that must not be shown

Models = list[type[BaseModel]]


def first_error(model: type[BaseModel], values: Any, error: ValidationError) -> tuple[str, str]:
    """Returns the faulty key and a description of the error.

    Unknown keys come first: if one is a typing error, the missing key is only a consequence.

    Args:
        model: params class.
        values: the given values.
        error: pydantic's validation error.

    Returns:
        The dotted key as written (empty if the error is of the whole), and the description.
    """
    errors = [_describe(model, values, each) for each in error.errors(include_url=False)]
    key, text, _ = min(errors, key=lambda described: not described[2])
    return key, text + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else "")


class _Location(NamedTuple):
    """The location of an error."""

    path: str
    """The dotted keys that lead there, as users write them."""
    classes: Models
    """The classes that have the last key, or that it leads to."""
    union: Models
    """If a discriminator has chosen one class of a union: all classes of the union."""
    discriminator: str | None
    """The key whose value chooses the class, e.g. ``arch``."""


def _describe(model: type[BaseModel], values: Any, error: ErrorDetails) -> tuple[str, str, bool]:
    """Returns the faulty key, the description, and whether the key is unknown."""
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    location = _locate(model, values, error["loc"])
    key = location.path
    match kind:
        case "extra_forbidden":
            return key, _describe_unknown_key(location, model), True
        case "union_tag_not_found":
            tag = str(location.discriminator)
            if isinstance(given, Mapping) and (near := closest_match(tag, map(str, given))):
                return _join(key, near), f"unknown key; did you mean {tag!r}?", True
            return (
                _join(key, tag),
                f"missing; add it, one of: {', '.join(_tags(location.union, location.discriminator))}",
                False,
            )
        case "union_tag_invalid":
            word, allowed = context["tag"], _tags(location.union, location.discriminator)
            text = f"no {location.discriminator} {word!r}; {suggestion(word, allowed)}"
            return _join(key, location.discriminator), text, False
        case "string_type" if isinstance(given, Mapping) and not any(given.values()):
            return key, f'needs quotes, because braces mean a mapping in YAML: "{{{", ".join(given)}}}"', False
        case "string_type" if isinstance(given, bool | int | float | date):
            return key, f"must be text, and YAML takes it for {short_repr(given)}; put it in quotes", False
        case "missing":
            return key, "missing; add it", False
        case "model_type" | "model_attributes_type" | "dict_type":
            keys = (
                f"{location.discriminator} and more"
                if location.discriminator
                else ", ".join(_keys(location.classes))
            )
            return key, f"needs keys ({keys or 'any'}), got {short_repr(given)}; change it", False
        case "literal_error" if hint := did_you_mean(str(given), re.findall("'(.+?)'", context["expected"])):
            return key, f"input should be {context['expected']}, got {short_repr(given)}{hint}", False
    text = error["msg"].removeprefix("Value error, ").split(", unable to parse")[0]
    text = text.replace("tuple", "list").replace(" after validation", "")  # names as in YAML
    if kind == HIDE_INPUT or (
        kind == "value_error" and isinstance(given, Mapping)
    ):  # a section is too long to show
        return key, text, False
    return key, f"{text[:1].lower()}{text[1:]}, got {short_repr(given)}; change it", False


def _locate(model: type[BaseModel], values: Any, loc: Sequence[int | str]) -> _Location:
    """Follows pydantic's ``loc``, in which names of union members stand between the keys."""
    location = _location_of("", model.model_fields["root"]) if issubclass(model, RootModel) else None
    location = location or _Location("", [model], [model], None)
    for number, step in enumerate(loc, 1):
        if step == "[key]":  # pydantic appends this if the key itself is wrong
            break
        members = [
            each
            for each in location.classes
            if step == each.__name__ or step in _tags([each], location.discriminator)
        ]
        if len(location.classes) > 1 and members:
            location = location._replace(classes=members)
            continue
        fields = [each.model_fields[str(step)] for each in location.classes if step in each.model_fields]
        scalar = isinstance(step, str) and not isinstance(values, Mapping)
        if not fields and not _has(values, step) and (number < len(loc) or scalar):
            continue  # a union member that is not a class, such as `str`
        path = f"{location.path}[{step}]" if isinstance(step, int) else _join(location.path, step)
        location = _location_of(path, fields[0]) if fields else location._replace(path=path)
        values = values[step] if _has(values, step) else None
    return location


def _location_of(path: str, field: FieldInfo) -> _Location:
    classes = models_in_annotation(field.annotation)
    return _Location(path, classes, classes, discriminator_of(field))


def _describe_unknown_key(location: _Location, root: type[BaseModel]) -> str:
    """Returns the description of a key that the class does not have."""
    key, known = location.path.rpartition(".")[2], _keys(location.classes)
    if others := _tags([each for each in location.union if key in each.model_fields], location.discriminator):
        owner = f"{location.discriminator}: {', '.join(others)}"
        return f"unknown key; it belongs to {owner}; allowed: {', '.join(known)}"
    elsewhere = [each for each in _all_keys(root) if each.rpartition(".")[2] == key]
    meant = closest_match(key, known, 0.8) or min(elsewhere, key=len, default=None)
    return f"unknown key; {suggestion(key, known, meant)}"


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yields the dotted keys of a class and of nested classes, but not those inside lists and mappings."""
    for name, field in model.model_fields.items():
        yield _join(prefix, name)
        for each in models_in_annotation(field.annotation, nested=False):
            yield from _all_keys(each, _join(prefix, name))


def _keys(models: Models) -> list[str]:
    return sorted({name for each in models for name in each.model_fields})


def _tags(models: Models, key: str | None) -> list[str]:
    """Returns the values of ``key`` that choose one of these classes."""
    fields = [each.model_fields[key] for each in models if key in each.model_fields]
    return [tag for field in fields for tag in get_args(field.annotation)]


def models_in_annotation(annotation: Any, nested: bool = True) -> Models:
    """Returns the classes in an annotation; ``nested``: also those inside lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if not nested and get_origin(annotation) in (list, tuple, dict):
        return []
    return [model for arg in get_args(annotation) for model in models_in_annotation(arg, nested)]


def discriminator_of(field: FieldInfo) -> str | None:
    """Returns the key that chooses among the classes of a field, also if null is allowed or it is a list."""
    inner = [each for arg in get_args(field.annotation) for each in getattr(arg, "__metadata__", ())]
    found = [getattr(each, "discriminator", None) for each in (field, *inner)]
    return next((tag for tag in found if isinstance(tag, str)), None)


def _has(values: Any, step: int | str) -> bool:
    if isinstance(values, Mapping):
        return step in values
    return isinstance(values, (list, tuple)) and isinstance(step, int) and step < len(values)


def _join(prefix: str, key: object) -> str:
    return f"{prefix}.{key}" if prefix else str(key)
