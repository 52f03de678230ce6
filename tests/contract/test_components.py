"""Each component is a shim of its stage: the same ports and no logic."""

import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import components
from maskcast.runner import run
from maskcast.runner.stage import get_stage, stage_names

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("maskcast", "torch", "mlflow", "dvc", "cv2")
OF_ONE_KIND = {"metrics": "system.Metrics", "page": "system.HTML", "report": "system.Artifact"}


def component(name: str) -> Any:
    return getattr(components, name)


def artifacts(name: str, direction: str) -> dict[str, str]:
    """Returns the artifact type of each port of a component."""
    spec = component(name).component_spec
    ports = (spec.inputs if direction == "in" else spec.outputs) or {}
    return {port: entry.type.split("@")[0] for port, entry in ports.items() if port not in ("params", "name")}


def test_every_stage_has_a_component() -> None:
    assert sorted(components.__all__) == stage_names()


@pytest.mark.parametrize("name", stage_names())
def test_ports_are_those_of_the_stage(name: str) -> None:
    ports = get_stage(name).ports
    for direction in ("in", "out"):
        assert set(artifacts(name, direction)) == {port.name for port in ports if port.direction == direction}
    inputs = component(name).component_spec.inputs
    optional = {port.name for port in ports if port.direction == "in" and port.optional}
    assert {port for port, entry in inputs.items() if entry.optional} == {*optional, "name"}
    assert inputs["params"].type == "Dict"
    assert (inputs["name"].type, inputs["name"].default) == ("String", name)


@pytest.mark.parametrize("name", stage_names())
def test_a_port_has_one_type_wherever_it_stands(name: str) -> None:
    written = {port: kind for other in stage_names() for port, kind in artifacts(other, "out").items()}
    written |= {"start": written["masker"], "base_masks": written["masks"]}
    for port, kind in (artifacts(name, "in") | artifacts(name, "out")).items():
        assert kind == written.get(port, "system.Dataset")  # no stage writes `unlabeled`
        assert kind == OF_ONE_KIND.get(port, kind)
        assert kind in OF_ONE_KIND.values() or kind in ("system.Dataset", "system.Model")


@pytest.mark.parametrize("name", stage_names())
def test_the_shim_hands_every_path_to_its_own_port(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = {}

    def record(stage: str, params: dict[str, Any], *, name: str, **paths: str) -> dict[str, float]:
        called.update(stage=stage, name=name, params=params, paths=paths)
        return {"score": 1.0}

    monkeypatch.setattr(run, "run_stage", record)
    ports = [port.name for port in get_stage(name).ports]
    given = {port: SimpleNamespace(path=f"/{port}", metadata={}) for port in ports}
    component(name).python_func(**given, params={"a": 1}, name="second")
    paths = {port: f"/{port}" for port in ports}
    assert called == {"stage": name, "name": "second", "params": {"a": 1}, "paths": paths}
    if "metrics" in given:
        assert given["metrics"].metadata == {"score": 1.0}


@pytest.mark.parametrize("name", stage_names())
def test_a_shim_is_short(name: str) -> None:
    source = inspect.getsourcefile(component(name).python_func)
    assert Path(source or "").name == f"{name}.py"
    assert len(Path(source or "").read_text().splitlines()) <= 20


def test_importing_components_loads_nothing_heavier_than_kfp() -> None:
    code = f"import sys, warnings; warnings.simplefilter('ignore'); import components\n\
print(sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
