"""Imports go downward only, by the contracts in pyproject.toml, and what describes imports nothing heavy."""

import os
import shutil
import subprocess
import sys
from collections.abc import Set
from pathlib import Path

import pytest
from tests.conftest import ROOT

from maskcast.runner.stage import stage_names

HEAVY = {"torch", "torchvision", "lightning_fabric", "mlflow", "matplotlib", "timm", "segmentation_models_pytorch"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code, and what checks its imports, in a folder of its own."""
    folder = tmp_path_factory.mktemp("copy")
    for part in ("src", "components", "pipelines"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def check_imports(copy: Path) -> tuple[int, str]:
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"]
    path = f"{copy / 'src'}{os.pathsep}{copy}"
    env = os.environ | {"PYTHONPATH": path, "COLUMNS": "1000"}
    done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_imports_go_downward(copy: Path) -> None:
    code, said = check_imports(copy)
    assert code == 0, said


@pytest.mark.parametrize(
    ("where", "line", "broken"),
    [
        (
            "src/maskcast/data/clip_store/reader.py",
            "import maskcast.report.page",
            "maskcast.data is not allowed to import",
        ),
        (
            "src/maskcast/models/objects/warp.py",
            "import maskcast.models.forecasting.base",
            "maskcast.models.objects",
        ),
        ("src/maskcast/labels.py", "def load():\n    import maskcast.data.clip_store.reader", "maskcast.labels"),
        ("src/maskcast/registry/gate.py", "def load():\n    import mlflow", "maskcast.registry.gate -> mlflow"),
        ("src/maskcast/stages/predict.py", "import kfp", "maskcast.stages.predict -> kfp"),
        ("src/maskcast/data/video_files/frames.py", "import boto3", "maskcast.data.video_files.frames -> boto3"),
        ("pipelines/local.py", "import kubernetes", "pipelines.local -> kubernetes"),
    ],
)
def test_one_planted_import_breaks_the_check(copy: Path, where: str, line: str, broken: str) -> None:
    path = copy / where
    before = path.read_text(encoding="utf-8")
    path.write_text(f"{before}\n\n{line}\n", encoding="utf-8")
    try:
        code, said = check_imports(copy)
    finally:
        path.write_text(before, encoding="utf-8")
    assert code == 1 and broken in said, said


def imported(code: str, packages: Set[str] = HEAVY) -> set[str]:
    """Returns which of some packages a process has imported after running ``code``."""
    code += "\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return packages & {*done.stdout.splitlines()[-1].split()}


def test_the_command_line_starts_without_what_only_pools_of_processes_need() -> None:
    help_of_all = "import contextlib\nfrom maskcast.__main__ import main\n"
    help_of_all += "with contextlib.suppress(SystemExit):\n    main(['--help'])"
    assert not imported(help_of_all, {"multiprocessing"})


@pytest.mark.parametrize("stage", stage_names())
def test_a_stage_is_described_without_anything_heavy(stage: str) -> None:
    assert not imported(
        "import contextlib\n"
        "from maskcast.__main__ import main\n"
        "with contextlib.suppress(SystemExit):\n"
        f"    main([{stage!r}, '--help'])"
    )


def test_params_of_all_stages_are_checked_without_anything_heavy() -> None:
    assert not imported(
        "from maskcast.params import load_params_file, section, validate\n"
        "from maskcast.runner.stage import get_stage, stage_names\n"
        "from pathlib import Path\n"
        "values = load_params_file(Path('params.yaml'))\n"
        "for name in stage_names():\n"
        "    if name in values:\n"
        "        validate(get_stage(name).params, section(values, name, 'params.yaml'), name)"
    )


def test_pipelines_are_compiled_without_anything_heavy(tmp_path: Path) -> None:
    out = str(tmp_path / "pipeline.yaml")
    assert not imported(f"from maskcast.__main__ import main\nmain(['pipeline', 'compile', '--out', {out!r}])")
    assert (tmp_path / "pipeline.yaml").exists()
