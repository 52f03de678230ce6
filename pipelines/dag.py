"""The tasks of a built pipeline and the edges between them, read from its IR."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict
from kfp.dsl.base_component import BaseComponent


@dataclass(frozen=True)
class Task:
    """A task of a pipeline.

    Attributes:
        section: name of the pipeline's parameter with its params.
        reads: for each input port, the task and its output port that it reads.
    """

    section: str
    reads: Mapping[str, tuple[str, str]]

    @property
    def sources(self) -> dict[str, str]:
        """For each input port, the task that writes it."""
        return {port: task for port, (task, _) in self.reads.items()}


def tasks_of(pipeline: BaseComponent) -> dict[str, Task]:
    """Returns the tasks of a pipeline by name, each after all tasks whose outputs it reads."""
    ir = MessageToDict(pipeline.pipeline_spec)["root"]["dag"]["tasks"]
    name_of = {task: entry["taskInfo"]["name"].replace(" ", "_") for task, entry in ir.items()}
    tasks: dict[str, Task] = {}
    for task in ir:
        _add(task, ir, name_of, tasks)
    return tasks


def names_in(pipeline: BaseComponent) -> dict[str, str]:
    """Returns the names of a pipeline's tasks by kfp's, also of those in loops."""
    spec = MessageToDict(pipeline.pipeline_spec)
    dags = [part["dag"] for part in (spec["root"], *spec["components"].values()) if "dag" in part]
    return {
        task: entry["taskInfo"]["name"].replace(" ", "_") for dag in dags for task, entry in dag["tasks"].items()
    }


def _add(task: str, ir: Mapping[str, Any], name_of: Mapping[str, str], tasks: dict[str, Task]) -> None:
    """Adds a task after all tasks whose outputs it reads."""
    inputs = ir[task]["inputs"]
    reads = {port: entry["taskOutputArtifact"] for port, entry in inputs.get("artifacts", {}).items()}
    for source in reads.values():
        if name_of[source["producerTask"]] not in tasks:
            _add(source["producerTask"], ir, name_of, tasks)
    edges = {port: (name_of[each["producerTask"]], each["outputArtifactKey"]) for port, each in reads.items()}
    tasks.setdefault(name_of[task], Task(inputs["parameters"]["params"]["componentInputParameter"], edges))
