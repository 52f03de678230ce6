"""Describes what is wrong with values for a params class, in one line for their author."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from maskcast.reading import shown

UNSHOWN = "unshown"  # type of PydanticCustomError for values that must not be shown

Models = list[type[BaseModel]]


def first_fault(model: type[BaseModel], values: Any, error: ValidationError) -> tuple[str, str]:
    """Returns the faulty key and a description of the fault.

    Unknown keys come first: if one is a typing error, the missing key is only a consequence.

    Args:
        model: params class.
        values: the given values.
        error: pydantic's validation error.

    Returns:
        The dotted key as written (empty if the whole is at fault), and the description.
    """
    faults = [_told(model, values, fault) for fault in error.errors(include_url=False)]
    key, text, _ = min(faults, key=lambda fault: not fault[2])
    return key, text + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else "")


class _Place(NamedTuple):
    """The location of a fault."""

    written: str
    """The dotted keys that lead there, as users write them."""
    chosen: Models
    """The classes that have the last key, or that it leads to."""
    among: Models
    """If a tag has chosen one class of a union: all classes of the union."""
    tag: str | None
    """The key whose value chooses the class, e.g. ``arch``."""


def _told(model: type[BaseModel], values: Any, fault: ErrorDetails) -> tuple[str, str, bool]:
    """Returns the faulty key, the description, and whether the key is unknown."""
    kind, given, context = fault["type"], fault["input"], fault.get("ctx", {})
    place = _walk(model, values, fault["loc"])
    key = place.written
    match kind:
        case "extra_forbidden":
            return key, _unknown(place, model), True
        case "union_tag_not_found":
            tag = str(place.tag)
            if isinstance(given, Mapping) and (near := near_name(tag, map(str, given))):
                return _join(key, near), f"unknown key; did you mean {tag!r}?", True
            return _join(key, tag), f"missing; add it, one of: {', '.join(_tags(place.among, place.tag))}", False
        case "union_tag_invalid":
            word, allowed = context["tag"], _tags(place.among, place.tag)
            text = f"no {place.tag} {word!r}; {_instead(near_name(word, allowed), allowed)}"
            return _join(key, place.tag), text, False
        case "string_type" if isinstance(given, Mapping) and not any(given.values()):
            return key, f'needs quotes, because braces mean a mapping in YAML: "{{{", ".join(given)}}}"', False
        case "string_type" if isinstance(given, bool | int | float | date):
            return key, f"must be text, and YAML takes it for {shown(given)}; put it in quotes", False
        case "missing":
            return key, "missing; add it", False
        case "model_type" | "model_attributes_type" | "dict_type":
            keys = f"{place.tag} and more" if place.tag else ", ".join(_keys(place.chosen))
            return key, f"needs keys ({keys or 'any'}), got {shown(given)}; change it", False
        case "literal_error" if near := near_name(str(given), re.findall("'(.+?)'", context["expected"])):
            return key, f"input should be {context['expected']}, got {shown(given)}; did you mean {near!r}?", False
    text = fault["msg"].removeprefix("Value error, ").split(", unable to parse")[0]
    text = text.replace("tuple", "list").replace(" after validation", "")  # names as in YAML
    if kind == UNSHOWN or (kind == "value_error" and isinstance(given, Mapping)):  # a section is too long to show
        return key, text, False
    return key, f"{text[:1].lower()}{text[1:]}, got {shown(given)}; change it", False


def _walk(model: type[BaseModel], values: Any, loc: Sequence[int | str]) -> _Place:
    """Follows pydantic's ``loc``, in which names of union members stand between the keys."""
    place = _of_field("", model.model_fields["root"]) if issubclass(model, RootModel) else None
    place = place or _Place("", [model], [model], None)
    for number, step in enumerate(loc, 1):
        if step == "[key]":  # pydantic appends this if the key itself is at fault
            break
        members = [each for each in place.chosen if step == each.__name__ or step in _tags([each], place.tag)]
        if len(place.chosen) > 1 and members:
            place = place._replace(chosen=members)
            continue
        fields = [each.model_fields[str(step)] for each in place.chosen if step in each.model_fields]
        scalar = isinstance(step, str) and not isinstance(values, Mapping)
        if not fields and not _has(values, step) and (number < len(loc) or scalar):
            continue  # a union member that is not a class, such as `str`
        written = f"{place.written}[{step}]" if isinstance(step, int) else _join(place.written, step)
        place = _of_field(written, fields[0]) if fields else place._replace(written=written)
        values = values[step] if _has(values, step) else None
    return place


def _of_field(written: str, field: FieldInfo) -> _Place:
    found = models_in(field.annotation)
    return _Place(written, found, found, tag_of(field))


def _unknown(place: _Place, root: type[BaseModel]) -> str:
    """Returns the description of a key that the class does not have."""
    key, known = place.written.rpartition(".")[2], _keys(place.chosen)
    if others := _tags([each for each in place.among if key in each.model_fields], place.tag):
        return f"unknown key; it belongs to {place.tag}: {', '.join(others)}; allowed: {', '.join(known)}"
    elsewhere = [address for address in _addresses(root) if address.rpartition(".")[2] == key]
    meant = near_name(key, known, 0.8) or min(elsewhere, key=len, default=None) or near_name(key, known)
    return f"unknown key; {_instead(meant, known)}"


def _instead(meant: str | None, allowed: Sequence[str]) -> str:
    hint = f"did you mean {meant!r}? " if meant else ""
    return f"{hint}allowed: {', '.join(allowed)}"


def near_name(word: str, names: Iterable[str], least: float = 0.6) -> str | None:
    """Returns the most similar name, if its similarity (``difflib``) to the word is at least ``least``."""
    small = {name.lower(): name for name in names}
    return next((small[near] for near in difflib.get_close_matches(word.lower(), small, 1, least)), None)


def _addresses(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """Yields the dotted keys of a class and of nested classes, but not those inside lists and mappings."""
    for name, field in model.model_fields.items():
        yield _join(before, name)
        for each in models_in(field.annotation, within=False):
            yield from _addresses(each, _join(before, name))


def _keys(models: Models) -> list[str]:
    return sorted({name for each in models for name in each.model_fields})


def _tags(models: Models, key: str | None) -> list[str]:
    """Returns the values of ``key`` that choose one of these classes."""
    fields = [each.model_fields[key] for each in models if key in each.model_fields]
    return [tag for field in fields for tag in get_args(field.annotation)]


def models_in(annotation: Any, within: bool = True) -> Models:
    """Returns the classes in an annotation; ``within``: also those inside lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if not within and get_origin(annotation) in (list, tuple, dict):
        return []
    return [model for arg in get_args(annotation) for model in models_in(arg, within)]


def tag_of(field: FieldInfo) -> str | None:
    """Returns the key that chooses among the classes of a field, also if null is allowed or it is a list."""
    inner = [each for arg in get_args(field.annotation) for each in getattr(arg, "__metadata__", ())]
    found = [getattr(each, "discriminator", None) for each in (field, *inner)]
    return next((tag for tag in found if isinstance(tag, str)), None)


def _has(values: Any, step: int | str) -> bool:
    if isinstance(values, Mapping):
        return step in values
    return isinstance(values, (list, tuple)) and isinstance(step, int) and step < len(values)


def _join(place: str, key: object) -> str:
    return f"{place}.{key}" if place else str(key)
