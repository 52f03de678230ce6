"""Reads pipelines as tests compare them: a dvc.yaml, and what KFP compiles."""

from pathlib import Path
from typing import Any

from maskcast.runner.dvc_calls import CODE, Call, call

__all__ = ["CODE", "Call", "calls", "dag_of_dvc", "dag_of_kfp"]
Dag = dict[str, dict[str, Any]]


def calls(stages: dict[str, Any]) -> dict[str, Call]:
    """Returns the calls of all entries but `code`."""
    return {name: call(Path("dvc.yaml"), name, entry) for name, entry in stages.items() if name != CODE}


def dag_of_dvc(stages: dict[str, Any]) -> Dag:
    """Returns by entry: stage, name, section of params, output ports, and where each input comes from."""
    called = calls(stages)
    written = {path: (name, port) for name, call in called.items() for port, path in call.paths("out").items()}
    return {
        name: {
            "stage": call.stage.name,
            "name": call.name,
            "params": stages[name]["params"],
            "outputs": set(call.paths("out")),
            "inputs": {port: written.get(path) for port, path in call.paths("in").items()},
        }
        for name, call in called.items()
    }


def dag_of_kfp(spec: dict[str, Any]) -> Dag:
    """Returns the same of compiled IR, by what is displayed of a task."""
    dag = {}
    tasks = spec["root"]["dag"]["tasks"]
    shown = {task: entry["taskInfo"]["name"].replace(" ", "_") for task, entry in tasks.items()}
    for task, entry in tasks.items():
        component = spec["components"][entry["componentRef"]["name"]]
        arguments = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]["args"]
        parameters = entry["inputs"]["parameters"]
        name = parameters["name"]["runtimeValue"]["constant"] if "name" in parameters else None
        inputs = {}
        for port, source in entry["inputs"].get("artifacts", {}).items():
            output = source["taskOutputArtifact"]
            inputs[port] = (shown[output["producerTask"]], output["outputArtifactKey"])
        dag[shown[task]] = {
            "stage": arguments[arguments.index("--function_to_execute") + 1],
            "name": name or component["inputDefinitions"]["parameters"]["name"]["defaultValue"],
            "params": [parameters["params"]["componentInputParameter"]],
            "outputs": set(component["outputDefinitions"]["artifacts"]),
            "inputs": inputs,
        }
    return dag
