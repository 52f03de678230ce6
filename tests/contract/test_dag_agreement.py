"""Each pipeline and its `dvc.yaml` are one DAG: stages, edges, ports, params sections."""

import shlex
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from kfp.compiler import Compiler

from maskcast.runner.stage import get_stage
from pipelines import PIPELINES
from pipelines.cluster import Placement
from pipelines.compile import build

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "forecasting": ROOT,
    "detection": ROOT / "recipes/detection",
}  # of each pipeline's dvc.yaml and params.yaml
Dag = dict[str, dict[str, Any]]


def test_every_pipeline_is_compared() -> None:
    assert set(FOLDERS) == set(PIPELINES)


def dag_of_dvc(stages: dict[str, Any]) -> Dag:
    """Returns per stage: its section of params, its output ports, and where each input comes from."""
    calls = {}
    for name, entry in stages.items():
        words = shlex.split(entry["cmd"])
        flags = dict(zip(words[4::2], words[5::2], strict=True))
        flags.pop("--params")
        calls[words[3]] = (entry["params"], {flag.removeprefix("--"): path for flag, path in flags.items()})
        assert words[3] == name
    written = {
        path: (name, port)
        for name, (_, ports) in calls.items()
        for port, path in ports.items()
        if direction(name, port) == "out"
    }
    return {
        name: {
            "params": params,
            "outputs": {port for port in ports if direction(name, port) == "out"},
            "inputs": {port: written.get(ports[port]) for port in ports if direction(name, port) == "in"},
        }
        for name, (params, ports) in calls.items()
    }


def direction(stage: str, port: str) -> str:
    return next(p.direction for p in get_stage(stage).ports if p.name == port)


def dag_of_kfp(spec: dict[str, Any]) -> Dag:
    """Returns the same of compiled IR."""
    dag = {}
    for task, entry in spec["root"]["dag"]["tasks"].items():
        component = spec["components"][entry["componentRef"]["name"]]
        inputs = {}
        for port, source in entry["inputs"].get("artifacts", {}).items():
            output = source["taskOutputArtifact"]
            inputs[port] = (output["producerTask"].replace("-", "_"), output["outputArtifactKey"])
        section = entry["inputs"]["parameters"]["params"]["componentInputParameter"]
        outputs = set(component["outputDefinitions"]["artifacts"])
        dag[task.replace("-", "_")] = {"params": [section], "outputs": outputs, "inputs": inputs}
    return dag


@cache
def compiled(name: str, params: str = "params.yaml") -> dict[str, Any]:
    """Returns the IR of a pipeline."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        Compiler().compile(build(name, FOLDERS[name] / params, [], Placement("image")), str(path))
        return yaml.safe_load(path.read_text())


def dvc_stages(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDERS[name] / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize("name", FOLDERS)
def test_both_are_the_same_dag(name: str) -> None:
    assert dag_of_kfp(compiled(name)) == dag_of_dvc(dvc_stages(name))


@pytest.mark.parametrize(
    ("name", "params"), [*((name, "params.yaml") for name in FOLDERS), ("detection", "full.yaml")]
)
def test_the_pipeline_takes_the_sections_of_the_params_file(name: str, params: str) -> None:
    sections = yaml.safe_load((FOLDERS[name] / params).read_text())
    parameters = compiled(name, params)["root"]["inputDefinitions"]["parameters"]
    assert set(parameters) == set(sections)
    assert {name: entry["defaultValue"] for name, entry in parameters.items()} == sections


def wrong_paths() -> list[Any]:
    """Returns each dvc.yaml's stages with one path of one input changed, for every input."""
    cases = []
    for pipeline in FOLDERS:
        for name, entry in dvc_stages(pipeline).items():
            words = shlex.split(entry["cmd"])
            for place in range(6, len(words), 2):
                port = words[place].removeprefix("--")
                if direction(name, port) == "in":
                    for other in {f"data/{port}_v2", "data/raw", "data/masks"} - {words[place + 1]}:
                        stages = dvc_stages(pipeline)
                        stages[name]["cmd"] = shlex.join([*words[: place + 1], other, *words[place + 2 :]])
                        cases.append(pytest.param(pipeline, stages, id=f"{pipeline}-{name}-{port}-{other}"))
    return cases


@pytest.mark.parametrize(("pipeline", "stages"), sorted(wrong_paths(), key=lambda case: case.id))
def test_a_single_wrong_path_is_noticed(pipeline: str, stages: dict[str, Any]) -> None:
    assert dag_of_kfp(compiled(pipeline)) != dag_of_dvc(stages)
