"""The checks of preflight that talk to S3, MLflow and a DVC remote, against real servers."""

import base64
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import urllib3
from tests.integration.conftest import S3
from tests.integration.kube_api import KubeApi, cluster_file
from tests.integration.test_tracking import mlflow_server
from tests.integration.tls import TlsServer, self_signed
from tests.servers import Handler, Server, free_ports
from urllib3.util import Retry

from maskcast.diagnostics.checks import CheckResult
from maskcast.diagnostics.tracking import check_run_storage
from maskcast.errors import MaskcastError
from maskcast.storage import store as storage
from pipelines.client import preflight as preflight_module
from pipelines.client.connection import NoServerError
from pipelines.client.preflight import preflight
from pipelines.cluster import load_cluster

NO_SERVER = NoServerError("no server; give --host")
KEYS = {"AWS_ACCESS_KEY_ID": "maskcast", "AWS_SECRET_ACCESS_KEY": "maskcast-secret"}


def row(name: str, cluster: Path, uri: str = "synthetic") -> CheckResult:
    (found,) = [
        row for row in preflight(load_cluster(cluster), {}, uri, NO_SERVER, "kubeflow") if row.check == name
    ]
    return found


def said(found: CheckResult) -> str:
    return f"{found.state}: {found.found} -> {found.remedy}"


def give_keys(api: KubeApi, monkeypatch: pytest.MonkeyPatch, **keys: str) -> None:
    """Puts keys where only pods have them: into the secret, not into this machine's environment."""

    for name in KEYS:
        monkeypatch.delenv(name)
    api.put(
        "secrets", "maskcast-s3", "team", data={k: base64.b64encode(v.encode()).decode() for k, v in keys.items()}
    )


def on_s3(folder: Path, s3: S3, root: str = "runs", **env: str) -> Path:
    env = {"AWS_ENDPOINT_URL_S3": s3.endpoint, "AWS_DEFAULT_REGION": "us-east-1"} | env
    return cluster_file(folder, env=env, pipeline_root=f"{s3.uri}/{root}")


def test_artifacts_are_written_with_the_keys_of_the_pods_and_nothing_stays(kube, s3, tmp_path, monkeypatch):
    give_keys(kube, monkeypatch, **KEYS)
    found = row("artifacts", on_s3(tmp_path, s3))
    assert said(found) == f"ok: {s3.uri}/runs is writable -> "
    with monkeypatch.context() as environment:
        for name, value in KEYS.items():
            environment.setenv(name, value)
        assert "Contents" not in s3.client.list_objects_v2(Bucket=s3.bucket)


def test_keys_that_s3_refuses_fail(kube, s3, tmp_path, monkeypatch):
    give_keys(kube, monkeypatch, AWS_ACCESS_KEY_ID="other", AWS_SECRET_ACCESS_KEY="other")
    found = row("artifacts", on_s3(tmp_path, s3))
    assert re.match("failed: .*access denied .* -> check AWS_ACCESS_KEY_ID", said(found))


def test_a_bucket_that_is_not_there_fails(kube, s3, tmp_path):
    found = row("data", on_s3(tmp_path, s3), "s3://nowhere/videos")
    assert re.match("failed: s3://nowhere/videos: bucket 'nowhere' does not exist -> create it", said(found)), (
        found
    )


