"""`maskcast doctor` in a real Git and DVC repository, with a real MLflow server, and with what is broken."""

import re
import shutil
import subprocess
import threading
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.conftest import ROOT
from tests.integration.conftest import S3
from tests.integration.mlflow_server import mlflow_server
from tests.servers import free_ports

from maskcast import installation, resources
from maskcast.__main__ import main
from maskcast.diagnostics import dvc_remote, machine, software, tracking
from maskcast.diagnostics.checks import Check, CheckResult, run_checks
from maskcast.errors import MaskcastError
from maskcast.params import Params
from maskcast.runner.provenance import run_tags

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Git and DVC repository with a remote, in which commands run."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("COLUMNS", "300")  # no path is broken
    git("init", "--quiet")
    (folder / ".dvc").mkdir()  # what `dvc init` makes, in no time
    settings = f"[core]\n    remote = team\n['remote \"team\"']\n    url = {tmp_path / 'remote'}\n"
    (folder / ".dvc/config").write_text(settings)
    git("add", "--all")
    git("-c", "user.name=Test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message", "start")
    return folder


def git(*words: str) -> None:
    subprocess.run(["git", *words], check=True)


def found(*checks: Check) -> dict[str, CheckResult]:
    return {row.check: row for row in run_checks({f"check {n}": check for n, check in enumerate(checks)})}


