"""A real S3 server (SeaweedFS), and a Kubeflow Pipelines server by contract, for the tests that need one."""

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import boto3
import kfp
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from tests.integration import images
from tests.integration.kfp_server import KfpServer
from tests.integration.mlflow_server import mlflow_server
from tests.integration.project import Project
from tests.integration.seaweedfs import CREDENTIALS, SeaweedFS, start_seaweedfs
from tests.integration.warm import warm
from tests.servers import START_S

from maskcast.__main__ import main
from pipelines.client import transport, watch

if TYPE_CHECKING:
    from tests.integration.kube_api import KubeApi

KEYS = {  # the same for boto3
    "aws_access_key_id": CREDENTIALS["AWS_ACCESS_KEY_ID"],
    "aws_secret_access_key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    "region_name": CREDENTIALS["AWS_REGION"],
}
CLUSTER = f"""
image: registry.example.com/maskcast@sha256:{"ab" * 32}
namespace: team
service_account: runner
pipeline_root: s3://bucket/runs
env: {{MLFLOW_TRACKING_URI: "http://mlflow.mlflow.svc:5000"}}
secrets: {{maskcast-s3: [AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]}}
workspace: {{claim: maskcast-workspace}}
pods: {{gpu: {{gpus: 1, shared_memory: 8Gi, retries: 2}}}}
"""


@dataclass(frozen=True)
class S3:
    """A bucket of its own for one test, on a server whose address and keys are in the environment."""

    endpoint: str
    bucket: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}"

    @property
    def client(self):
        return boto3.client("s3", endpoint_url=self.endpoint)


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """Starts SeaweedFS once, when the first test asks for it, and stops it by its process id."""
    server = start_seaweedfs(tmp_path_factory.mktemp("seaweedfs"))
    try:
        _wait_until_writable(server)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def s3_endpoint(seaweedfs: SeaweedFS) -> str:
    """Address of the S3 server."""
    return seaweedfs.endpoint


def _wait_until_writable(server: SeaweedFS) -> None:
    client = boto3.client("s3", endpoint_url=server.endpoint, **KEYS)
    deadline = time.monotonic() + START_S
    while True:
        try:
            client.create_bucket(Bucket="first")
            client.put_object(Bucket="first", Key="probe", Body=b"x")
            client.close()
            return
        except (BotoCoreError, ClientError):
            late = time.monotonic() > deadline
            assert server.process.poll() is None and not late, server.log.read_text(errors="replace")[-3000:]
            time.sleep(0.3)


def new_bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Makes a bucket and sets what clients need to reach it in the environment."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", CREDENTIALS["AWS_REGION"])
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket = S3(endpoint, f"test-{uuid4().hex[:12]}")
    client = bucket.client
    client.create_bucket(Bucket=bucket.bucket)
    client.close()
    return bucket


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A fresh bucket; the environment holds what clients need to reach it."""
    bucket = new_bucket(s3_endpoint, monkeypatch)
    yield bucket
    client = boto3.client("s3", endpoint_url=s3_endpoint, **KEYS)
    client.delete_bucket(Bucket=bucket.bucket)  # and its objects; the disk limits how many have room
    client.close()


@pytest.fixture
def kfp_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    """A Kubeflow Pipelines server that the environment names; clients wait no time between requests."""
    for name in [name for name in os.environ if name.startswith(("KF_PIPELINES_", "KUBERNETES_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setattr(transport, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(transport, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(watch, "POLL_S", 0.01)
    server = KfpServer()
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
    yield server
    server.stop()


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def pipelines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs `maskcast pipeline <arguments>` with the cluster file of the tests."""
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(CLUSTER)

    def run(command: str, *arguments: str) -> Done:
        code = main(["pipeline", command, "--cluster", str(cluster), *arguments])
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["KubeApi"]:
    """A small cluster, which kubectl's configuration names."""
    from tests.integration.kube_api import kube_api, kubeconfig, small_cluster

    with kube_api() as api:
        small_cluster(api)
        (tmp_path / "kubeconfig").write_text(kubeconfig(api.url))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield api


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory, new_tables: Callable[[Path], None]) -> Path:
    """An MLflow database without runs."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    new_tables(path)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[str]:
    """The address of an MLflow server."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "server.db")
    with mlflow_server(folder) as uri:
        yield uri


@pytest.fixture(scope="session")
def programs() -> Iterator[Path]:
    """The folder of commands that start at once."""
    with warm() as folder:
        yield folder


Once = Callable[[str, Callable[[], str]], str]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Once:
    """Returns what a function returned to the first test process that called it under this name."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent

    def call(name: str, make: Callable[[], str]) -> str:
        with (shared / name).open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if not (made := file.read()):
                made = make()
                file.write(made)
                file.flush()
            return made

    return call


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Project:
    """The project in a Git repository after its first `dvc repro`, which is committed.

    It has the torch of the image, where its wheel fits this Python: another version rounds differently. Each test
    process has a copy.
    """
    folder = tmp_path_factory.mktemp("project")

    def run() -> str:
        project = Project.copy_to(folder / "first")
        own = f"-cp{sys.version_info.major}{sys.version_info.minor}-"
        if "TORCH_INDEX" not in os.environ and (wheel := images.cpu_wheel()) and own in wheel.name:
            project.run(
                "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "torch"), str(wheel)
            )
            project.add_packages(folder / "torch")
        project.run("git", "init", "--quiet")
        project.commit("start")
        with warm(project.packages) as programs:
            project.add_programs(programs)
            project.dvc("repro")
        project.commit("first run")
        return str(folder)

    made = Path(once("first-run", run))
    shutil.copytree(made / "first", folder / "copy", symlinks=True)
    project = Project(folder / "copy")
    if (made / "torch").is_dir():
        project.add_packages(made / "torch")
    return project


@pytest.fixture(scope="session")
def warm_first_run(first_run: Project) -> Iterator[Project]:
    """The first run, whose commands start at once and have another hash seed than those that DVC has run."""
    project = Project(first_run.folder)
    if first_run.packages is not None:
        project.add_packages(first_run.packages)
    with warm(project.packages) as programs:
        project.add_programs(programs)
        yield project


@pytest.fixture(scope="session")
def image(once: Once) -> str:
    """Name of the image built from the working tree."""
    return once("image", images.build)
