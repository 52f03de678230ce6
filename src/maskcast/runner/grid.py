"""Grids: a file of variants of a pipeline's params, whose maskers are compared.

DVC's experiment queue runs a grid (``commands/grid.py``), and so does Kubeflow (``pipelines/grid.py``).
"""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from maskcast.errors import MaskcastError
from maskcast.params import Params, load_params_file, set_key, validate
from maskcast.runner.dvc_calls import ancestors_of
from maskcast.runner.stage import get_stage

NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,59}"  # accepted by git, DVC and Kubeflow, and short enough for tables


class Grid(Params):
    """The contents of a grid file."""

    stage: str
    """The stage, by its name in the pipeline, whose maskers are compared."""
    split: Literal["train", "val", "test"] = "val"
    """The split whose labelled clips they are scored on."""
    variants: dict[str, dict[str, Any] | None] = Field(default_factory=dict)
    """Changes of each variant by its name: values by section.key, each of which replaces the whole old value."""
    product: dict[str, list[Any]] = Field(default_factory=dict)
    """Values of some section.key; each variant is run with each combination."""


@dataclass(frozen=True)
class Variant:
    """A variant of the params.

    Attributes:
        name: of the variant.
        sections: complete sections that it changes.
    """

    name: str
    sections: Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class StageSplit:
    """The stages that a grid runs, by their names in the pipeline, in topological order.

    Attributes:
        shared: stages that run once for all variants.
        varied: stages that run for each variant; the last is the grid's stage.
    """

    shared: tuple[str, ...]
    varied: tuple[str, ...]


def load_grid(
    path: Path, values: Mapping[str, dict[str, Any]], stages: Mapping[str, str]
) -> tuple[Grid, list[Variant]]:
    """Returns a grid and its variants, with all params checked.

    Args:
        path: the grid file.
        values: sections of the params file.
        stages: stages of the pipeline by section.

    Raises:
        MaskcastError: a value is invalid; the message names file, variant and key.
    """
    grid = validate(Grid, load_params_file(path, "grid file", "name one, e.g. grid.yaml"), f"{path}: ")
    if grid.stage not in stages:
        raise MaskcastError(f"{path}: stage: unknown stage {grid.stage!r}; stages: {', '.join(stages)}")
    if not any(p.name == "masker" and p.direction == "out" for p in get_stage(stages[grid.stage]).ports):
        raise MaskcastError(
            f"{path}: stage: {grid.stage} has no output `masker`; name a stage that trains a masker"
        )
    variants_by_name: dict[str, Variant] = {}
    for name, changes in _combinations(grid):
        if not re.fullmatch(NAME, name):
            raise MaskcastError(
                f"{path}: invalid variant name {name!r}; use up to 60 letters, digits and . _ -, first a letter "
                "or digit"
            )
        if name in variants_by_name:
            raise MaskcastError(f"{path}: duplicate variant name {name!r}; rename one")
        location = f"{path}: variant {name!r}"
        changed_values = deepcopy(dict(values))
        for address, value in changes.items():
            set_key(changed_values, address, deepcopy(value), f"{location}: {address}")
        sections = {
            section: changed_values[section] for section in dict.fromkeys(key.split(".")[0] for key in changes)
        }
        for section, section_values in sections.items():
            validate(get_stage(stages.get(section, section)).params, section_values, f"{location}: {section}")
        variants_by_name[name] = Variant(name, sections)
    if not variants_by_name:
        raise MaskcastError(f"{path}: contains no variants; add some to `variants`, or values to `product`")
    return grid, list(variants_by_name.values())


def split_stages(
    path: Path, grid: Grid, variants: list[Variant], needs: Mapping[str, set[str]], clips: str | None
) -> StageSplit:
    """Returns which stages run once, and which run for each variant.

    Args:
        path: the grid file, for errors.
        grid: its contents.
        variants: of the grid.
        needs: for each stage, the stages whose outputs it reads, in topological order.
        clips: the stage that writes the clips for scoring.

    Raises:
        MaskcastError: a variant changes the clips, or params on which the grid's stage does not depend.
    """
    wanted = {grid.stage} | ancestors_of(grid.stage, needs)
    changed = {section: variant.name for variant in variants for section in variant.sections}
    for section, variant in changed.items():
        if section not in wanted:
            raise MaskcastError(
                f"{path}: variant {variant!r}: {grid.stage} does not depend on {section}; "
                f"sections that do: {', '.join(name for name in needs if name in wanted)}"
            )
    varied = {grid.stage}
    for name in needs:
        if name in wanted and (name in changed or needs[name] & varied):
            varied.add(name)
    run = [name for name in needs if name in wanted]
    if clips not in run or clips in varied:
        raise MaskcastError(
            f"{path}: a variant changes the clips, but all maskers are scored on the same clips; "
            "change only stages after them"
        )
    return StageSplit(tuple(n for n in run if n not in varied), tuple(n for n in run if n in varied))


def _combinations(grid: Grid) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields name and changes of each variant."""
    if not grid.variants and not grid.product:
        return
    for variant, changes in (grid.variants or {"": None}).items():
        for chosen in product(*(list(enumerate(values, start=1)) for values in grid.product.values())):
            name_parts, changed = [variant] if variant else [], dict(changes or {})
            for (address, _), (number, value) in zip(grid.product.items(), chosen, strict=True):
                shown = number if isinstance(value, dict | list) else value
                name_parts.append(f"{address.split('.')[-1]}-{re.sub('[^A-Za-z0-9._-]+', '-', str(shown))}")
                changed[address] = value
            yield "-".join(name_parts), changed
