"""Plugins: config classes of models, losses and more that other installed packages declare as entry points.

Only code of installed packages is imported; a params file or a model's folder cannot make maskcast import more.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field

from maskcast.errors import MaskcastError
from maskcast.files import tree_files
from maskcast.params import Params

UNION_MODULES = {
    "maskcast.segmenters": "maskcast.models.segmentation.configs",
    "maskcast.forecasters": "maskcast.models.forecasting.configs",
    "maskcast.layouts": "maskcast.data.sources.table",
    "maskcast.losses": "maskcast.training.tasks.segmentation_phases",
    "maskcast.augmentations": "maskcast.training.tasks.segmentation_params",
}
"""The groups of entry points, and the module whose union the classes of each join."""
MODELS = ("maskcast.segmenters", "maskcast.forecasters")  # groups that a model's folder may refer to


def with_plugins(union: Any, group: str, base: type[Params], key: str, default: str | None = None) -> Any:
    """Returns a union of configs extended by those of installed packages.

    Args:
        union: union of maskcast's own configs, or the only one.
        group: group of entry points to add, one of ``UNION_MODULES``.
        base: required base class of each config.
        key: key whose value chooses the config, e.g. ``arch``.
        default: value if the key is missing; None means that the key is required.

    Raises:
        MaskcastError: a class cannot be imported, is not such a config, or its value of ``key`` is in use.
    """
    taken = {value for config in get_args(union) or (union,) for value in _values(config, key)}
    for point in plugins(group):
        config = _load(point, base)
        values = _values(config, key)
        if not values or taken.intersection(values):
            given = ", ".join(map(repr, values)) or "missing"
            raise MaskcastError(
                f"{_title(point)}: {key}: {given}; set it to a Literal of unused names (in use: "
                f"{', '.join(sorted(taken))})"
            )
        taken.update(values)
        union |= config
    if default is None:
        return Annotated[union, Field(discriminator=key)]

    def named(given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        names = sorted(taken)
        if (name := given.get(key, default)) not in names:
            raise ValueError(f"unknown {key} {name!r}; allowed: {', '.join(names)} (or install its package)")
        return {key: default, **given}

    chosen = Annotated[union, Field(discriminator=key)] if get_args(union) else union
    return Annotated[chosen, BeforeValidator(named)]


def plugins(group: str) -> tuple[EntryPoint, ...]:
    """Returns the entry points of a group, sorted by name."""
    return tuple(sorted(_all_entry_points().select(group=group), key=lambda point: point.name))


@cache
def _all_entry_points() -> Any:  # its type depends on Python's version
    """Returns those of all groups: the files of every installed package are searched once, not for each group."""
    return entry_points()


def plugin_packages(groups: Iterable[str] = UNION_MODULES) -> dict[str, str]:
    """Returns the installed packages with plugins of some groups, with their versions."""
    distributions = [point.dist for group in groups for point in plugins(group)]
    return {dist.name: dist.version for dist in distributions if dist is not None}


def checked_return(config: Params, method: str, kind: type[Any], returned: object) -> Any:
    """Returns what a method of a config, which may be of another package, has returned.

    Raises:
        MaskcastError: it is not of this kind.
    """
    if not isinstance(returned, kind):
        raise returned_error(config, method, f"a {kind.__name__}", returned)
    return returned


def returned_error(config: Params, method: str, expected: str, returned: object) -> MaskcastError:
    """Returns the error for a config, which may be of another package, whose method returned something else.

    Args:
        config: the config.
        method: name of its method.
        expected: what it must return, as text.
        returned: what it returned.
    """
    given = "None (is a return missing?)" if returned is None else type(returned).__name__
    return MaskcastError(f"{class_name(config)}.{method} must return {expected}; it returned {given}")


def is_plugin(config: Params) -> bool:
    """Whether a config is of another package than maskcast."""
    return type(config).__module__.partition(".")[0] != "maskcast"


def class_name(value: object) -> str:
    """Returns the full name of the class of a value, for errors."""
    return f"{type(value).__module__}.{type(value).__name__}"


def plugin_files(module: str) -> dict[str, Path]:
    """Returns the Python files of packages that extend a module's union, by path relative to their parent."""
    groups = [group for group, joined_in in UNION_MODULES.items() if joined_in == module]
    files: dict[str, Path] = {}
    for top in sorted({point.module.partition(".")[0] for group in groups for point in plugins(group)}):
        spec = find_spec(top)  # does not import the package
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            paths = tree_files(origin.parent) if spec.submodule_search_locations else [origin]
            parent = origin.parent.parent if spec.submodule_search_locations else origin.parent
            files |= {path.relative_to(parent).as_posix(): path for path in paths if path.suffix == ".py"}
    return files


def _load(point: EntryPoint, base: type[Params]) -> type[Params]:
    try:
        config = point.load()
    except (Exception, SystemExit) as error:  # another package may raise anything
        raise MaskcastError(
            f"{_title(point)}: cannot be imported ({type(error).__name__}: {error}); fix that package, or "
            "uninstall it"
        ) from error
    if not isinstance(config, type) or not issubclass(config, base):
        raise MaskcastError(f"{_title(point)}: must be a subclass of {base.__module__}.{base.__name__}")
    return config


def _values(config: type[Params], key: str) -> tuple[Any, ...]:
    field = config.model_fields.get(key)
    return get_args(field.annotation) if field is not None else ()


def _title(point: EntryPoint) -> str:
    package = point.dist.name if point.dist is not None else "an installed package"
    return f"{package}: plugin {point.name!r} of {point.group} ({point.value})"
