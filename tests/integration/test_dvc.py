"""What users do with DVC, in a real Git and DVC repository of the project's files, with a real S3 remote."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
STAGES = [
    "fetch_dataset",
    "prepare_clips",
    "train_masker",
    "generate_masks",
    "pretrain_forecaster",
    "finetune_forecaster",
    "evaluate",
    "predict",
]


class Project:
    """A clone of this repository with params small enough for a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_"))
        }
        self.environment = environment | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "src"),
            "OMP_NUM_THREADS": "1",
            "GIT_AUTHOR_NAME": "Test",
            "GIT_AUTHOR_EMAIL": "test@localhost",
            "GIT_COMMITTER_NAME": "Test",
            "GIT_COMMITTER_EMAIL": "test@localhost",
        }

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=800,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout if "--json" in command else done.stdout + done.stderr

    def dvc(self, *words: str) -> str:
        return self.run("dvc", *words)

    def reruns(self) -> list[str]:
        """Returns the stages that ``dvc repro`` would run now, were the outputs to stay what they are."""
        said = json.loads(self.run("dvc", "status", "--json"))
        changed = {name for name, why in said.items() if any(_is_own_change(reason) for reason in why)}
        return [name for name in STAGES if name in changed]


def _is_own_change(reason: Any) -> bool:
    """Whether a stage changed by itself, and not because a stage before it would write something new."""
    if not isinstance(reason, dict):
        return True
    changed = reason.get("changed deps", {})
    return any(path.endswith((".py", "params.yaml")) for path in changed) or "changed command" in reason


def shrink(params: dict[str, Any]) -> dict[str, Any]:
    """Returns the shipped params with counts and sizes that take seconds."""
    source = {"layout": "synthetic", "train": 3, "val": 2, "unlabeled": 3, "hidden": 2}
    params["prepare_clips"] |= {"source": source, "height": 32, "width": 48, "workers": 1}
    for name in ("train_masker", "pretrain_forecaster", "finetune_forecaster"):
        params[name]["training"] |= {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "warmup_steps": 0}
    params["train_masker"]["model"] = {"arch": "unet", "width": 4}
    params["evaluate"]["pictures"] = 1
    return params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after its first ``dvc repro``, committed."""
    folder = tmp_path_factory.mktemp("project")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for file in filter(None, files):
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
    (folder / "dvc.lock").unlink(missing_ok=True)
    params = shrink(yaml.safe_load((folder / "params.yaml").read_text()))
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    project = Project(folder)
    project.run("git", "init", "--quiet")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "start")
    for name in STAGES:  # one by one: the whole run may take longer than the limit of one command
        project.dvc("repro", "--single-item", name)
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "first run")
    return project


@pytest.fixture
def edit(project: Project):
    """Changes a file of the project for one test."""
    before: dict[Path, str] = {}

    def change(name: str, old: str, new: str) -> None:
        path = project.folder / name
        before.setdefault(path, path.read_text())
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    yield change
    for path, text in before.items():
        path.write_text(text)


def test_the_run_left_what_it_should(project: Project) -> None:
    report = project.folder / "results/report"
    assert (report / "scores.md").is_file()
    assert (report / "forecast.png").is_file()
    assert (project.folder / "results/predictions/index.json").is_file()
    assert (project.folder / "mlflow.db").is_file()
    assert "jaccard_last" in json.loads((project.folder / "results/evaluate.json").read_text())
    left = [path.name for path in project.folder.rglob("*") if path.name.endswith((".partial", ".resume", ".old"))]
    assert left == []


def test_git_never_sees_data(project: Project) -> None:
    tracked = project.run("git", "ls-files").split()
    assert not [path for path in tracked if path.startswith(("data/", "models/", "results/", "mlflow"))]
    assert project.run("git", "status", "--porcelain") == ""


def test_a_second_repro_does_nothing(project: Project) -> None:
    said = project.dvc("repro")
    assert "Running stage" not in said
    assert "up to date" in said
    assert project.reruns() == []


@pytest.mark.parametrize(
    ("old", "new", "stages"),
    [
        ("pictures: 1", "pictures: 2", ["evaluate"]),
        ("unlabeled: 3", "unlabeled: 4", ["prepare_clips"]),
        ("confidence_levels: 8", "confidence_levels: 4", ["generate_masks"]),
    ],
)
def test_one_section_reruns_one_stage(project: Project, edit, old: str, new: str, stages: list[str]) -> None:
    edit("params.yaml", old, new)
    assert project.reruns() == stages


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("storage.py", ["fetch_dataset"]),
        ("models/unet.py", ["train_masker", "generate_masks"]),
        ("models/motion.py", ["pretrain_forecaster", "finetune_forecaster", "evaluate", "predict"]),
        ("tracking.py", []),
        ("stage.py", STAGES),
    ],
)
def test_one_module_reruns_the_stages_that_import_it(
    project: Project, edit, module: str, stages: list[str]
) -> None:
    edit(f"src/maskcast/{module}", '"""', '"""Changed. ')
    assert project.reruns() == stages


def test_experiments_and_metrics(project: Project) -> None:
    said = project.dvc("exp", "run", "--name", "two-pictures", "-S", "evaluate.pictures=2")
    assert said.count("Running stage") == 1
    shown = project.dvc("exp", "show", "--csv")
    assert "two-pictures" in shown
    diff = json.loads(project.dvc("metrics", "diff", "--all", "--json"))
    assert any(path.endswith("evaluate.json") for path in diff.get("diff", diff))
    project.dvc("exp", "remove", "two-pictures")
    project.run("git", "checkout", "--quiet", "--", "params.yaml", "dvc.lock")
    project.dvc("checkout", "--force")


def test_plots(project: Project) -> None:
    said = project.dvc("plots", "show", "--out", "dvc_plots")
    page = project.folder / "dvc_plots/index.html"
    assert str(page) in said
    drawn = page.read_text()
    assert "forecast quality by horizon" in drawn
    assert '"constant_velocity"' in drawn
    assert "results_report_forecast.png" in drawn


def test_push_and_pull_through_s3(project: Project, s3, tmp_path: Path) -> None:
    project.dvc("remote", "add", "--force", "--default", "team", f"s3://{s3.bucket}/dvc")
    project.dvc("remote", "modify", "team", "endpointurl", s3.endpoint)
    project.environment |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    assert "pushed" in project.dvc("push")
    clone = Project(tmp_path / "clone")
    clone.environment = project.environment | {"PYTHONPATH": str(clone.folder / "src")}
    project.run("git", "clone", "--quiet", str(project.folder), str(clone.folder))
    shutil.copy(project.folder / ".dvc/config", clone.folder / ".dvc/config")
    clone.dvc("pull")
    for file in ("data/clips/index.json", "models/forecaster/model.safetensors", "results/evaluate.json"):
        assert (clone.folder / file).read_bytes() == (project.folder / file).read_bytes()
    assert "Running stage" not in clone.dvc("repro")
