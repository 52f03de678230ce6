"""`maskcast new`: what it writes for each pipeline, and what it refuses."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tests.conftest import ROOT, files_of
from tests.dags import CODE, calls

import pipelines
from maskcast import __version__, installation
from maskcast.__main__ import main
from maskcast.commands import new
from maskcast.commands.new import PIPELINES


@pytest.fixture(autouse=True)
def _outside_of_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)


def test_every_pipeline_can_be_begun() -> None:
    assert PIPELINES.keys() == pipelines.PIPELINES.keys()


@pytest.mark.parametrize("name", PIPELINES)
def test_a_project_has_the_pipeline_as_the_clone_has_it_but_for_the_code(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "mine", "--pipeline", name]) == 0
    told = {
        "forecasting": "maskcast init ~/videos --force ",
        "photographs": "maskcast init ~/photographs --force ",
    }
    assert told.get(name, "edit params.yaml: the address of your data") in capsys.readouterr().out
    ours, mine = ROOT / PIPELINES[name], Path("mine")
    stages = yaml.safe_load((mine / "dvc.yaml").read_text())["stages"]
    expected = yaml.safe_load((ours / "dvc.yaml").read_text())["stages"]
    del expected[CODE]["deps"]
    assert stages == expected | {CODE: expected[CODE] | {"always_changed": True}}
    assert (mine / "params.yaml").read_bytes() == (ours / "params.yaml").read_bytes()
    assert (mine / "cluster.yaml").read_bytes() == (ROOT / "pipelines/cluster.yaml").read_bytes()
    written = [path for call in calls(stages).values() for path in call.paths("out").values()]
    for path in [*written, CODE, f"{name}.yaml", "mlflow.db", ".env", ".venv/bin"]:
        assert ignored(mine, path), path
    assert not [path for path in ("dvc.lock", "data/street.dvc", "mynets/fcn.py") if ignored(mine, path)]


def ignored(folder: Path, path: str) -> bool:
    check = ["git", "-C", folder, "check-ignore", path, f"{path}/x"]  # a pattern may be for folders alone
    return subprocess.run(check, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (
            {"url": "https://git.example.com/maskcast", "vcs_info": {"vcs": "git", "commit_id": "abc123"}},
            "maskcast[train,data,cluster] @ git+https://git.example.com/maskcast@abc123\n",
        ),
        (
            {"url": "https://example.com/maskcast-0.1.0-py3-none-any.whl", "archive_info": {}},
            "maskcast[train,data,cluster] @ https://example.com/maskcast-0.1.0-py3-none-any.whl\n",
        ),
        (None, f"maskcast[train,data,cluster]=={__version__}\n"),
        ({"url": "file:///home/me/maskcast", "dir_info": {"editable": True}}, new.LOCAL_REQUIREMENT),
    ],
    ids=["git", "wheel", "index", "clone"],
)
def test_the_requirements_name_the_installed_version(
    origin: dict[str, Any] | None, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = None if origin is None else json.dumps(origin)
    monkeypatch.setattr(installation, "distribution", lambda _: SimpleNamespace(read_text=lambda _: text))
    assert main(["new", "street"]) == 0
    assert Path("street/requirements.txt").read_text() == line
    only_here = line == new.LOCAL_REQUIREMENT
    assert ("edit requirements.txt: " in capsys.readouterr().out) == only_here
    assert not only_here or all(each.startswith("#") for each in line.splitlines())
    readme = Path("street/README.md").read_text()
    assert readme.startswith("# street\n") and "pipeline `forecasting`" in readme
    assert not ignored(Path("street"), "requirements.txt") and not ignored(Path("street"), "README.md")


def test_its_cluster_file_is_taken_and_its_pipeline_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "mine", "--pipeline", "hands"]) == 0
    monkeypatch.chdir("mine")
    Path("cluster.yaml").write_text("image: registry.example.com/ours:1")
    capsys.readouterr()
    assert main(["pipeline", "compile"]) == 2
    line = "has the sections of the pipeline hands, not of forecasting; use --pipeline hands"
    assert capsys.readouterr().err == f"error: params.yaml: {line}\n"
    assert main(["pipeline", "compile", "--pipeline", "hands"]) == 0
    images = set(re.findall(r"image: (\S+)", Path("hands.yaml").read_text()))
    assert images == {"registry.example.com/ours:1"}


def test_a_repository_that_is_there_keeps_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    team = Path("our team")
    subprocess.run(["git", "init", "--quiet", team], check=True)
    (team / ".gitignore").write_bytes(b"caf\xe9\n*.secret")  # not UTF-8
    (team / "README.md").write_text("ours\n")
    (team / "requirements.txt").write_text("numpy\n")
    assert main(["new", str(team)]) == 0
    said = capsys.readouterr().out
    assert "git init" not in said and "\n  cd 'our team'\n" in said
    assert (team / "README.md").read_text() == "ours\n"
    assert (team / "requirements.txt").read_text() == "numpy\n"
    assert (team / ".gitignore").read_bytes() == b"caf\xe9\n*.secret\n" + new.IGNORED.encode()
    assert ignored(team, "a.secret") and ignored(team, "models/masker")
    assert main(["new", str(team / "below")]) == 0
    assert not (team / "below/.git").exists()


@pytest.mark.parametrize("there", ["params.yaml", ".dvc/config"])
def test_nothing_is_replaced(there: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine", there).parent.mkdir(parents=True)
    Path("mine", there).write_text("mine")
    assert main(["new", "mine"]) == 2
    assert capsys.readouterr().err.startswith(f"error: mine/{there}: already exists; give a new folder")
    assert files_of(Path("mine")) == {there: b"mine"}


def test_a_link_to_nothing_is_not_written_through(capsys: pytest.CaptureFixture[str]) -> None:
    Path("dangling").symlink_to("gone")
    Path("mine").mkdir()
    Path("mine/dvc.yaml").symlink_to("../gone")
    for folder, said in (
        ("dangling", "dangling: is a link to gone, which does not exist"),
        ("mine", "mine/dvc.yaml: already exists"),
    ):
        assert main(["new", folder]) == 2
        assert capsys.readouterr().err.startswith(f"error: {said}")
        assert not Path("gone").exists()


def test_what_was_begun_does_not_stay(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine/.gitignore").mkdir(parents=True)
    assert main(["new", "mine"]) == 2
    assert capsys.readouterr().err == "error: mine: cannot be written (Is a directory); choose another folder\n"
    assert not files_of(Path("mine"))


STOPPED = """
import os, sys
from maskcast.__main__ import main