def test_a_server_that_is_silent_fails_in_time(kube, s3, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight_module, "LIMIT_S", 5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cluster = on_s3(tmp_path, s3, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{silent.getsockname()[1]}")
        found = row("artifacts", cluster)
    assert said(found) == "failed: no response in 5 s -> check that its server is running and reachable"


def test_an_address_of_the_cluster_is_checked_where_a_port_is_forwarded(kube, s3, tmp_path):
    cluster = on_s3(tmp_path, s3, AWS_ENDPOINT_URL_S3="http://s3.storage.svc:8333")
    assert said(row("artifacts", cluster)) == f"ok: {s3.uri}/runs is writable -> "  # the fixture names where


def test_a_data_set_on_s3_is_there_whole(kube, s3, tmp_path):
    cluster = on_s3(tmp_path, s3)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(b"12345")
    storage.put(tmp_path / "videos", f"{s3.uri}/videos")
    assert said(row("data", cluster, f"{s3.uri}/videos")).startswith(f"ok: {s3.uri}/videos: 2 objects")
    assert re.match("failed: .*no objects found -> fix the address", said(row("data", cluster, f"{s3.uri}/other")))
    s3.client.put_object(Bucket=s3.bucket, Key=f"videos/{storage.INCOMPLETE}", Body=b"")
    assert re.match(
        "failed: .*incomplete upload .* -> upload the data", said(row("data", cluster, f"{s3.uri}/videos"))
    )


@pytest.mark.parametrize(
    "uri", ["data/raw", "/data/raw.zip", "file:///data/raw", "dvc:data/raw.dvc", "dvc:../repo#raw"]
)
def test_files_of_this_machine_are_no_data_for_pods(kube, tmp_path, uri):
    found = row("data", cluster_file(tmp_path), uri)
    assert said(found).startswith(f"failed: {uri}: pods cannot read this machine's files -> copy it to s3:// or")


@pytest.mark.parametrize("uri", ["/workspace/raw", "file:///workspace/my%20raw"])
def test_what_lies_on_the_workspace_only_pods_see(kube, tmp_path, uri):
    found = row("data", cluster_file(tmp_path), uri)
    assert said(found) == f"not checked: {uri} is on the workspace volume, which only pods can read -> "


@pytest.fixture
def repository(s3: S3, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A Git repository with a data set that DVC tracks, not yet pushed to its remote on S3, and its Git URL."""
    folder = tmp_path / "git/videos"
    (folder / "raw").mkdir(parents=True)
    (folder / "raw/a.mp4").write_bytes(b"1")
    (folder / "raw/b.mp4").write_bytes(b"2")
    (folder / ".dvc").mkdir()
    remote = f"['remote \"team\"']\n    url = {s3.uri}/dvc\n    endpointurl = {s3.endpoint}\n"
    (folder / ".dvc/config").write_text(f"[core]\n    remote = team\n{remote}")
    for command in (
        "git init -q -b main",
        "dvc add -q raw",
        "git add -A",
        "git -c user.name=Test -c user.email=test@localhost commit -q -m data",
    ):
        words = command.split()
        words = [sys.executable, "-m", *words] if words[0] == "dvc" else words
        subprocess.run(words, cwd=folder, check=True)
    (port,) = free_ports(1)
    git = shutil.which("git")
    assert git
    command = [git, "daemon", "--export-all", "--reuseaddr", f"--base-path={tmp_path / 'git'}"]
    server = subprocess.Popen([*command, "--listen=127.0.0.1", f"--port={port}"], start_new_session=True)
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None
        yield folder, f"git://127.0.0.1:{port}/videos"
    finally:
        server.terminate()
        server.wait()


def test_a_dvc_pointer_is_there_once_it_is_pushed(kube, s3, tmp_path, repository):
    folder, url = repository
    cluster = on_s3(tmp_path, s3)
    found = said(row("data", cluster, f"dvc:{url}#raw"))
    assert re.match(r"failed: .*#raw: not in its remote .* -> run `dvc push`", found), found
    subprocess.run([sys.executable, "-m", "dvc", "push", "-q"], cwd=folder, check=True)
    assert said(row("data", cluster, f"dvc:{url}#raw")) == f"ok: dvc:{url}#raw: in its remote, 2 files -> "
    found = said(row("data", cluster, f"dvc:{url}#other"))
    assert re.match("failed: .*'other' not found in .* -> fix the path or push the commit", found), found


def test_a_repository_that_does_not_answer_fails(kube, tmp_path):
    (port,) = free_ports(1)
    found = said(row("data", cluster_file(tmp_path), f"dvc:git://127.0.0.1:{port}/videos#raw"))
    assert re.match("failed: .* cannot be cloned .*refused.* -> check URL", found), found


@pytest.fixture(scope="module")
def tracking_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    shutil.copy(empty_database, folder / "server.db")
    with mlflow_server(folder) as uri:
        retry = Retry(connect=60, backoff_factor=1, backoff_max=2)  # on a busy machine it starts slowly
        assert urllib3.request("GET", f"{uri}/health", retries=retry).status == 200
        yield uri


def test_mlflow_keeps_a_run_and_its_file_and_neither_stays(kube, tmp_path, tracking_server):
    cluster = cluster_file(tmp_path, env={"MLFLOW_TRACKING_URI": tracking_server})
    found = row("MLflow", cluster)
    assert said(found) == f"ok: {tracking_server}: version {mlflow.__version__}, stores runs and their files -> "
    client = mlflow.MlflowClient(tracking_server)
    experiment = client.get_experiment_by_name("maskcast")
    assert experiment is not None
    assert client.search_runs([experiment.experiment_id]) == []
    (deleted,) = client.search_runs(
        [experiment.experiment_id], run_view_type=mlflow.entities.ViewType.DELETED_ONLY
    )
    assert client.list_artifacts(deleted.info.run_id) == []
    assert row("MLflow", cluster).state == "ok"  # the experiment is there now


def test_mlflow_that_cannot_keep_runs_fails(kube, tmp_path, tracking_server):
    env = {"MLFLOW_TRACKING_URI": tracking_server, "MLFLOW_EXPERIMENT_NAME": "gone"}
    client = mlflow.MlflowClient(tracking_server)
    client.delete_experiment(client.create_experiment("gone"))
    found = said(row("MLflow", cluster_file(tmp_path, env=env)))
    assert re.match("failed: .*MLflow returned 400 .*INVALID_PARAMETER_VALUE.* -> see its log", found), found


class LockedMlflow(Handler):
    """As much of MLflow as preflight asks for, behind a password."""

    file = b""

    def do_GET(self) -> None:
        is_file = self.path.endswith("/preflight.txt")
        self._answer(type(self).file if is_file else {"experiment": {"experiment_id": "1"}})

    def do_POST(self) -> None:
        self._answer({"run": {"info": {"run_id": "r", "artifact_uri": "mlflow-artifacts:/1/r/artifacts"}}})

    def do_PUT(self) -> None:
        type(self).file = self._answer({})

    do_DELETE = do_GET

    def _answer(self, content: dict[str, Any] | bytes) -> bytes:
        """Returns the body of the request."""
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        known = self.headers["Authorization"] == "Basic " + base64.b64encode(b"team:right").decode()
        self.send_response(200 if known else 401)
        self.end_headers()
        answer = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.wfile.write(answer if known else b"You are not authenticated")
        return body


class MlflowWithoutFiles(LockedMlflow):
    """A server that takes no files, as a proxy without their route has it."""

    def do_PUT(self) -> None:
        self.send_error(404)


class MlflowThatLosesFiles(LockedMlflow):
    """A server that takes files and hands out others, as a proxy with a cache has it."""

    def do_PUT(self) -> None:
        self._answer({})


class NoMlflow(LockedMlflow):
    """A server that answers all with JSON of its own."""

    def do_GET(self) -> None:
        self._answer({"status": "ok"})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (MlflowWithoutFiles, "failed: .*MLflow returned 404 .* -> see its log"),
        (MlflowThatLosesFiles, "failed: .*: data read back differs from data written -> fix the server"),
        (NoMlflow, "failed: .*: not a response of MLflow .missing key 'experiment'. -> fix MLFLOW_TRACKING_URI"),
    ],
)
def test_mlflow_that_cannot_keep_files_fails(kube, tmp_path, kind, expected):
    with Server(kind) as server:
        uri = f"http://team:right@127.0.0.1:{server.server_port}"
        data = {"MLFLOW_TRACKING_URI": base64.b64encode(uri.encode()).decode()}
        kube.put("secrets", "maskcast-mlflow", "team", data=data)
        found = said(row("MLflow", cluster_file(tmp_path, env={}, secrets={"maskcast-mlflow": list(data)})))
    assert re.match(expected, found, re.DOTALL), found


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        ("right", "ok: http://(\\*{3}@)?127.0.0.1:[0-9]+: version .*, stores runs and their files"),
        (
            "wrong",
            "failed: http://.*127.0.0.1:.*denied access .401: You are not authenticated.* -> check user, password",
        ),
    ],
)
@pytest.mark.parametrize("inline", [False, True])
def test_mlflow_is_asked_with_the_credentials_of_the_pods(kube, tmp_path, password, expected, inline):
    with Server(LockedMlflow) as server:
        address = f"127.0.0.1:{server.server_port}"
        values = {"MLFLOW_TRACKING_URI": f"http://team:{password}@{address}" if inline else f"http://{address}"}
        if not inline:
            values |= {"MLFLOW_TRACKING_USERNAME": "team", "MLFLOW_TRACKING_PASSWORD": password}
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        kube.put("secrets", "maskcast-mlflow", "team", data=data)
        found = said(row("MLflow", cluster_file(tmp_path, env={}, secrets={"maskcast-mlflow": list(values)})))
    assert re.match(expected, found), found
    assert password not in found


def test_a_certificate_of_one_s_own_is_trusted_as_stages_trust_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "team")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "right")
    with TlsServer(LockedMlflow, self_signed(tmp_path / "authority.pem")) as server:
        with pytest.raises(MaskcastError, match=r"is unreachable .*certificate.*; use http://"):
            check_run_storage(server.url)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "authority.pem"))
        check_run_storage(server.url)
        monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        with pytest.warns(urllib3.exceptions.InsecureRequestWarning):
            check_run_storage(server.url)


def test_another_server_is_not_mlflow(kube, s3, tmp_path):
    found = said(row("MLflow", cluster_file(tmp_path, env={"MLFLOW_TRACKING_URI": s3.endpoint})))
    assert re.match("failed: .*MLflow denied access .403.* -> check user, password", found), found
    found = said(row("MLflow", cluster_file(tmp_path, env={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})))
    assert re.match("failed: http://127.0.0.1:9: MLflow is unreachable .*refused", found), found
