"""Web pages of other hosts cannot use a server; clients that are no browsers are not affected."""

import http.client
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from tests.registered import clips_of_squares, write_registered
from tests.unit.test_serving_load import served
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from maskcast.errors import MaskcastError
from maskcast.registry.loading import load_servable
from maskcast.serving.application import ServedModel, make_app, served_model
from maskcast.serving.origins import check_origins
from maskcast.serving.server import is_local, listen

FOREIGN = ("http://evil.example", "http://127.0.0.1.evil.example", "http://127.0.0.1", "null", "http://[", "")
WAIT_S = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return served_model(load_servable(str(write_registered(tmp_path_factory.mktemp("origins")))))


@contextmanager
def server(model: ServedModel, *allowed: str, local: str | None = None) -> Iterator[int]:
    with served(make_app(model, allowed_origins=allowed, local=local)) as (_, port):
        yield port


def ask(
    port: int, path: str, body: bytes | None = None, method: str = "", **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Returns status, JSON and headers of an answer."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    connection.request(method or ("POST" if body else "GET"), path, body, {"Content-Type": "text/plain", **given})
    answer = connection.getresponse()
    text, fields = answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    return answer.status, json.loads(text) if fields.get("content-type") == "application/json" else text, fields


def clip_body() -> bytes:
    clips = clips_of_squares(1)
    frames = {"name": "frames", "shape": clips.shape, "datatype": "UINT8", "data": clips.ravel().tolist()}
    return json.dumps({"inputs": [frames]}).encode()


def test_a_page_of_another_host_gets_403_and_no_session(
    model: ServedModel, caplog: pytest.LogCaptureFixture
) -> None:
    infer, path = "/v2/models/artifact/infer", "/v2/models/artifact/session"
    with server(model) as port:
        log = logging.getLogger("uvicorn.error")
        log.setLevel(logging.ERROR)  # as `maskcast serve` shows it
        log.addHandler(caplog.handler)
        for origin in FOREIGN:
            for asked in (infer, "/metrics"):
                status, told, _ = ask(port, asked, clip_body() if asked == infer else None, Origin=origin)
                line = f"Origin: {origin!r} is not this server's; start it with --allow-origin ORIGIN to allow it"
                assert (status, told) == (403, {"error": line})
            with (
                pytest.raises(InvalidStatus) as caught,
                connect(
                    f"ws://127.0.0.1:{port}{path}", additional_headers={"Origin": origin}, open_timeout=WAIT_S
                ),
            ):
                pass
            assert caught.value.response.status_code == 403
            assert json.loads(caught.value.response.body or b"") == {"error": line}
        log.removeHandler(caplog.handler)
        assert caplog.text == ""
        status, _, headers = ask(port, infer, method="OPTIONS", Origin="http://evil.example")
        assert status == 403
        assert "access-control-allow-origin" not in headers


def test_other_clients_and_the_servers_own_pages_are_answered(model: ServedModel) -> None:
    infer, path = "/v2/models/artifact/infer", "/v2/models/artifact/session"
    with server(model) as port:
        own = f"http://127.0.0.1:{port}"
        assert [ask(port, infer, clip_body())[0], ask(port, infer, clip_body(), Origin=own)[0]] == [200, 200]
        # behind a proxy with TLS, or a name of the host in capitals
        assert ask(port, "/version", Host="Masks.example", Origin="https://masks.example")[0] == 200
        for headers in ({}, {"Origin": own}):
            with connect(
                f"ws://127.0.0.1:{port}{path}", additional_headers=headers, open_timeout=WAIT_S
            ) as client:
                assert json.loads(client.recv(timeout=WAIT_S))["model_name"] == "artifact"


def test_a_page_of_an_allowed_origin_can_use_the_server_and_read_its_answers(model: ServedModel) -> None:
    infer, page = "/v2/models/artifact/infer", "https://app.example.org"
    with server(model, page, "null") as port:
        for origin in (page, "null"):
            status, told, headers = ask(port, infer, clip_body(), Origin=origin)
            assert (status, headers["access-control-allow-origin"]) == (200, origin)
            assert np.array(told["outputs"][0]["data"]).size
            asking = {"Access_Control_Request_Method": "POST"}
            asking |= {"Access_Control_Request_Headers": "inference-header-content-length"}
            status, _, headers = ask(port, infer, method="OPTIONS", Origin=origin, **asking)
            assert (status, headers["access-control-allow-origin"]) == (200, origin)
            with connect(
                f"ws://127.0.0.1:{port}/v2/models/artifact/session",
                additional_headers={"Origin": origin},
                open_timeout=WAIT_S,
            ) as client:
                assert json.loads(client.recv(timeout=WAIT_S))["model_name"] == "artifact"
        assert ask(port, infer, clip_body(), Origin="http://evil.example")[0] == 403


def test_a_server_of_this_machine_alone_refuses_a_page_that_points_its_own_name_to_it(model: ServedModel) -> None:
    with server(model, "https://app.example.org", local="My-Machine") as port:
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example"):
            for headers in ({}, {"Origin": f"http://{host}"}):  # a page's own GET has no Origin
                status, told, _ = ask(port, "/version", Host=host, **headers)
                assert status == 403
                assert told["error"].startswith(f"Host: {host!r} is not this machine")
        for host in (
            f"localhost:{port}",
            "app.localhost",
            "127.0.0.2",
            f"[::1]:{port}",
            "LOCALHOST",
            "app.example.org",
        ):
            assert ask(port, "/version", Host=host)[0] == 200
    with server(model) as port:  # it listens on other addresses, too
        assert ask(port, "/version", Host="masks.example")[0] == 200


def test_only_sockets_of_loopback_are_local() -> None:
    for host, local in (("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)):
        sockets = listen(host, 0)
        assert is_local(sockets) is local
        for place in sockets:
            place.close()


@pytest.mark.parametrize(
    "origin", ["*", "app.example.org", "https://app.example.org/", "https://App.example.org", ""]
)
def test_a_flag_that_no_browser_would_match_is_refused(origin: str) -> None:
    check_origins(["https://app.example.org:8443", "null"])
    with pytest.raises(MaskcastError, match=r"--allow-origin .*: not an origin; give SCHEME://HOST"):
        check_origins([origin])
