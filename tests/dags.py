"""Reads pipelines as tests compare them: a dvc.yaml, and what KFP compiles."""

import shlex
from dataclasses import dataclass
from typing import Any

from maskcast.runner.stage import Stage, get_stage

CODE = "code"  # the entry that names the code of all stages: DVC's alone, as an image's digest is Kubeflow's
Dag = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Call:
    """What the command of an entry of a dvc.yaml says."""

    stage: Stage
    name: str
    params_file: str
    ports: dict[str, str]
    """Path of each port."""

    def paths(self, direction: str) -> dict[str, str]:
        """Returns the paths of the ports of one direction."""
        names = [port.name for port in self.stage.ports if port.direction == direction and port.name in self.ports]
        return {name: self.ports[name] for name in names}


def call(entry: dict[str, Any]) -> Call:
    """Returns what an entry calls."""
    words = shlex.split(entry["cmd"])
    assert words[0] == "maskcast"
    flags = {flag.removeprefix("--"): value for flag, value in zip(words[2::2], words[3::2], strict=True)}
    return Call(get_stage(words[1]), flags.pop("name", words[1]), flags.pop("params"), flags)


def calls(stages: dict[str, Any]) -> dict[str, Call]:
    """Returns the calls of all entries but `code`."""
    return {name: call(entry) for name, entry in stages.items() if name != CODE}


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
