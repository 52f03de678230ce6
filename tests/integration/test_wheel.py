"""maskcast installed from a wheel, and a project of somebody's own, outside of any clone."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.integration.project import ROOT, STAGES, Project
from tests.integration.test_dvc import reruns

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
OFFLINE = ["--quiet", "--no-deps", "--no-index"]


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and the clone that it was built from.

    Attributes:
        programs: the folder of its commands.
        site: where its packages lie.
        clone: has small params, which the wheel therefore has, too.
        commit: of the clone.
    """

    programs: Path
    site: Path
    clone: Project
    commit: str

    def project(self, folder: Path) -> Project:
        """Returns what runs commands in a folder by this environment, and knows no clone."""
        folder.mkdir()
        project = Project(folder)
        project.environment["PYTHONPATH"] = str(self.site)
        project.add_programs(self.programs)
        return project


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Builds the wheel of this working tree and installs it on top of the packages that are installed here."""
    folder = tmp_path_factory.mktemp("installed")
    clone = Project.copy_to(folder / "clone")
    del clone.environment["PYTHONPATH"]  # or pip would find maskcast installed already
    clone.run("git", "init", "--quiet")
    clone.commit("A clone")
    venv.create(folder / "venv", symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    (site / "below.pth").write_text(sysconfig.get_path("purelib") + "\n")  # whose own .pth files count no more
    python = ["--python", str(folder / "venv/bin/python")]
    clone.run(*PIP, *python, "install", *OFFLINE, "--no-build-isolation", ".")  # by a wheel, as pip installs all
    return Installed(folder / "venv/bin", site, clone, clone.run("git", "rev-parse", "HEAD").strip())


def test_a_project_works_as_a_clone_does(
    installed: Installed, programs: Path, empty_database: Path, tmp_path: Path
) -> None:
    team = installed.project(tmp_path / "team")
    said = team.run("python", "-c", "import maskcast; print(maskcast.__file__)")
    assert Path(said.strip()).is_relative_to(installed.site)
    assert f", commit {installed.commit[:12]}\n" in team.run("maskcast", "--version")
    assert "cd street\n" in team.run("maskcast", "new", "street")
    street = Project(team.folder / "street")
    street.environment = team.environment
    street.commit("A project")

    street.add_programs(programs)
    street.run("maskcast", "pipeline", "compile")
    installed.clone.environment |= {name: street.environment[name] for name in ("PATH", "PYTHONPATH")}
    installed.clone.run("maskcast", "pipeline", "compile")
    compiled, ours = (
        list(yaml.load_all((place.folder / "forecasting.yaml").read_text(), yaml.CSafeLoader))
        for place in (street, installed.clone)
    )
    assert compiled == ours

    shutil.copy(empty_database, street.folder / "mlflow.db")
    street.dvc("repro")
    assert street.run("git", "status", "--porcelain") == "?? dvc.lock\n"
    street.commit("A run")
    assert street.dvc("repro").count("Running stage") == 1  # `code`, which looks at the package
    assert street.run("git", "status", "--porcelain") == ""
    assert "equal: all " in street.run("maskcast", "models", "lineage", "1", "--verify")
    origin = street.run("maskcast", "models", "lineage", "1").splitlines()
    assert sum(f", commit {installed.commit[:12]}" in line for line in origin if " maskcast: " in line) > 2

    upgraded = installed.site / "maskcast/training/loop.py"
    upgraded.write_text(upgraded.read_text() + "# an upgrade\n")
    street.dvc("repro", "code")
    trained = ["pretrain_encoder", "train_masker", "pretrain_forecaster", "finetune_forecaster"]
    assert reruns(street) == trained != STAGES
    street.dvc("commit", "--force")  # as docs/your-project.md says it to whoever keeps what was made before
    assert json.loads(street.run("dvc", "status", "--json")) == {"code": ["always changed"]}


def test_a_plugin_lies_in_the_project(installed: Installed, tmp_path: Path) -> None:
    project = installed.project(tmp_path / "street")
    project.run("maskcast", "new", ".")
    (project.folder / "data").mkdir()
    (project.folder / "mynets").mkdir()
    (project.folder / "mynets/__init__.py").touch()
    for name, page, fence in (
        ("mynets/fcn.py", "add-a-model.md", "```python\n"),
        ("pyproject.toml", "your-project.md", "```toml\n"),
    ):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        (project.folder / name).write_text(text.partition(fence)[2].partition("```")[0])
    python = ["--python", str(installed.programs / "python")]
    project.run(*PIP, *python, "install", *OFFLINE, "--no-build-isolation", "--editable", ".")
    assert "arch: fcn" in project.run("maskcast", "train_masker", "--help")
    project.run("python", "-c", "import sys; sys.modules['torch'] = None; import mynets.fcn")  # as CI may compile
    project.run("maskcast", "code", "--out", "code")
    using = [file.name for file in (project.folder / "code").iterdir() if "mynets/fcn.py\n" in file.read_text()]
    assert "train_masker" in using and "prepare_clips" not in using
    assert "mynets/" in project.run("git", "status", "--porcelain")


def test_a_wheel_of_a_source_distribution_knows_the_commit(installed: Installed, tmp_path: Path) -> None:
    installed.clone.run(sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(tmp_path))
    (packed,) = tmp_path.iterdir()
    source = Project(tmp_path)
    source.run("tar", "--extract", "--strip-components=1", f"--file={packed}")
    source.run(sys.executable, "setup.py", "--quiet", "build_py")
    built = tmp_path / "build/lib/maskcast/shipped/COMMIT"
    assert built.read_text() == installed.commit[:12]


def test_a_wheel_is_built_from_a_whole_clone_alone(tmp_path: Path) -> None:
    clone = Project.copy_to(tmp_path)
    (clone.folder / "params.yaml").unlink()
    command = [sys.executable, "setup.py", "--quiet", "build_py"]
    done = subprocess.run(command, cwd=clone.folder, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "has no params.yaml; build from a clone of the repository" in done.stderr
