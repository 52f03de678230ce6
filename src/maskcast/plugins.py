"""Models, losses and more of other packages: config classes that installed packages declare as entry points.

A package is code that somebody installed here; what a params file or a model's folder says imports nothing more.
"""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field

from maskcast.errors import MaskcastError
from maskcast.params import Params

JOINED_IN = {
    "maskcast.segmenters": "maskcast.models.segmentation.configs",
    "maskcast.forecasters": "maskcast.models.forecasting.configs",
    "maskcast.layouts": "maskcast.data.sources.table",
    "maskcast.losses": "maskcast.training.tasks.segmentation_phases",
    "maskcast.augmentations": "maskcast.training.tasks.segmentation_params",
}
"""The groups of entry points, and the module whose union the classes of each join."""
MODELS = ("maskcast.segmenters", "maskcast.forecasters")  # what a model's folder may ask for


def with_plugins(own: Any, group: str, base: type[Params], key: str, default: str | None = None) -> Any:
    """Returns a union of configs that takes those of installed packages, too.

    Args:
        own: the union of maskcast's own, or the only one.
        group: whose entry points join it, one of ``JOINED_IN``.
        base: what each must be a subclass of.
        key: the key whose value chooses one, e.g. ``arch``.
        default: the value that is meant where there is no such key; None has none.

    Raises:
        MaskcastError: a class cannot be imported, is no such config, or has a value of ``key`` that is taken.
    """
    taken = {value for config in get_args(own) or (own,) for value in _values(config, key)}
    for point in plugins(group):
        config = _load(point, base)
        values = _values(config, key)
        if not values or taken.intersection(values):
            shown = ", ".join(map(repr, values)) or "missing"
            raise MaskcastError(
                f"{_title(point)}: {key}: {shown}; give it a Literal of names that are free (taken: "
                f"{', '.join(sorted(taken))})"
            )
        taken.update(values)
        own |= config
    if default is None:
        return Annotated[own, Field(discriminator=key)]

    def named(given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        names = sorted(taken)
        if (name := given.get(key, default)) not in names:
            raise ValueError(f"no {key} {name!r}; allowed: {', '.join(names)}; or install the package that has it")
        return {key: default, **given}

    chosen = Annotated[own, Field(discriminator=key)] if get_args(own) else own
    return Annotated[chosen, BeforeValidator(named)]


@cache
def plugins(group: str) -> tuple[EntryPoint, ...]:
    """Returns the entry points of a group, by name."""
    return tuple(sorted(entry_points(group=group), key=lambda point: point.name))


def packages() -> dict[str, str]:
    """Returns the installed packages that have models, and their versions."""
    found = [point.dist for group in MODELS for point in plugins(group)]
    return {dist.name: dist.version for dist in found if dist is not None}


def sources(module: str) -> dict[str, Path]:
    """Returns the Python files of the packages whose configs join a module's union, by path below their parent."""
    groups = [group for group, joined_in in JOINED_IN.items() if joined_in == module]
    found: dict[str, Path] = {}
    for top in sorted({point.module.partition(".")[0] for group in groups for point in plugins(group)}):
        spec = find_spec(top)  # imports nothing
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            files = origin.parent.rglob("*.py") if spec.submodule_search_locations else [origin]
            parent = origin.parent.parent if spec.submodule_search_locations else origin.parent
            found |= {file.relative_to(parent).as_posix(): file for file in sorted(files)}
    return found


def _load(point: EntryPoint, base: type[Params]) -> type[Params]:
    try:
        config = point.load()
    except (Exception, SystemExit) as error:  # whatever another package does
        raise MaskcastError(
            f"{_title(point)}: cannot be imported ({type(error).__name__}: {error}); mend that package, or "
            "uninstall it"
        ) from error
    if not isinstance(config, type) or not issubclass(config, base):
        raise MaskcastError(f"{_title(point)}: is no subclass of {base.__module__}.{base.__name__}; make it one")
    return config


def _values(config: type[Params], key: str) -> tuple[Any, ...]:
    field = config.model_fields.get(key)
    return get_args(field.annotation) if field is not None else ()


def _title(point: EntryPoint) -> str:
    package = point.dist.name if point.dist is not None else "an installed package"
    return f"{package}: plugin {point.name!r} of {point.group} ({point.value})"
