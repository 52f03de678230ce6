"""Each pipeline and its `dvc.yaml` are one DAG: stages and their names, edges, ports, params sections.

The entry `code` is DVC's alone: what it tells DVC, the digest of the image tells Kubeflow.
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from kfp.compiler import Compiler
from tests.dags import calls, dag_of_dvc, dag_of_kfp

from pipelines import PIPELINES
from pipelines.compile import build, read_values
from pipelines.placement import Placement

ROOT = Path(__file__).resolve().parents[2]
# of each pipeline; its params.yaml lies beside it
FILES = {
    "forecasting": ROOT / "dvc.yaml",
    "detection": ROOT / "recipes/detection/dvc.yaml",
    "video": ROOT / "recipes/video/dvc.yaml",
    "few_labels": ROOT / "recipes/few-labels/dvc.yaml",
    "hands": ROOT / "recipes/hands/dvc.yaml",
    "photographs": ROOT / "recipes/photographs/dvc.yaml",
    "two_maskers": ROOT / "tests/two_maskers/dvc_example.yaml",
}


@pytest.fixture(autouse=True)
def _with_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PIPELINES, "two_maskers", "tests.two_maskers.pipeline:two_maskers")


@cache
def compiled(name: str, params: str = "params.yaml") -> dict[str, Any]:
    """Returns the IR of a pipeline."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        values, _ = read_values(name, FILES[name].parent / params, [])
        Compiler().compile(build(name, values, Placement("image")), str(path))
        return yaml.safe_load(path.read_text())


def dvc_stages(name: str) -> dict[str, Any]:
    return yaml.safe_load(FILES[name].read_text())["stages"]


def test_every_pipeline_is_compared() -> None:
    assert set(FILES) == set(PIPELINES)


@pytest.mark.parametrize("name", FILES)
def test_both_are_the_same_dag(name: str) -> None:
    assert dag_of_kfp(compiled(name)) == dag_of_dvc(dvc_stages(name))


@pytest.mark.parametrize(
    ("name", "params"), [*((name, "params.yaml") for name in FILES), ("detection", "full.yaml")]
)
def test_the_pipeline_takes_the_sections_of_the_params_file(name: str, params: str) -> None:
    sections = yaml.safe_load((FILES[name].parent / params).read_text())
    parameters = compiled(name, params)["root"]["inputDefinitions"]["parameters"]
    assert set(parameters) == set(sections)
    assert {name: entry["defaultValue"] for name, entry in parameters.items()} == sections


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_path_is_noticed(name: str) -> None:
    stages = dvc_stages(name)
    last, path = [(entry, path) for entry, call in calls(stages).items() for path in call.paths("in").values()][-1]
    stages[last]["cmd"] = stages[last]["cmd"].replace(f" {path}", " data/raw")
    assert dag_of_kfp(compiled(name)) != dag_of_dvc(stages)


@pytest.mark.parametrize(("old", "new"), [(" --name second_masks", ""), ("second_masks ", "second ")])
def test_a_wrong_name_is_noticed(old: str, new: str) -> None:
    stages = dvc_stages("two_maskers")
    stages["second_masks"]["cmd"] = stages["second_masks"]["cmd"].replace(old, new)
    assert dag_of_kfp(compiled("two_maskers")) != dag_of_dvc(stages)
