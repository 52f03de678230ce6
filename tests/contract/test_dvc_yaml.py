"""dvc.yaml says what the code says: commands, ports, params, edges, and the modules each stage imports."""

import json
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from maskcast.params import validate
from maskcast.runner.stage import Stage, get_stage, stage_names

ROOT = Path(__file__).resolve().parents[2]
PIPELINES = sorted([ROOT / "dvc.yaml", *ROOT.glob("recipes/*/dvc.yaml")])

LIST_IMPORTS = """
import json, os, sys
from pathlib import Path
import lightning_fabric, mlflow, segmentation_models_pytorch, torch
from maskcast.runner.stage import get_stage
root = Path(sys.argv[1])
for stage in sys.argv[2:]:
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        continue
    get_stage(stage)
    found = []
    for name, module in sorted(sys.modules.items()):
        if name.split(".")[0] == "maskcast" and getattr(module, "__file__", None):
            path = Path(module.__file__)
            if path.stat().st_size and (path.name != "__init__.py" or name == "maskcast.data.sources"):
                found.append(path.relative_to(root).as_posix())
    print(json.dumps({stage: found}), flush=True)
    os._exit(0)
"""


@cache
def imports() -> dict[str, list[str]]:
    """Returns the project's modules that an interpreter without any of them loads for each stage."""
    command = [sys.executable, "-c", LIST_IMPORTS, str(ROOT), *stage_names()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    return found


def pipeline(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())["stages"]


def outputs(stage: dict[str, Any]) -> set[str]:
    """Returns every path a stage declares as written, whatever it is kept as."""
    entries = [entry for key in ("outs", "metrics", "plots") for entry in stage.get(key, [])]
    return {entry if isinstance(entry, str) else next(iter(entry)) for entry in entries}


def command(stage: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
    """Returns the stage's name, the params file and the path of each port, as the command line has them."""
    words = shlex.split(stage["cmd"])
    assert words[:3] == ["python", "-m", "maskcast"]
    flags = dict(zip(words[4::2], words[5::2], strict=True))
    return words[3], flags.pop("--params"), {flag.removeprefix("--"): path for flag, path in flags.items()}


CASES = [
    pytest.param(path, name, id=f"{path.parent.name}-{name}") for path in PIPELINES for name in pipeline(path)
]


def test_every_stage_is_in_a_pipeline() -> None:
    assert {name for path in PIPELINES for name in pipeline(path)} == set(stage_names())


@pytest.mark.parametrize(("path", "name"), CASES)
def test_the_command_is_the_signature(path: Path, name: str) -> None:
    stage, the_stage = pipeline(path)[name], get_stage(name)
    called, params_file, ports = command(stage)
    assert called == name
    assert params_file == "params.yaml"
    assert stage["params"] == [name]
    required = {port.name for port in the_stage.ports if not port.optional}
    assert required <= set(ports) <= {port.name for port in the_stage.ports}
    direction = {port.name: port.direction for port in the_stage.ports}
    inputs = {ports[port] for port in ports if direction[port] == "in"}
    assert inputs <= set(stage.get("deps", []))
    assert {ports[port] for port in ports if direction[port] == "out"} == outputs(stage)


@pytest.mark.parametrize(("path", "name"), CASES)
def test_every_input_comes_from_the_output_port_of_the_same_name(path: Path, name: str) -> None:
    written = {}
    for other in pipeline(path):
        ports = command(pipeline(path)[other])[2]
        written |= {
            ports[p.name]: p.name for p in get_stage(other).ports if p.direction == "out" and p.name in ports
        }
    the_stage: Stage = get_stage(name)
    ports = command(pipeline(path)[name])[2]
    for port in the_stage.ports:
        if port.direction == "in" and port.name in ports:
            assert port.name in (written[ports[port.name]], "unlabeled")  # an encoder learns from any data set


@pytest.mark.parametrize(("path", "name"), CASES)
def test_deps_are_the_modules_the_stage_imports(path: Path, name: str) -> None:
    """Touching a module must rerun the stages that import it, and no others."""
    code = {
        (path.parent / dep).resolve().relative_to(ROOT).as_posix()
        for dep in pipeline(path)[name]["deps"]
        if dep.endswith(".py")
    }
    assert code == set(imports()[name])


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.parent.name)
def test_params_have_one_valid_section_per_stage(path: Path) -> None:
    sections = yaml.safe_load((path.parent / "params.yaml").read_text())
    assert list(sections) == list(pipeline(path))
    for name, values in sections.items():
        validate(get_stage(name).params, values or {}, f"params.yaml: {name}")
