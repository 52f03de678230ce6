"""What AWS settings and servers refuse: each thing has its own line, with the variable or file to fix."""

import socket
import threading
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, SSLError
from tests.servers import Handler, Server

from maskcast.errors import MaskcastError
from maskcast.storage import store as storage
from maskcast.storage.s3_errors import error_message

SSO = (
    "sso_start_url = https://x.awsapps.com/start\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = r\n"
)
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "a-secret-key"}


@pytest.mark.parametrize(
    ("config", "environment", "said"),
    [
        ("", {}, "no S3 credentials; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"),
        ("", {"AWS_PROFILE": "nobody"}, "profile 'nobody' not found; fix or unset AWS_PROFILE, or add it to"),
        ("[broken", {}, "Unable to parse config file: .*config; fix that file, or set AWS_CONFIG_FILE"),
        ("[default]\ncredential_process = /bin/false\n", {}, "custom-process.*; fix profile 'default'"),
        ("[default]\ncredential_process = /no/such\n", {}, "No such file.*'/no/such'.*; fix profile 'default'"),
        ("[default]\ncredential_process = /bin/echo no\n", {}, "Expecting value.*; fix profile 'default'"),
        (f"[default]\n{SSO}", {}, "the SSO login of profile 'default' is missing .*; run `aws sso login`"),
        ("", {"AWS_ACCESS_KEY_ID": "key"}, "incomplete credentials.*missing: AWS_SECRET_ACCESS_KEY.*set both"),
        ("", KEYS | {"AWS_REGION": "no region!"}, "invalid region 'no region!'; fix AWS_REGION"),
        ("", KEYS | {"AWS_ENDPOINT_URL_S3": "localhost:8333"}, "set AWS_ENDPOINT_URL_S3 to http"),
        (
            "",
            KEYS | {"AWS_ENDPOINT_URL_S3": "http://u:pa/ss@w@h:1"},
            "AWS_ENDPOINT_URL_S3: contains a user or password",
        ),
        ("", KEYS | {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "http://127.0.0.1:9 is unreachable"),
        ("", KEYS | {"AWS_ACCESS_KEY_ID": "key\n"}, "AWS_ACCESS_KEY_ID contains whitespace; remove it"),
        ("", KEYS | {"AWS_SECRET_ACCESS_KEY": " hidden"}, "AWS_SECRET_ACCESS_KEY contains whitespace"),
        ("", KEYS | {"AWS_SESSION_TOKEN": "hidden\n"}, "AWS_SESSION_TOKEN contains whitespace"),
    ],
)
def test_each_setting_has_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, environment: dict[str, str], said: str
) -> None:
    fetch("s3://bucket/x", tmp_path, monkeypatch, config, environment, said)


def test_a_bad_bucket_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch("s3://Bad!/x", tmp_path, monkeypatch, "", KEYS, "invalid bucket name 'Bad!'; fix the address")


@pytest.mark.parametrize("silent", [False, True])
def test_a_server_that_takes_a_request_and_never_answers_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """It hangs up, or says nothing for longer than a read waits."""
    monkeypatch.setattr("maskcast.storage.s3.TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            line, _ = server.accept()
            with line:
                line.recv(65536)
                while silent and line.recv(65536):  # until the client has hung up
                    pass

        thread = threading.Thread(target=take)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        keys = KEYS | {"AWS_ENDPOINT_URL_S3": address}
        fetch("s3://bucket/x", tmp_path, monkeypatch, "", keys, f"{address} is unreachable .*again to resume")
        thread.join()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (200, r"does not respond like an S3 server \(status 200\); fix AWS_ENDPOINT_URL_S3"),
        (302, "redirects to another address; set AWS_ENDPOINT_URL_S3 to that address"),
        (403, r"does not respond like an S3 server \(status 403\)"),
        (503, "the server returned 503: Service Unavailable; run the same command again"),
    ],
)
def test_a_server_of_web_pages_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    class Pages(Handler):
        def do_GET(self) -> None:
            page = b"<html><body>Sign in</body></html>"
            self.send_response(status)
            self.send_header("Location", "/login")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(page)

        do_HEAD = do_GET

    with Server(Pages) as server:
        keys = KEYS | {"AWS_ENDPOINT_URL_S3": server.url}
        fetch("s3://bucket/x", tmp_path, monkeypatch, "", keys, f"s3://bucket/x: {server.url}:? {said}")


def fetch(
    uri: str, folder: Path, patch: pytest.MonkeyPatch, config: str, environment: dict[str, str], said: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        patch.delenv(name, raising=False)
    (folder / "config").write_text(config)
    files = {name: str(folder / "config") for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    for name, value in {**files, "AWS_EC2_METADATA_DISABLED": "true", **environment}.items():
        patch.setenv(name, value)
    patch.setattr("maskcast.storage.s3.ATTEMPTS", 1)
    with pytest.raises(MaskcastError, match=said) as caught:
        storage.fetch(uri, folder / "back")
    assert "\n" not in str(caught.value)
    assert "ss@w" not in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("NoSuchBucket", "bucket 'clips' does not exist"),
        ("AccessDenied", "and their permissions"),
        ("403", "and their permissions"),
        ("InvalidAccessKeyId", "check AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "check AWS_SECRET_ACCESS_KEY"),
        ("ExpiredToken", "set a new AWS_SESSION_TOKEN"),
        ("301", "in another region than eu-west-1; set AWS_REGION"),
        ("AuthorizationHeaderMalformed", "set AWS_REGION"),
        ("RequestTimeTooSkewed", "the clock of this machine is wrong"),
        ("SlowDown", "the server returned SlowDown: as it says; run the same command again"),
    ],
)
def test_each_answer_has_its_line(monkeypatch: pytest.MonkeyPatch, code: str, said: str) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    answer = ClientError({"Error": {"Code": code, "Message": "as it says"}}, "ListObjectsV2")
    assert said in error_message(answer, "clips")


def test_tls_is_named() -> None:
    assert "set AWS_CA_BUNDLE" in error_message(
        SSLError(endpoint_url="https://s3.local", error="no such root"), "clips"
    )
