"""What users do with DVC, in a real Git and DVC repository of the project's files, with a real S3 remote."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.integration.project import STAGES, Project

from maskcast.params import flatten


def reruns(project: Project) -> list[str]:
    """Returns the stages that ``dvc repro`` would run now, were the outputs to stay what they are."""
    said = json.loads(project.run("dvc", "status", "--json"))
    changed = {name for name, why in said.items() if any(_is_own_change(reason) for reason in why)}
    return [name for name in STAGES if name in changed]


def _is_own_change(reason: Any) -> bool:
    """Whether a stage changed by itself, and not because a stage before it would write something new."""
    if not isinstance(reason, dict):
        return True
    changed = reason.get("changed deps", {})
    return any(path.startswith(("code/", "params.yaml")) for path in changed) or "changed command" in reason


@pytest.fixture(scope="module")
def project(warm_first_run: Project) -> Project:
    """The project after its first `dvc repro`."""
    return warm_first_run


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
    project.run("git", "checkout", "--quiet", "--", "dvc.lock")
    project.dvc("checkout", "--force")


def test_the_run_left_what_it_should(project: Project) -> None:
    report = project.folder / "results/report"
    assert (report / "scores.md").is_file()
    assert (report / "forecast.png").is_file()
    assert (project.folder / "results/predictions/index.json").is_file()
    assert (project.folder / "mlflow.db").is_file()
    registration = json.loads((project.folder / "results/registration.json").read_text())
    names = ("maskcast", "maskcast-masker", "maskcast-forecaster", "maskcast-encoder")
    assert registration["versions"] == dict.fromkeys(names, 1)
    assert "jaccard_last" in json.loads((project.folder / "results/evaluate.json").read_text())
    left = [path.name for path in project.folder.rglob("*") if path.name.endswith((".partial", ".resume", ".old"))]
    assert left == []


def test_the_run_ends_with_what_was_gained_and_what_comes_next(project: Project) -> None:
    assert "\t@maskcast summary\n" in (project.folder / "Makefile").read_text()
    project.run("maskcast", "models", "list")  # says that the project is a copy, and corrects the database
    lines = project.run("maskcast", "summary").splitlines()
    assert "the forecaster's Jaccard of" in " ".join(lines)
    assert f"report: {project.folder.resolve() / 'results/evaluate.html'}" in lines
    assert [line.split()[1:3] for line in lines[lines.index("next:") + 1 :]] == [
        ["forecast", "sample"],
        ["models", "list"],
        ["models", "promote"],
    ]
    assert max(len(line) for line in lines[: lines.index("next:")] if not line.startswith("report: ")) <= 80


def test_the_lineage_has_the_params_that_the_clips_were_prepared_with(project: Project) -> None:
    """Also values that were not committed, as the stages that make data have no runs."""
    text = project.run("maskcast", "models", "lineage", "1")
    made = text.partition("\nprepare_clips: made data of ")[2].partition("\nfetch_dataset: made data of ")[0]
    assert "train_masker" in made.splitlines()[0] and "evaluate" in made.splitlines()[0]
    written = flatten(project.params()["prepare_clips"])
    assert {f"  {key}: {value}" for key, value in written.items()} <= set(made.splitlines())
    assert text.count("made by no run on this server") == 1  # the clips


def test_git_never_sees_data(project: Project) -> None:
    tracked = project.run("git", "ls-files").split()
    assert not [path for path in tracked if path.startswith(("data/", "models/", "results/", "mlflow"))]
    assert project.run("git", "status", "--porcelain") == ""


def test_a_second_repro_does_nothing(project: Project) -> None:
    said = project.dvc("repro")
    assert "Running stage" not in said
    assert "up to date" in said
    assert reruns(project) == []


def test_data_that_did_not_change_reruns_nothing_where_it_is_fetched_anew(project: Project) -> None:
    assert "Running stage 'fetch_dataset'" in project.dvc("repro", "--force", "fetch_dataset")
    assert "Running stage" not in project.dvc("repro")


def test_a_mistake_in_the_params_of_the_last_stages_is_told_before_the_first_runs(project: Project, edit) -> None:
    edit("params.yaml", "unlabeled: 3", "unlabeled: 4")
    edit("params.yaml", "pictures: 1", "pictures: -1")
    with pytest.raises(AssertionError, match=r"error: params\.yaml: evaluate\.pictures: ") as failed:
        project.dvc("repro")
    assert "Running stage 'code'" in str(failed.value) and "Running stage 'prepare_clips'" not in str(failed.value)


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
    assert reruns(project) == stages


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("storage/s3.py", ["fetch_dataset"]),
        ("training/loop.py", ["pretrain_encoder", "train_masker", "pretrain_forecaster", "finetune_forecaster"]),
        ("runner/stage.py", STAGES),
    ],
)
def test_one_module_reruns_the_stages_that_import_it(
    project: Project, edit, module: str, stages: list[str]
) -> None:
    edit(f"src/maskcast/{module}", '"""', '"""Changed. ')
    assert reruns(project) == []
    assert "code" in json.loads(project.run("dvc", "status", "--json"))
    project.dvc("repro", "code")
    assert reruns(project) == stages


def test_a_new_module_reruns_nothing_but_code(project: Project) -> None:
    added = project.folder / "src/maskcast/models/segmentation/nobody_imports_it.py"
    added.write_text("SIZE = 3\n")
    said = project.dvc("repro", "train_masker")
    added.unlink()
    assert said.count("Running stage") == 1
    assert "Running stage 'code'" in said
    assert "Stage 'train_masker' didn't change, skipping" in said
    project.run("git", "checkout", "--quiet", "--", "dvc.lock")
    project.dvc("checkout", "--force")


def test_experiments_and_metrics(project: Project) -> None:
    said = project.dvc("exp", "run", "--name", "two-pictures", "-S", "evaluate.pictures=2")
    ran = [name for name in ["code", *STAGES] if f"Running stage '{name}'" in said]
    assert ran == ["code", "evaluate", "register_models"]  # the params are checked; the last has a new report
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


def test_push_and_pull_through_s3(project: Project, s3, empty_database: Path, tmp_path: Path) -> None:
    project.dvc("remote", "add", "--force", "--default", "team", f"s3://{s3.bucket}/dvc")
    project.dvc("remote", "modify", "team", "endpointurl", s3.endpoint)
    clone = Project(tmp_path / "clone")
    clone.environment["PATH"] = project.environment["PATH"]  # of commands that start at once
    project.run("git", "clone", "--quiet", str(project.folder), str(clone.folder))
    assert "pushed" in clone.dvc("--cd", str(project.folder), "push")  # has the keys in its environment
    shutil.copy(project.folder / ".dvc/config", clone.folder / ".dvc/config")
    clone.dvc("pull")
    for file in ("data/clips/index.json", "models/forecaster/model.safetensors", "results/evaluate.json"):
        assert (clone.folder / file).read_bytes() == (project.folder / file).read_bytes()
    assert "Running stage" not in clone.dvc("repro")
    register = "dvc repro -f -s register_models"
    listing = ("maskcast", "models", "list")
    with pytest.raises(AssertionError, match=f"no models: .*run `{register}`"):
        clone.run(*listing)
    shutil.copy(empty_database, clone.folder / "mlflow.db")
    clone.run(*register.split())
    clone.run(*listing)
