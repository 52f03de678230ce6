"""Validated values of a pipeline's parameters, from a params file and `-S section.key=value`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from maskcast.diagnostics.conflicts import conflicts
from maskcast.errors import MaskcastError
from maskcast.params import Params, flatten, section, set_key, validate
from maskcast.runner.stage import get_stage
from maskcast.storage.store import local_path
from pipelines.cluster import PLACEHOLDER, PLACEHOLDER_PROBLEM

EXACT = 2**53  # up to this every integer is exact in a double


def checked_values(
    content: Mapping[str, Any],
    path: Path,
    overrides: Sequence[str],
    stages: Mapping[str, str],
    sources: Mapping[str, Mapping[str, str]],
) -> tuple[dict[str, dict[str, Any]], dict[str, Params]]:
    """Returns the sections of a pipeline's stages, as given and as validated by each stage's params class.

    Args:
        content: content of the params file.
        path: its path, for errors.
        overrides: ``section.key=value`` each; the value is parsed as YAML.
        stages: stages of the pipeline by section.
        sources: for each section, the section whose stage writes the input of each port.

    Raises:
        MaskcastError: names the file or the override, the faulty key and what is allowed.
    """
    values = {name: section(content, name, str(path)) for name in stages}
    for override in overrides:
        _set(values, override)
    source = f"{path} with -S" if overrides else str(path)
    params: dict[str, Params] = {}
    for name, given in values.items():
        where = f"{source}: {name}"
        params[name] = validate(get_stage(stages[name]).params, given, where)
        for key, value in flatten(given).items():
            if PLACEHOLDER in f"{key} {value}":
                raise MaskcastError(f"{where}.{key}: {PLACEHOLDER_PROBLEM}")
    for _, conflict in conflicts(params, sources):
        raise MaskcastError(f"{source}: {conflict}")
    return values, params


def local_data(values: Mapping[str, dict[str, Any]]) -> Path | None:
    """Returns the absolute local path in `fetch_dataset.uri`, or None if it is not an existing local path.

    Raises:
        MaskcastError: if `fetch_dataset` does not support the address.
    """
    uri = str(values.get("fetch_dataset", {}).get("uri", "synthetic"))
    path = None if uri == "synthetic" or uri.startswith("dvc:") else local_path(uri)
    return path.absolute() if path is not None and path.exists() else None


def for_kfp(values: Any) -> Any:
    """Returns values in the form of KFP's dicts, from which ``Params`` restores the original values.

    None becomes the text ``null``, and all keys become text, including numbers of classes and videos. An integer
    that a double cannot represent exactly becomes text, too, because all numbers are doubles there.
    """
    if isinstance(values, Mapping):
        return {str(key): for_kfp(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [for_kfp(value) for value in values]
    if isinstance(values, int) and abs(values) > EXACT:
        return str(values)
    return "null" if values is None else values


def _set(values: dict[str, dict[str, Any]], override: str) -> None:
    address, equals, text = override.partition("=")
    if not equals or "." not in address:
        raise MaskcastError(f"-S {override}: use section.key=value, e.g. train_masker.training.epochs=3")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError, RecursionError: for dates, digits and depth
        raise MaskcastError(f"-S {override}: {text!r} is not valid YAML; quote it for the shell") from None
    set_key(values, address, value, f"-S {override}")
