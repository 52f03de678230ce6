"""The way to a Kubeflow Pipelines server: who asks, what it may answer, and one line for what goes wrong."""

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import kfp
import pytest
from kfp_server_api.exceptions import ApiException
from tests.integration.conftest import Done
from tests.integration.kfp_server import KfpServer
from tests.integration.tls import self_signed

from pipelines.client import connection, transport

Cli = Callable[..., Done]
SECRET = "a-token-nobody-may-see"


def one_line(done: Done) -> str:
    """Returns the one line a command failed with."""
    assert done.code == 2, done
    assert done.out == ""
    assert SECRET not in done.err
    (line,) = [line for line in done.err.splitlines() if "retrying in" not in line]
    return line.removeprefix("error: ")


def sent(kfp_server: KfpServer, header: str) -> set[str | None]:
    return {headers.get(header) for headers in kfp_server.headers}


def test_a_token_comes_from_the_environment(
    kfp_server: KfpServer, pipelines: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp_server.token = SECRET
    assert "credentials are missing, wrong or expired" in one_line(pipelines("status"))
    monkeypatch.setenv("KF_PIPELINES_TOKEN", SECRET)
    assert pipelines("status").code == 0
    monkeypatch.setenv("KF_PIPELINES_TOKEN", f"{SECRET}-of-yesterday")
    assert "answers 401" in one_line(pipelines("status"))


@pytest.mark.parametrize("name", ["KF_PIPELINES_TOKEN", "KF_PIPELINES_COOKIE"])
@pytest.mark.parametrize("added", ["\n", "\u201d"])
def test_a_secret_that_no_header_holds_is_named_and_not_shown(
    kfp_server: KfpServer, pipelines: Cli, monkeypatch: pytest.MonkeyPatch, name: str, added: str
) -> None:
    monkeypatch.setenv(name, SECRET + added)
    assert (
        one_line(pipelines("status"))
        == f"{name}: contains line breaks or non-ASCII characters; set it again without them"
    )


def test_a_token_file_goes_first_and_is_read_anew_for_each_request(
    kfp_server: KfpServer, pipelines: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "wrong")
    token = tmp_path / "token"
    token.write_text("first\n")
    kfp_server.token = "first"

    def renew() -> None:
        kfp_server.token = "second"
        token.write_text("second\n")
        kfp_server.then = None

    kfp_server.stored["runs"]["run-9"] = {"run_id": "run-9", "state": "RUNNING"}
    kfp_server.then = renew
    assert pipelines("cancel", "run-9", "--token-file", str(token)).code == 0
    assert sent(kfp_server, "Authorization") == {"Bearer first", "Bearer second"}


@pytest.mark.parametrize("content", [None, "", "\xff", "one\ntwo"])
def test_a_token_file_without_a_token_is_named(
    kfp_server: KfpServer, pipelines: Cli, tmp_path: Path, content: str | None
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content.encode("latin-1"))
    assert str(token) in one_line(pipelines("status", "--token-file", str(token)))
    assert kfp_server.asked == []


def test_a_cookie_comes_from_the_environment_or_from_what_kfp_keeps(
    kfp_server: KfpServer, pipelines: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp_server.cookie = "authservice_session=abc"
    kept = Path(kfp.Client._LOCAL_KFP_CONTEXT)
    kept.write_text(json.dumps({"namespace": "other", "client_authentication_cookie": kfp_server.cookie}))
    assert pipelines("status").code == 0
    kept.write_text("{")
    assert "~/.config/kfp" in one_line(pipelines("status"))
    kept.unlink()
    monkeypatch.setenv("KF_PIPELINES_COOKIE", kfp_server.cookie)
    assert pipelines("status").code == 0


def test_a_token_and_a_cookie_are_both_sent_with_every_request(
    kfp_server: KfpServer, pipelines: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp_server.cookie, kfp_server.token = "authservice_session=abc", "of-ann"
    monkeypatch.setenv("KF_PIPELINES_COOKIE", kfp_server.cookie)
    monkeypatch.setenv("KF_PIPELINES_TOKEN", kfp_server.token)
    assert pipelines("status").code == 0
    assert len(kfp_server.headers) > 1
    assert sent(kfp_server, "Authorization") == {"Bearer of-ann"}
    assert sent(kfp_server, "Cookie") == {kfp_server.cookie}


def test_in_a_pod_its_service_account_asks_the_own_cluster(
    kfp_server: KfpServer, pipelines: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("of the pod")
    monkeypatch.setattr(connection, "KF_PIPELINES_SA_TOKEN_PATH", str(token))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert pipelines("status").code == 0
    assert sent(kfp_server, "Authorization") == {None}  # a server named by hand is not given it
    monkeypatch.setattr(connection, "IN_CLUSTER", kfp_server.url)
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    kfp_server.token = "of the pod"
    assert pipelines("status").code == 0


def test_no_server_and_no_address_are_said(
    kfp_server: KfpServer, pipelines: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    assert "give --host or --port-forward" in one_line(pipelines("status"))
    for host in ("localhost:8080", "ftp://localhost", "http://", "http://[::1"):
        assert "use e.g. https://" in one_line(pipelines("status", "--host", host))
    assert "contains a password" in one_line(pipelines("status", "--host", f"https://me:{SECRET}@kubeflow"))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("login page", "answers with a web page instead of the API"),
        ("redirect", "redirects to https://login.example.com/dex/auth, perhaps a login page"),
        ("cut off", "is unreachable (IncompleteRead(1 bytes read"),
        (b"[]", "is not a Kubeflow Pipelines server (it answers '[]'); fix --host"),
        (b"{}", "is not a Kubeflow Pipelines server (it answers '{}')"),
        (b"", "is not a Kubeflow Pipelines server (it answers '')"),
        (500, "answers 500"),
        (403, "have no permission in namespace team"),
        (404, "fix the id"),
        (418, "answers 418"),
    ],
)
def test_what_a_server_answers_instead_ends_in_one_line(
    kfp_server: KfpServer, pipelines: Cli, fault: int | str | bytes, said: str
) -> None:
    kfp_server.faults.extend([fault] * (transport.RETRIES + 1))
    assert said in one_line(pipelines("status"))


def test_an_unknown_namespace_and_an_unknown_run_are_said(kfp_server: KfpServer, pipelines: Cli) -> None:
    line = one_line(pipelines("status", "--namespace", "tema"))
    assert "namespace tema, or it does not exist: fix --namespace" in line
    for command in ("status", "cancel", "logs"):
        assert "Run run-7 not found" in one_line(pipelines(command, "run-7"))


def test_503_then_success_is_a_retry(kfp_server: KfpServer, pipelines: Cli) -> None:
    kfp_server.faults.extend([503, 503, "hang up"])
    done = pipelines("status")
    assert done.code == 0
    assert [line[-8:] for line in done.err.splitlines()] == ["(1 of 8)", "(2 of 8)", "(3 of 8)"]


@pytest.mark.parametrize("damaged", [b'{"runs": [{"run_id": "x", "st', b"", b"null"])
def test_a_damaged_answer_of_a_server_that_has_answered_is_asked_again(
    kfp_server: KfpServer, pipelines: Cli, damaged: bytes
) -> None:
    healthy = json.dumps({"multi_user": True, **kfp_server.health}).encode()
    kfp_server.faults.extend([healthy, damaged])
    done = pipelines("status")
    assert done.code == 0
    assert "sends a damaged answer (b" in done.err and done.err.endswith("(1 of 8)\n")
    kfp_server.faults.extend([healthy, *[damaged] * (transport.RETRIES + 1)])
    assert "sends a damaged answer (b" in one_line(pipelines("status"))


def test_a_server_is_left_alone_for_as_long_as_it_wants_but_not_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LONGEST_PAUSE_S", 30.0)
    assert transport.pause_s(1, 7.0) == 7.0
    assert transport.pause_s(1, 9999.0) == 30.0
    assert transport.pause_s(1, 0.0) <= 1.0
    error = ApiException(status=429, reason="Too Many Requests")
    for after, expected in (("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0), ("-1", 0.0)):
        error.headers = {"Retry-After": after}
        assert transport.retry_after_s(error) == expected
    error.headers = None
    assert transport.retry_after_s(error) == 0.0


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({}, "Kubeflow has not stored the pipeline of this run: its stages are unknown; see http"),
        ({"run_id": "run-9"}, "Kubeflow has not stored the pipeline of this run"),
        (
            {"run_id": "run-9", "created_at": "yesterday"},
            "kfp cannot read its answer (Failed to parse `yesterday`",
        ),
    ],
)
@pytest.mark.parametrize("command", ["status", "logs", "watch"])
def test_a_run_that_is_no_run_is_one_line(
    kfp_server: KfpServer, pipelines: Cli, run: dict[str, str], said: str, command: str
) -> None:
    kfp_server.stored["runs"]["run-9"] = run
    assert said in one_line(pipelines(command, "run-9"))


def test_what_changes_something_is_not_sent_twice(kfp_server: KfpServer, pipelines: Cli) -> None:
    kfp_server.stored["runs"]["run-9"] = {"run_id": "run-9", "state": "RUNNING"}
    kfp_server.then = lambda: kfp_server.faults.append(503)
    assert "answers 503" in one_line(pipelines("cancel", "run-9"))
    kfp_server.then = lambda: kfp_server.faults.append("hang up")
    assert "the request may have succeeded" in one_line(pipelines("cancel", "run-9"))
    assert kfp_server.asked.count("POST /runs/run-9:terminate") == 2


def test_nobody_there_is_said_at_once(kfp_server: KfpServer, pipelines: Cli) -> None:
    kfp_server.stop()
    assert "Connection refused" in one_line(pipelines("status"))
    assert "Name or service not known" in one_line(pipelines("status", "--host", "http://kubeflow.invalid"))


def test_a_server_that_never_answers_is_given_up(
    kfp_server: KfpServer, pipelines: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "TIMEOUT_S", (1, 0.1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        line = one_line(pipelines("status", "--host", f"http://127.0.0.1:{silent.getsockname()[1]}"))
    assert "Read timed out" in line


def test_a_certificate_must_come_from_a_known_authority(
    kfp_server: KfpServer, pipelines: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = kfp_server.url.replace("http:", "https:")
    assert "fix --host (http or https)" in one_line(pipelines("status", "--host", plain))
    kfp_server.stop()
    kfp_server.start(tls=self_signed(tmp_path / "authority.pem"))
    assert "set SSL_CERT_FILE" in one_line(pipelines("status", "--host", kfp_server.url))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    assert pipelines("status", "--host", kfp_server.url).code == 0


KUBECTL = """#!{python}
import os, sys, time
assert " ".join(sys.argv[1:]) == "port-forward --namespace=kubeflow --address=127.0.0.1 service/ml-pipeline :8888"
open("{folder}/pid", "w").write(str(os.getpid()))
for part in ("Forwarding from 127.0.0.1:", "{port}", " -> 8888\\n"):
    print(part, end="", flush=True)
    time.sleep(0.2)
time.sleep(60)
"""


def test_port_forward_lasts_as_long_as_the_command(
    kfp_server: KfpServer, pipelines: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "requires kubectl" in one_line(pipelines("status", "--port-forward", "kubeflow"))
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(KUBECTL.format(python=sys.executable, port=kfp_server.port, folder=tmp_path))
    kubectl.chmod(0o755)
    assert pipelines("status", "--port-forward", "kubeflow").code == 0
    assert kfp_server.asked
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


def test_what_kubectl_refuses_is_said(
    kfp_server: KfpServer, pipelines: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\necho 'error: services \"ml-pipeline\" not found' >&2\nexit 1\n")
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    line = one_line(pipelines("status", "--port-forward", "nowhere"))
    assert 'namespace nowhere (error: services "ml-pipeline" not found)' in line
    kubectl.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(connection, "FORWARD_START_S", 0.3)
    assert "no answer within" in one_line(pipelines("status", "--port-forward", "nowhere"))
