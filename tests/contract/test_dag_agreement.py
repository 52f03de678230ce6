"""Each pipeline and its `dvc.yaml` are one DAG: stages, edges, ports, params sections.

The entry `code` is DVC's alone: what it tells DVC, the digest of the image tells Kubeflow.
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from kfp.compiler import Compiler
from tests.dvc_yaml import calls

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
    called = calls(stages)
    written = {path: (name, port) for name, call in called.items() for port, path in call.paths("out").items()}
    return {
        name: {
            "params": stages[name]["params"],
            "outputs": set(call.paths("out")),
            "inputs": {port: written.get(path) for port, path in call.paths("in").items()},
        }
        for name, call in called.items()
    }


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


@pytest.mark.parametrize("name", FOLDERS)
def test_a_wrong_path_is_noticed(name: str) -> None:
    stages = dvc_stages(name)
    consumer, call = next((name, call) for name, call in calls(stages).items() if "encoder" in call.paths("in"))
    stages[consumer]["cmd"] = stages[consumer]["cmd"].replace(call.ports["encoder"], "data/raw")
    assert dag_of_kfp(compiled(name)) != dag_of_dvc(stages)
