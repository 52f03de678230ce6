"""Where the embedded store of runs is, and what another needs."""

import os
import queue
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import ROOT
from tests.servers import Handler, Server

from maskcast import progress
from maskcast.diagnostics.tracking import check_run_storage
from maskcast.errors import MaskcastError
from maskcast.runner.mlflow_client import new_client
from maskcast.runner.mlflow_errors import MIN_SERVER
from maskcast.runner.mlflow_uri import default_folder


@pytest.mark.parametrize(
    ("working", "roots", "kept"),
    [
        ("project", [""], "project"),
        ("project/.dvc/tmp/exps/tmpab", ["", ".dvc/tmp/exps/tmpab"], "project"),
        ("project/.dvc/tmp/exps/tmpab/sub", ["", ".dvc/tmp/exps/tmpab"], "project/sub"),
        # the root of DVC below that of Git: the copy is of the latter
        ("project/r/.dvc/tmp/exps/tmpab/r", ["r", "r/.dvc/tmp/exps/tmpab/r"], "project/r"),
        ("project/tmp/exps/tmpab", [""], "project/tmp/exps/tmpab"),
    ],
)
def test_it_is_in_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, working: str, roots: list[str], kept: str
) -> None:
    (tmp_path / working).mkdir(parents=True)
    for root in roots:
        (tmp_path / "project" / root / ".dvc").mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / working)
    assert default_folder() == tmp_path / kept


def test_a_database_without_its_driver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://me:pw-of-me@127.0.0.1:1/mlflow")
    with pytest.raises(MaskcastError, match="needs the Python module psycopg, which is not installed") as caught:
        new_client()
    assert "pw-of-me" not in str(caught.value)


ASKED = """
import sys, threading
asked = []
def hook(event, words):
    if event == "socket.getaddrinfo":
        asked.append(words[0])
        raise OSError("tests ask nobody outside")
sys.addaudithook(hook)
from maskcast.runner.mlflow_client import new_client
new_client().create_run("0")
[thread.join() for thread in threading.enumerate() if "Telemetry" in thread.name]
print(asked)
"""


@pytest.mark.parametrize(("given", "asked"), [({}, "[]"), ({"MLFLOW_DISABLE_TELEMETRY": "false"}, "telemetry")])
def test_no_host_is_told_of_a_run_unless_one_wants_it(
    tmp_path: Path, given: dict[str, str], asked: str, new_tables: Callable[[Path], None]
) -> None:
    new_tables(tmp_path / "mlflow.db")
    # MLflow is quiet in tests, too
    quiet = ("CI", "PYTEST_CURRENT_TEST", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in quiet} | given
    command = [sys.executable, "-c", ASKED]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert asked in done.stdout


@pytest.mark.parametrize(("given", "expected"), [(None, "false"), ("true", "true")])
def test_files_go_through_the_server_unless_one_wants_another_way(
    monkeypatch: pytest.MonkeyPatch, new_tables: Callable[[Path], None], tmp_path: Path, given: str, expected: str
) -> None:
    new_tables(tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    names = [f"MLFLOW_ENABLE_PROXY_MULTIPART_{way}" for way in ("DOWNLOAD", "UPLOAD")]
    for name in names:
        monkeypatch.setenv(name, given or "")
        if given is None:
            monkeypatch.delenv(name)
    new_client()
    assert [os.environ[name] for name in names] == [expected] * 2


def test_an_old_server_is_refused_wherever_it_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old(Handler):
        """Says its version, as MLflow does, and knows nothing else."""

        def do_GET(self) -> None:
            is_version = self.path == "/version"
            self.send_response(200 if is_version else 404)
            self.end_headers()
            self.wfile.write(b"2.22.0" if is_version else b"")

    with Server(Old) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        for asks in (new_client, lambda: check_run_storage(server.url)):
            with pytest.raises(
                MaskcastError, match=r"has version 2\.22\.0, which is too old; upgrade it to 3\.1 "
            ):
                asks()


def test_a_server_that_does_not_answer_at_once_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Starting(Handler):
        """Closes the first connection without an answer."""

        def do_GET(self) -> None:
            asked.append(self.path)
            if len(asked) > 1:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(MIN_SERVER.encode())

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with Server(Starting) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        new_client()
    assert asked == ["/version", "/version"]


def test_the_wait_for_a_server_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: queue.Queue[str] = queue.Queue()
    heard = []

    class Slow(Handler):
        """Answers only after the user was told."""

        def do_GET(self) -> None:
            heard.append(said.get(timeout=60))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(MIN_SERVER.encode())

    monkeypatch.setattr(progress, "SLOW_S", 0.01)
    monkeypatch.setattr(progress, "say", said.put)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "100")
    with Server(Slow) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        new_client()
        assert heard == [f"waiting for a response of {server.url}"]


def test_the_oldest_server_is_documented() -> None:
    assert f"MLflow ({MIN_SERVER} or later)" in (ROOT / "docs/servers.md").read_text()