def stop(event, arguments):
    if event == "subprocess.Popen" and "init" in arguments[1]:  # `git init`, after all files are written
        os.kill(os.getpid(), int(sys.argv[1]))

sys.addaudithook(stop)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("number", "exists"), [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGKILL, False)]
)
def test_a_command_that_was_stopped_can_be_repeated(number: int, exists: bool) -> None:
    mine = Path("mine")
    if exists:
        mine.mkdir()
        (mine / "notes").write_text("ours")
    done = subprocess.run([sys.executable, "-c", STOPPED, str(int(number)), "new", "mine"], check=False)
    assert done.returncode == (143 if number == signal.SIGTERM else -number)
    kept = {"notes": b"ours", ".gitignore": new.IGNORED.encode()} if exists else {}
    assert files_of(mine) == kept
    assert main(["new", "mine"]) == 0
    assert (mine / ".dvcignore").exists() and (mine / ".git").is_dir()
    assert (mine / ".gitignore").read_text() == new.IGNORED
    left = [path.name for path in Path().iterdir() if path.name != "mine"]
    assert len(left) == (number == signal.SIGKILL) and all(name.endswith(".partial") for name in left)


def test_a_folder_with_the_name_of_a_temporary_one_stays() -> None:
    Path("mine.partial").mkdir()
    Path("mine.partial/notes").write_text("ours")
    assert main(["new", "mine"]) == 0
    assert files_of(Path("mine.partial")) == {"notes": b"ours"} and Path("mine/.git").is_dir()


def test_what_cannot_be_made_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("clone/pipelines").mkdir(parents=True)
    for name in (
        "dvc.yaml",
        "params.yaml",
        "pipelines/cluster.yaml",
        ".dvc/config",
        ".dvc/.gitignore",
        ".dvcignore",
    ):
        Path("clone", name).parent.mkdir(exist_ok=True)
        Path("clone", name).write_text((ROOT / name).read_text().replace("deps: [src/maskcast,", "deps: [src,"))
    with monkeypatch.context() as patch:
        patch.setattr(new, "shipped_folder", lambda: Path("clone"))
        assert main(["new", "mine"]) == 2
    line = "error: clone/dvc.yaml: missing line `deps: [src/maskcast, params.yaml]`; restore it\n"
    assert capsys.readouterr().err == line
    Path("file").touch()
    assert main(["new", "file"]) == 2
    assert capsys.readouterr().err.startswith("error: file: cannot be written (")
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["new", "mine"]) == 2
    assert capsys.readouterr().err.startswith("error: new: needs Git, which is not installed; e.g.")
    assert not Path("mine").exists()
