"""Compares what trainings on several processes and nodes require with the cluster file, before a run."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

from maskcast.errors import MaskcastError
from maskcast.params import validate
from maskcast.runner.node_resources import NODE_RESOURCES
from maskcast.runner.stage import get_stage
from pipelines.grid import Plan
from pipelines.placement import Placement
from pipelines.pod_resources import Pod


def pods_of_nodes(on: Placement, values: Mapping[str, dict[str, Any]], grid: Plan | None = None) -> dict[str, Pod]:
    """Returns the resources of a node for each stage that trains on several nodes.

    Args:
        on: placement of a pipeline that has been built for a cluster.
        values: sections of its params.
        grid: plan of the grid, if any.

    Raises:
        MaskcastError: a training would fail on this cluster; names the key.
    """
    assert on.cluster is not None
    variants = grid.variants if grid else ()
    found: dict[str, Pod] = {}
    for name, section in chain(values.items(), *(variant.sections.items() for variant in variants)):
        if name not in on.pods:  # a grid has only some stages
            continue
        training = getattr(validate(get_stage(on.stages[name]).params, section, name), "training", None)
        if training is None or training.world_size == 1:
            continue
        pod = on.pods[name]
        if training.nodes > 1:
            if on.cluster.workspace is None:
                raise MaskcastError(
                    f"{name}.training.nodes {training.nodes}: nodes share the workspace, which {on.cluster.file} "
                    "does not have; add the key `workspace`, or set nodes to 1"
                )
            pod = found[name] = on.cluster.node(pod)
        if 0 < pod.gpus < training.processes:  # without GPUs they share the processors
            where = NODE_RESOURCES if training.nodes > 1 and NODE_RESOURCES in on.cluster.env else f"stages.{name}"
            raise MaskcastError(
                f"{name}.training.processes {training.processes}: {on.cluster.file} gives them {pod.gpus} of "
                f"{pod.gpu_resource}; change {where} there, or lower processes"
            )
    return found