def test_what_is_there_is_ok_and_nothing_stays(
    project: Path,
    tmp_path: Path,
    empty_database: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-secret-word")
    (tmp_path / "server").mkdir()
    shutil.copy(empty_database, tmp_path / "server/server.db")
    with mlflow_server(tmp_path / "server") as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        code = main(["doctor"])
    said = capsys.readouterr().out
    text = " ".join(said.split())
    assert "missing" not in said.split(), said
    assert code == 0
    assert f"team: {tmp_path}/remote, is writable" in text
    assert "stores runs and their files" in text
    assert f"torch {metadata.version('torch')}" in text
    assert "a-secret-word" not in said
    assert not (tmp_path / "remote").exists()
    assert not (project / "mlflow.db").exists()


def test_what_is_broken_is_named_with_its_remedy_and_without_secrets(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "remote").write_text("a file where the remote should be")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:hunter22@127.0.0.1:{free_ports(1)[0]}")
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    text = " ".join(said.split())
    assert f"missing DVC remote team: {tmp_path}/remote: cannot be written" in text
    assert "missing MLflow http://***@127.0.0.1" in text
    assert "-> check that it is running" in text
    assert "hunter22" not in said


def test_a_pipeline_outside_of_repositories_is_told_how_to_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    seen = found(software.git, dvc_remote.dvc)
    assert (seen["Git"].state, seen["Git"].remedy) == ("missing", "git init")
    assert (seen["DVC"].state, seen["DVC"].remedy) == (
        "missing",
        "run `dvc init` in the root of the Git repository",
    )


@pytest.fixture
def repository(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that Git takes for another user's, and an empty home."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    return project


def test_a_repository_of_another_user_is_told_with_gits_own_remedy(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for root in a container, with the project mounted."""
    remedy = f"git config --global --add safe.directory {repository}"
    (row,) = software.git()
    assert (row.state, row.remedy) == ("missing", f"run `{remedy}`")
    assert f"detected dubious ownership in repository at '{repository}'" in row.found
    assert [run_tags("evaluate", Params(), {})["maskcast.git_sha"] for _ in range(2)] == ["none", "none"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "warning: runs and models are recorded without a commit, because Git failed: git rev-parse"
    )
    assert line.endswith(f"; run `{remedy}`")
    subprocess.run(remedy.split(), check=True)
    (row,) = software.git()
    assert row.state == "ok"
    assert re.fullmatch("[0-9a-f]{40}", run_tags("evaluate", Params(), {})["maskcast.git_sha"])


def test_a_commit_whose_changes_git_cannot_tell_is_not_called_clean(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GIT_TEST_ASSUME_DIFFERENT_OWNER")
    (repository / ".git/index").write_bytes(b"no index")  # which `status` reads
    (row,) = software.git()
    assert row.state == "warning" and "git status: " in row.found
    assert re.fullmatch("[0-9a-f]{40}-unknown-dirty", run_tags("evaluate", Params(), {})["maskcast.git_sha"])
    assert "is not known, because Git failed: git status: " in capsys.readouterr().err


def test_a_folder_without_a_pipeline_needs_neither_git_nor_dvc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs one stage."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no Git
    seen = found(software.git, dvc_remote.dvc)
    assert {row.state for row in seen.values()} == {"ok"}
    assert seen["Git"].found == seen["DVC"].found == "not needed: no dvc.yaml and no repository here or above"
    (tmp_path / ".git").mkdir()
    assert found(software.git)["Git"].found == "is not installed"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({}, "NoCredentialsError: Unable to locate credentials"),
        ({"AWS_ACCESS_KEY_ID": "maskcast"}, "PartialCredentialsError: Partial credentials found in env"),
        ({"AWS_ACCESS_KEY_ID": "maskcast", "AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "PermissionError: "),
    ],
)
def test_a_remote_that_refuses_is_named_with_the_variables_to_set(
    project: Path, s3: S3, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], reason: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    remote = f"[core]\n    remote = team\n['remote \"team\"']\n    url = {s3.uri}/dvc\n"
    (project / ".dvc/config").write_text(f"{remote}    endpointurl = {s3.endpoint}\n")
    row = found(dvc_remote.dvc)["DVC remote"]
    assert row.state == "missing"
    assert row.found.startswith(f"team: {s3.uri}/dvc at {s3.endpoint}: cannot be written ({reason}")
    assert row.remedy == (
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; check URL and permissions: "
        "`dvc remote list`, `dvc remote modify --local team ...`"
    )


def test_a_project_without_remote_or_with_torn_settings(project: Path) -> None:
    (project / ".dvc/config").write_text("")
    assert found(dvc_remote.dvc)["DVC remote"].remedy == "dvc remote add -d team s3://bucket/dvc"
    (project / ".dvc/config").write_text("[core\n")
    assert found(dvc_remote.dvc)["DVC"].state == "missing"
    assert dvc_remote.cache_folder(project) == project / ".dvc/cache"


def test_the_cache_is_where_dvc_is_told_to_keep_it(project: Path, tmp_path: Path) -> None:
    (project / ".dvc/config").write_text("[cache]\n    dir = ../../cache\n")  # as `dvc cache dir` writes it
    assert dvc_remote.cache_folder(project).resolve() == tmp_path / "cache"
    (project / ".dvc/config.local").write_text(f"[cache]\n    dir = {tmp_path / 'own'}\n")
    assert dvc_remote.cache_folder(project) == tmp_path / "own"


def test_a_database_that_is_none(project: Path) -> None:
    assert found(tracking.mlflow)["MLflow"].found.endswith("the first run creates it")
    (project / "mlflow.db").write_text("no database")
    assert "not an SQLite database" in found(tracking.mlflow)["check 0"].found


def test_packages_that_lack_or_are_too_old_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["numpy>=2", "torch>=99; extra == 'train'", "maskcast-lacks-this>=1; extra == 'cluster'"]
    monkeypatch.setattr(software, "requires", lambda _: asked)
    seen = found(software.packages)
    assert seen["maskcast[train]"].state == "missing"
    assert (
        seen["maskcast[train]"].found
        == f"torch {metadata.version('torch')}, not >=99 (for training and forecasts)"
    )
    assert seen["maskcast[train]"].remedy == "`make install`, or pip install --upgrade 'maskcast[train]'"
    assert (seen["maskcast[cluster]"].state, seen["maskcast[export]"].state) == ("warning", "ok")


def test_an_installed_package_is_told_of_no_makefile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pipelines/cli.py", "components/_image.py"):
        (tmp_path / "shipped" / name).parent.mkdir(parents=True)
        (tmp_path / "shipped" / name).touch()
    monkeypatch.setattr(installation, "IN_WHEEL", tmp_path / "shipped")
    monkeypatch.setattr(installation, "CLONE", tmp_path)
    monkeypatch.setattr(software, "requires", lambda _: ["torch>=99; extra == 'train'"])
    assert found(software.packages)["maskcast[train]"].remedy == "pip install --upgrade 'maskcast[train]'"
    monkeypatch.setattr(machine, "_driver", lambda: ("580.1", ""))
    monkeypatch.setattr("torch.cuda", cuda(is_available=lambda: False))
    monkeypatch.setattr("torch.version.cuda", None)
    assert found(machine.gpus)["GPU"].remedy == "install the CUDA build: https://pytorch.org/get-started"


def test_video_files_are_fine_if_one_can_be_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = found(software.video)["video files"]
    assert (row.state, row.found.endswith(", with H.264")) == ("ok", True)
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/sample.mp4").write_text("no video")
    monkeypatch.setattr(software, "PACKAGE", tmp_path)
    row = found(software.video)["video files"]
    assert (row.state, row.remedy) == ("missing", "pip install --upgrade 'maskcast[data]'")
    assert "sample.mp4: damaged or not a video" in row.found


def test_an_image_without_torchvision_is_told_what_it_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "IN_WHEEL", tmp_path)
    monkeypatch.setattr(installation, "CLONE", tmp_path)

    def version(name: str) -> str:
        if name in ("segmentation-models-pytorch", "torchvision"):
            raise metadata.PackageNotFoundError
        return metadata.version(name)

    monkeypatch.setattr(software, "version", version)
    row = found(software.packages)["maskcast[train]"]
    assert row.state == "warning"
    assert "torchvision is missing" in row.found and "segmentation-models-pytorch is missing" in row.found
    assert row.remedy == "use an image that has them (docs/images.md) for models and commands that need them"
    monkeypatch.setattr(installation, "CLONE", ROOT)
    assert found(software.packages)["maskcast[train]"].state == "missing"


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "state"), [(20, "ok"), (5, "warning"), (0.5, "missing")])
def test_room_on_a_disk(free: float, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gib = machine.GIB
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: Usage(100 * gib, 0, int(free * gib)))
    (row,) = [row for row in machine.disks({"outputs": tmp_path / "not/yet"}) if row.check == "disk"]
    assert (row.state, str(tmp_path) in row.found) == (state, True)
    shared = [row for row in machine.disks({}) if row.check == "shared memory"]
    assert [row.state for row in shared] in ([], ["warning" if free < 1 else "ok"])


def test_memory_is_that_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    monkeypatch.setattr(resources, "_groups", lambda: ["0::/", "4:memory:/pod"])
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.memory_limit() is None
    (tmp_path / "memory/pod").mkdir(parents=True)
    (tmp_path / "memory/memory.limit_in_bytes").write_text(f"{2**63 - 4096}\n")  # as version 1 says: none
    (tmp_path / "memory/pod/memory.limit_in_bytes").write_text(f"{2**30}\n")
    assert resources.memory_limit() == 2**30
    row = found(machine.memory)["memory"]
    assert row.state == "warning"
    assert "of 1.0 GiB, the limit of the container" in row.found


def cuda(**known: object) -> SimpleNamespace:
    about = SimpleNamespace(name="H100", total_memory=80 * machine.GIB, major=9, minor=0)
    default = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_arch_list": lambda: ["sm_90", "sm_90a"],
    }
    return SimpleNamespace(**{**default, "get_device_properties": lambda _: about, **known})


@pytest.mark.parametrize(
    ("driver", "built", "seen", "state", "said"),
    [
        (("580.1", ""), "13.0", cuda(), "ok", "H100, 80.0 GiB, driver 580.1"),
        (
            ("580.1", ""),
            "13.0",
            cuda(get_arch_list=lambda: ["sm_80"]),
            "warning",
            "not built for compute capability (9.0)",
        ),
        (
            ("470.1", ""),
            "13.0",
            cuda(is_available=lambda: False),
            "warning",
            "driver 470.1 is not accessible, or too old",
        ),
        (("580.1", ""), None, cuda(is_available=lambda: False), "warning", "is built without CUDA"),
        (("", "Driver/library version mismatch"), "13.0", cuda(is_available=lambda: False), "warning", "mismatch"),
        (("", ""), "13.0", cuda(is_available=lambda: False), "ok", "runs on the CPU"),
    ],
)
def test_a_gpu_that_pytorch_does_not_see_is_explained(
    driver: tuple[str, str],
    built: str | None,
    seen: SimpleNamespace,
    state: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "_driver", lambda: driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda", seen)
    monkeypatch.setattr("torch.version.cuda", built)
    (row,) = machine.gpus()
    assert (row.state, said in row.found) == (state, True), row


def test_a_check_that_is_late_or_breaks_stops_no_other() -> None:
    over = threading.Event()

    def late():
        over.wait()
        yield CheckResult("late", "ok", "")

    def broken():
        yield CheckResult("first", "ok", "")
        raise RuntimeError("[red]odd\nthing[/red]")

    def mistaken():
        raise MaskcastError("is wrong; fix it")
        yield

    checks = {"late": late, "broken": broken, "mistaken": mistaken, "slow": late}
    seen = run_checks(checks, limit_s=3, local={"slow", "broken"})
    over.set()
    assert [(row.state, row.check) for row in seen] == [
        ("missing", "late"),
        ("ok", "first"),
        ("missing", "broken"),
        ("missing", "mistaken"),
        ("missing", "slow"),
    ]
    assert seen[0].found == seen[4].found == "no response in 3 s"
    assert seen[0].remedy == "check that its server is running and reachable"
    assert seen[4].remedy == "the disk or processor is slow or busy: run it again"  # it asks no server
    assert (seen[3].found, seen[3].remedy) == ("is wrong", "fix it")


def test_the_rows_of_a_cluster_are_those_of_preflight(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        CheckResult("nodes", "failed", "none fits", "ask for less"),
        CheckResult("quota", "not checked", "forbidden"),
    ]
    monkeypatch.setattr("pipelines.client.preflight.check_cluster", lambda file: asked)
    assert main(["doctor", "--cluster", "my-cluster.yaml"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "missing cluster: nodes none fits -> ask for less" in text
    assert "warning cluster: quota forbidden" in text
