"""dvc.yaml says what the code says: commands, ports, params, edges, and one file of code per stage."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.dags import CODE, calls

from maskcast.params import validate
from maskcast.runner.stage import stage_names

ROOT = Path(__file__).resolve().parents[2]
PIPELINES = sorted([ROOT / "dvc.yaml", *ROOT.glob("recipes/*/dvc.yaml")])
WITH_EXAMPLE = [*PIPELINES, ROOT / "tests/two_maskers/dvc_example.yaml"]

# Each stage is loaded as Python loads it; then whatever its functions and those of its imports would import, too.
LIST_IMPORTS = """
import dis, hashlib, importlib, json, os, sys, types
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
import cv2, matplotlib.font_manager, mlflow, rich.progress, segmentation_models_pytorch, torch, zstandard
root = Path(sys.argv[1])

def inner(code):
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from inner(constant)

def named(path):
    for code in inner(SourceFileLoader(path, path).get_code(path)):
        origin = None
        for step in dis.get_instructions(code):
            if step.opname == "IMPORT_NAME":
                origin = step.argval if step.argval.split(".")[0] == "maskcast" else None
                if origin:
                    yield origin, None
            elif step.opname == "IMPORT_FROM" and origin:
                yield origin, step.argval

names = {str(path): list(named(str(path))) for path in root.glob("maskcast/**/*.py")}  # once for all stages

def lazy(name):
    for origin, part in names[sys.modules[name].__file__]:
        if part is None:
            yield origin
        elif hasattr(importlib.import_module(origin), "__path__") and find_spec(f"{origin}.{part}"):
            yield f"{origin}.{part}"

for stage in sys.argv[2:]:
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        continue
    importlib.import_module(f"maskcast.stages.{stage}")
    done = set()
    while todo := [name for name in sys.modules if name.split(".")[0] == "maskcast" and name not in done]:
        done |= set(todo)
        for name in [found for each in todo for found in lazy(each)]:
            importlib.import_module(name)
    found = {}
    for name in done:
        path = Path(sys.modules[name].__file__)
        empty = path.name == "__init__.py" and not sys.modules[name].__loader__.get_code(name).co_names[1:]
        if not empty:
            found[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    print(json.dumps({stage: found}), flush=True)
    os._exit(0)
"""


@cache
def imports() -> dict[str, dict[str, str]]:
    """Returns for each stage the project's modules that an interpreter loads for it, and their digests."""
    command = [sys.executable, "-c", LIST_IMPORTS, str(ROOT / "src"), *stage_names()]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, str]] = {}
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    return found


def written_code(source: Path, out: Path) -> dict[str, str]:
    """Returns what `maskcast code` writes for each stage of the code in ``source``."""
    command = [sys.executable, "-m", "maskcast", "code", "--out", str(out)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(source)}, check=True)
    return {path.name: path.read_text() for path in out.iterdir()}


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `maskcast code` writes for each stage of this code."""
    return written_code(ROOT / "src", tmp_path_factory.mktemp("code") / "code")


def pipeline(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())["stages"]


def outputs(stage: dict[str, Any]) -> set[str]:
    """Returns every path a stage declares as written, whatever it is kept as."""
    entries = [entry for key in ("outs", "metrics", "plots") for entry in stage.get(key, [])]
    return {entry if isinstance(entry, str) else next(iter(entry)) for entry in entries}


CASES = [
    pytest.param(path, name, id=f"{path.parent.name}-{name}")
    for path in WITH_EXAMPLE
    for name in calls(pipeline(path))
]


def test_every_stage_is_in_a_pipeline() -> None:
    called = {call.stage.name for path in PIPELINES for call in calls(pipeline(path)).values()}
    assert called == set(stage_names())


@pytest.mark.parametrize(("path", "name"), CASES)
def test_the_command_is_the_signature(path: Path, name: str) -> None:
    entry = pipeline(path)[name]
    call = calls(pipeline(path))[name]
    assert (call.name, call.params_file, entry["params"]) == (name, "params.yaml", [name])
    required = {port.name for port in call.stage.ports if not port.optional}
    assert required <= set(call.ports) <= {port.name for port in call.stage.ports}
    assert set(entry["deps"]) == {f"{CODE}/{call.stage.name}", *call.paths("in").values()}
    assert set(call.paths("out").values()) == outputs(entry)


@pytest.mark.parametrize(("path", "name"), CASES)
def test_every_input_comes_from_the_output_port_of_the_same_name(path: Path, name: str) -> None:
    written = {}
    for other in calls(pipeline(path)).values():
        written |= {place: port for port, place in other.paths("out").items()}
    others = {"start": "masker", "base_masks": "masks"}  # of the same stage under another name
    for port, place in calls(pipeline(path))[name].paths("in").items():
        assert others.get(port, port) in (written[place], "unlabeled")  # an encoder learns from any data set


@pytest.mark.parametrize("path", WITH_EXAMPLE, ids=lambda path: path.parent.name)
def test_params_have_one_valid_section_per_stage(path: Path) -> None:
    sections = yaml.safe_load((path.parent / "params.yaml").read_text())
    called = calls(pipeline(path))
    assert list(sections) == list(called)
    for name, values in sections.items():
        validate(called[name].stage.params, values or {}, f"params.yaml: {name}")


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.parent.name)
def test_code_depends_on_all_of_the_package_and_the_params(path: Path) -> None:
    """So the params of all stages are checked before any of them runs."""
    entry = pipeline(path)[CODE]
    commands = ["maskcast check-params", f"maskcast code --out {CODE}"]
    assert (entry["cmd"], entry["outs"]) == (commands, [CODE])
    read = [(path.parent / dep).resolve() for dep in entry["deps"]]
    assert read == [ROOT / "src/maskcast", path.parent / "params.yaml"]
    assert "__pycache__/" in (path.parent / ".dvcignore").read_text().splitlines()


@pytest.mark.parametrize("stage", stage_names())
def test_the_code_of_a_stage_is_what_it_imports(stage: str, code: dict[str, str]) -> None:
    """A change of a module must rerun the stages that import it, at once or in a function, and no others."""
    expected = imports()[stage]
    assert code[stage] == "".join(f"{expected[path]}  {path}\n" for path in sorted(expected, key=Path))
    assert set(code) == set(stage_names())


@pytest.mark.parametrize(
    "module", ["storage/s3.py", "models/detection/faster_rcnn.py", "labels.py", "report/page.py"]
)
def test_a_changed_module_changes_the_files_of_the_stages_that_import_it(
    module: str, code: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    changed = tmp_path / "src/maskcast" / module
    changed.write_text(changed.read_text() + "# changed\n")
    now = written_code(tmp_path / "src", tmp_path / "code")
    stages = {stage for stage, found in imports().items() if f"maskcast/{module}" in found}
    assert {stage for stage in code if now[stage] != code[stage]} == stages
    if module == "storage/s3.py":
        assert stages == {"fetch_dataset"}
    digest = hashlib.sha256(changed.read_bytes()).hexdigest()
    assert all(f"{digest}  maskcast/{module}\n" in now[stage] for stage in stages)
