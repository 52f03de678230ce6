"""A grid on Kubeflow: stages shared by all variants run once, others in a loop, then all are compared.

It is derived from the pipeline whose params the grid varies, with the same stages, edges and placement.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List  # noqa: UP035  (kfp reads these names)

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

import components as stage
from components.evaluate_many import evaluate_many
from maskcast.runner.grid import Grid, StageSplit, Variant, load_grid, split_stages
from maskcast.runner.variants import GRID
from pipelines.dag import Task, tasks_of
from pipelines.placement import Placement
from pipelines.values import for_kfp

COMPARISON = evaluate_many.name.replace("-", "_")
"""Name of the task that compares the variants, which no other pipeline has."""
NAME = "name"
"""Key of a variant's name, beside its sections, so that a run with other `variants` compares them by name."""


@dataclass(frozen=True)
class Plan:
    """A grid within a pipeline.

    Attributes:
        grid: content of the grid file.
        variants: variants of the grid.
        parts: which stages run once, and which for each variant.
        tasks: tasks of the pipeline by name, from its IR.
        placement: stage and kind of each task.
        jobs: maximum number of variants at once.
    """

    grid: Grid
    variants: list[Variant]
    parts: StageSplit
    tasks: Mapping[str, Task]
    placement: Placement
    jobs: int

    @property
    def changed(self) -> list[str]:
        """Sections that differ between variants."""
        return [*dict.fromkeys(name for variant in self.variants for name in variant.sections)]

    @property
    def items(self) -> list[dict[str, Any]]:
        """Items of the loop: for each variant its name, and the sections that differ."""
        return [
            {NAME: variant.name} | {name: for_kfp(variant.sections[name]) for name in self.changed}
            for variant in self.variants
        ]

    @property
    def total(self) -> int:
        """Number of tasks that run."""
        return len(self.parts.shared) + len(self.parts.varied) * len(self.variants) + 1


def plan(path: Path, jobs: int, values: Mapping[str, dict[str, Any]], plain: BaseComponent, on: Placement) -> Plan:
    """Returns the plan of a grid in a pipeline.

    Args:
        path: grid file.
        jobs: maximum number of variants at once.
        values: sections of the params file.
        plain: the pipeline without a grid, built with ``on``.
        on: placement with the stages of the pipeline.

    Raises:
        MaskcastError: the grid file is invalid; names the fault.
    """
    grid, variants = load_grid(path, values, on.stages)
    changed = dict.fromkeys(name for variant in variants for name in variant.sections)
    variants = [
        Variant(variant.name, {name: variant.sections.get(name, values[name]) for name in changed})
        for variant in variants
    ]
    tasks = tasks_of(plain)
    needs = {name: set(task.sources.values()) for name, task in tasks.items()}
    parts = split_stages(path, grid, variants, needs, tasks[grid.stage].sources["clips"])
    return Plan(grid, variants, parts, tasks, on, jobs)


def build_grid(name: str, values: Mapping[str, Any], plan: Plan, on: Placement) -> BaseComponent:
    """Returns the pipeline of a grid; its parameters are the sections that stages read, and ``variants``.

    Args:
        name: name of the pipeline.
        values: default of each section.
        plan: plan of the grid.
        on: placement of the tasks.
    """
    read = dict.fromkeys(plan.tasks[task].section for task in (*plan.parts.shared, *plan.parts.varied))
    sections = [section for section in read if section not in plan.changed]

    def tasks(*arguments: Any) -> None:
        *section_values, variants = arguments
        params = dict(zip(sections, section_values, strict=True))
        made: dict[str, dsl.PipelineTask] = {}
        for task in plan.parts.shared:
            made[task] = _task(task, plan, on, params, made)
        with dsl.ParallelFor(variants, parallelism=plan.jobs) as variant:
            variant_params = params | {section: getattr(variant, section) for section in plan.changed}
            for task in plan.parts.varied:
                made[task] = _task(task, plan, on, variant_params, made).set_env_variable(GRID, "1")
        source, port = plan.tasks[plan.grid.stage].reads["clips"]
        models = dsl.Collected(made[plan.grid.stage].outputs["masker"])
        clips = made[source].outputs[port]
        on.gpu(evaluate_many(models=models, clips=clips, variants=variants, split=plan.grid.split))

    parameters: dict[str, tuple[Any, Any]] = {section: (dict, values[section]) for section in sections}
    parameters["variants"] = List[Dict[str, dict]], plan.items  # noqa: UP006  (kfp types a variant's section as STRUCT)
    return on.pipeline(f"{name}-grid", "Variants of a masker", tasks, parameters)


def _task(
    name: str, plan: Plan, on: Placement, params: Mapping[str, Any], made: Mapping[str, dsl.PipelineTask]
) -> dsl.PipelineTask:
    entry, component = plan.tasks[name], getattr(stage, plan.placement.stages[name])
    reads = {port: made[source].outputs[key] for port, (source, key) in entry.reads.items()}
    task: dsl.PipelineTask = component(**reads, params=params[entry.section], name=name)
    placed: dsl.PipelineTask = getattr(on, plan.placement.kinds[name])(task)
    return placed
