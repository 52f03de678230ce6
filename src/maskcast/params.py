"""Typed params: values from ``params.yaml`` or KFP become frozen pydantic models, or an error of one line."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from maskcast.digest import digest_json
from maskcast.errors import MaskcastError
from maskcast.labels import SPLITS, natural_sort_key
from maskcast.reading import read_yaml
from maskcast.spelling import did_you_mean, suggestion
from maskcast.validation_errors import first_error

LARGEST_INTEGER = 2**62  # so that the sum of two fits into int64
LARGEST = 1e38  # near the maximum of float32
MAX_BATCH_SIZE = 1_000_000
Batch = Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE)]
"""Number of samples per batch; the limit prevents hours of drawing samples until memory runs out."""


class Params(BaseModel):
    """Base of all params and config classes: frozen; unknown keys, NaN, infinity and huge numbers are errors.

    Two rules exist because of KFP's dicts. Numbers are converted, because every ``3`` arrives as ``3.0`` (``3.5``
    for an integer is an error). The text ``null`` is None, because such a dict cannot hold None. The conversion
    would also accept ``hflip: true`` as a probability of 1, so true and false are errors for numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        given = {key: None if value == "null" else value for key, value in values.items()}
        switches = [key for key, value in given.items() if isinstance(value, bool) and key in cls.model_fields]
        numbers = [key for key in switches if _is_number(cls.model_fields[key].annotation)]
        return given | {key: str(given[key]).lower() for key in numbers}  # not a number: fails validation

    @field_validator("*")
    @classmethod
    def _in_bounds(cls, value: Any, info: ValidationInfo) -> Any:
        if _is_number(cls.model_fields[str(info.field_name)].annotation):
            _check_numbers(value)
        return value


def _check_numbers(value: Any) -> None:
    """Raises ValueError for a number, also inside a value, that exceeds the limits for all params."""
    if isinstance(value, Mapping):
        _check_numbers((*value.keys(), *value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            _check_numbers(each)
    elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise ValueError(f"input should be between -{LARGEST_INTEGER} and {LARGEST_INTEGER}")
    elif isinstance(value, float) and abs(value) > LARGEST:
        raise ValueError(f"input should be between -{LARGEST:g} and {LARGEST:g}")


def _is_number(annotation: Any) -> bool:
    """Whether an annotation allows numbers but not booleans."""

    def kinds(part: Any) -> set[Any]:
        return {part}.union(*map(kinds, get_args(part)))

    types = kinds(annotation)
    return bool(types & {int, float}) and bool not in types


P = TypeVar("P", bound=BaseModel)
K = TypeVar("K")
V = TypeVar("V")


def _sorted_keys(values: dict[K, V]) -> dict[K, V]:
    """Returns a mapping in a fixed order: splits in their usual order, then other keys in natural order."""

    def sort_key(key: K) -> tuple[int, Any]:
        return SPLITS.index(key) if key in SPLITS else len(SPLITS), natural_sort_key(str(key))

    return {key: values[key] for key in sorted(values, key=sort_key)}


ByName = Annotated[dict[K, V], AfterValidator(_sorted_keys)]
"""A param with keys that the user chooses. Their order has no meaning and is normalised, because KFP passes
mappings in another order in each process, and ``params_hash`` and DVC must not see a change."""


def _refuse_duplicates(names: list[str]) -> list[str]:
    if duplicates := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"duplicate name {duplicates[0]!r}; list it once")
    return names


Names = Annotated[list[str], Field(min_length=1), AfterValidator(_refuse_duplicates)]
"""A non-empty list of names without duplicates."""


def _inside_data_set(value: str) -> str:
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts:
        raise ValueError("must be a relative path inside the data set")
    return value


def _pattern(value: str) -> str:
    parts = PurePosixPath(value).parts
    if not parts or any("**" in part for part in parts if part != "**"):
        raise ValueError("must be a path or pattern, e.g. labels/*.json or labels/**/*.json")
    return value


RelativePath = Annotated[str, AfterValidator(_inside_data_set)]
"""A file or folder of a data set, as a path from its root."""
PathPattern = Annotated[RelativePath, AfterValidator(_pattern)]
"""Files of a data set: a path from its root, in which `*` stands for any text and `**` for any folders."""


def load_params_file(
    path: Path, kind: str = "params file", remedy: str = "name one with --params (e.g. params.yaml)"
) -> dict[str, Any]:
    """Returns the sections of a params file, or the content of another YAML mapping.

    Args:
        path: the file.
        kind: kind of the file, for errors.
        remedy: what the user should do if the file is missing.

    Raises:
        MaskcastError: if the file is missing, not YAML, or not a mapping.
    """
    content = read_yaml(path, kind, remedy)
    if not isinstance(content, dict):
        raise MaskcastError(f"{path}: a {kind} must map names to values, e.g. `name: value`")
    return content


def section(content: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """Returns section ``name``, which may be empty if all params have defaults.

    Raises:
        MaskcastError: if the section is missing or not a mapping; lists the existing sections.
    """
    if name not in content:
        present = ", ".join(map(str, content)) or "none"
        remedy = did_you_mean(name, map(str, content)) or "; add it"
        raise MaskcastError(f"{where}: section {name!r} is missing (sections: {present}){remedy}")
    value = content[name]
    if not isinstance(value, dict) and value is not None:
        raise MaskcastError(f"{where}: section {name!r} must map keys to values, not {type(value).__name__}")
    return dict(value or {})


def set_key(values: dict[str, dict[str, Any]], address: str, value: Any, where: str) -> None:
    """Sets one key in the sections of a params file; a previous value is replaced with all keys below it.

    Args:
        values: the sections, which are modified.
        address: ``section.key``, possibly with more keys.
        value: the new value.
        where: start of error messages.

    Raises:
        MaskcastError: the section does not exist, or one of the keys has a value without keys.
    """
    name, *keys = address.split(".")
    if not keys:
        raise MaskcastError(f"{where}: use section.key and a value, e.g. train_masker.training.epochs and 3")
    if name not in values:
        raise MaskcastError(f"{where}: unknown section {name!r}; {suggestion(name, values)}")
    parent = values[name]
    for key in keys[:-1]:
        parent = parent.setdefault(key, {})
        if not isinstance(parent, dict):
            raise MaskcastError(f"{where}: {key!r} is {parent!r} and has no keys; set {key!r} itself")
    parent[keys[-1]] = value


def validate(model: type[P], values: Mapping[str, Any], where: str) -> P:
    """Validates ``values`` and returns them as ``model``.

    Args:
        model: params class.
        values: the section from YAML or KFP.
        where: start of error messages, e.g. ``params.yaml: train_masker``, or ``cluster.yaml: `` for a whole file.

    Raises:
        MaskcastError: names the first faulty key, its value, what is allowed, and the number of other faults.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        key, text = first_error(model, values, error)
        dot = "" if where.endswith(": ") or not key else "."
        colon = "" if where.endswith(": ") and not key else ": "
        raise MaskcastError(f"{where}{dot}{key}{colon}{text}") from None


def params_hash(params: BaseModel) -> str:
    """Returns a hash (16 hex digits) of the values of ``params``."""
    return digest_json(params.model_dump(mode="json"), 16)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested mappings as one flat mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def deep_merge(values: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``values`` updated with ``change``, recursively within sections."""
    merged = dict(values)
    for key, value in change.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = deep_merge(merged[key], value) if both else value
    return merged
