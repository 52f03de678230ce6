"""Many clients at once, and connections on which nobody asks: every honest request is answered."""

import errno
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.testclient import TestClient
from tests.registered import write_registered

from maskcast.__main__ import main
from maskcast.errors import MaskcastError
from maskcast.models.limits import check_time
from maskcast.registry.loading import load_servable
from maskcast.serving import application
from maskcast.serving.application import ServedModel, make_app, served_model
from maskcast.serving.connections import TimeoutProtocol
from maskcast.serving.protocol import HEADER
from maskcast.serving.server import PROTOCOLS, listen

CLIENTS, IDLE = 64, 34
WAIT_S = 300
SLOW = 16  # rows of clips that take as long as a test likes
SERVER = """\
import sys
import time

import numpy as np

from maskcast.serving import server
from maskcast.serving.application import ServedModel
from maskcast.serving.server import listen, run_server

compute_s, drain_s = map(float, sys.argv[1:])
server.DRAIN_S = drain_s

def answer(clips):
    print("computing", file=sys.stderr, flush=True)
    time.sleep(compute_s)
    return np.zeros((len(clips), 2, *clips.shape[2:4]), np.uint8), [""]

(socket,) = listen("127.0.0.1", 0)
print(socket.getsockname()[1], file=sys.stderr, flush=True)
shapes = (-1, -1, -1, -1, 3), (-1, 2, -1, -1)
run_server(ServedModel("toy", "1", "0" * 64, {}, shapes, answer), [socket], 1, 60.0)
"""


class Work:
    """A model: it keeps the rows of the clips that it began with, and waits with slow ones until it may go on."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.may_go_on = threading.Event()

    def predict(self, clips: np.ndarray) -> tuple[np.ndarray, list[str]]:
        self.rows.append(clips.shape[2])
        time.sleep(0.005)
        if clips.shape[2] == SLOW:
            assert self.may_go_on.wait(WAIT_S)
        check_time()
        return np.zeros((len(clips), 2, *clips.shape[2:4]), np.uint8), [""] * len(clips)


@contextmanager
def served(app: Starlette) -> Iterator[tuple[uvicorn.Server, int]]:
    """Serves an application as `maskcast serve` does, in a thread while the block lasts; gives server and port."""
    (place,) = listen("127.0.0.1", 0)
    port = place.getsockname()[1]
    running = uvicorn.Server(uvicorn.Config(app, log_level="critical", **PROTOCOLS))
    thread = threading.Thread(target=running.run, args=([place],))
    thread.start()
    try:
        while not running.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield running, port
    finally:
        running.should_exit = True
        thread.join()


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def running(work: Work) -> Iterator[uvicorn.Server]:
    """A server of a model that takes a moment."""
    shapes = (-1, -1, -1, -1, 3), (-1, 2, -1, -1)
    with served(make_app(ServedModel("toy", "1", "0" * 64, {}, shapes, work.predict))) as (running, _):
        yield running


@pytest.fixture
def port(running: uvicorn.Server) -> int:
    return running.servers[0].sockets[0].getsockname()[1]


def ask(port: int) -> int:
    """Sends a clip and returns the status of the answer."""
    return answer_to(port)[0]


def answer_to(port: int) -> tuple[int, bytes]:
    frames = np.zeros((1, 3, 8, 8, 3), np.uint8)
    tensor = {"name": "frames", "shape": frames.shape, "datatype": "UINT8", "data": frames.ravel().tolist()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request("POST", "/v2/models/toy/infer", json.dumps({"inputs": [tensor]}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def binary_request(frames: np.ndarray) -> bytes:
    """Returns a request of one clip, whole, whose answer is binary, too."""
    tensor = {"name": "frames", "shape": frames.shape, "datatype": "UINT8"}
    inputs = [tensor | {"parameters": {"binary_data_size": frames.size}}]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    lines = ["POST /v2/models/toy/infer HTTP/1.1", "Host: localhost", f"{HEADER}: {len(head)}"]
    lines += [f"Content-Length: {len(head) + frames.size}", "", ""]
    return "\r\n".join(lines).encode() + head + frames.tobytes()


def healthy(port: int) -> None:
    """Waits until the server says that it is alive."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    connection.request("GET", "/v2/health/live")
    assert connection.getresponse().status == 200
    connection.close()


def test_work_that_takes_too_long_ends_in_a_line_and_the_next_is_answered(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "ANSWER_S", 0.001)
    status, said = answer_to(port)
    assert status == 400 and b"frames: the call exceeded its time limit of 0.001 s; use fewer" in said
    monkeypatch.undo()
    assert ask(port) == 200


def look(connection: TimeoutProtocol) -> None:
    """Lets the server look at a connection now, as it does from time to time."""
    done = threading.Event()

    def now() -> None:
        connection._cancel_timer()
        connection._check_progress()
        done.set()

    connection.loop.call_soon_threadsafe(now)
    assert done.wait(WAIT_S)


def look_until_closed(running: uvicorn.Server) -> None:
    """Lets the server look at its only connection until it has closed it."""
    (connection,) = running.server_state.connections
    while running.server_state.connections:
        look(connection)


def test_idle_connections_hold_up_nobody_and_are_closed(running: uvicorn.Server, port: int) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), WAIT_S)) for _ in range(IDLE)]
        idle[0].sendall(b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: localhost\r\n")  # a head that never ends
        while len(running.server_state.connections) < IDLE:
            time.sleep(0.01)
        of_them = list(running.server_state.connections)
        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = pool.map(lambda _: ask(port), range(4 * CLIENTS))
            healthy(port)  # beside all the others
            assert set(answers) == {200}
        for connection in of_them:
            look(connection)
        assert [each.recv(1) for each in idle] == [b""] * IDLE  # closed by the server


def test_a_connection_that_asks_again_and_again_is_kept(running: uvicorn.Server, port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    for _ in range(4):
        connection.request("GET", "/v2/health/live")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b'{"live":true,"ready":true}')
        (kept,) = running.server_state.connections
        look(kept)
    assert running.server_state.connections == {kept}
    assert connection.sock is not None
    look(kept)  # and nothing was asked since the last look
    assert connection.sock.recv(1) == b""
    connection.close()


def test_an_answer_that_nobody_reads_is_thrown_away(running: uvicorn.Server, port: int) -> None:
    frames = np.zeros((1, 1, 2000, 2000, 3), np.uint8)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(binary_request(frames))
        client.settimeout(WAIT_S)
        assert client.recv(12) == b"HTTP/1.1 200"
        look_until_closed(running)
        read = 0
        with suppress(ConnectionError):
            while piece := client.recv(1 << 20):
                read += len(piece)
        assert read < 2 * 2000 * 2000  # pixels of the masks: what the kernel held is all that comes
    assert ask(port) == 200


def test_an_answer_that_was_computed_for_long_and_that_nobody_reads_is_thrown_away(
    running: uvicorn.Server, port: int, work: Work
) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(binary_request(np.zeros((1, 1, SLOW, 250_000, 3), np.uint8)))
        while not work.rows:
            time.sleep(0.01)
        (connection,) = running.server_state.connections
        look(connection)  # and there is no answer yet
        assert connection._last_cycle is connection.cycle
        work.may_go_on.set()
        client.settimeout(WAIT_S)
        assert client.recv(12) == b"HTTP/1.1 200"
        look_until_closed(running)


def test_nobody_waits_for_the_answers_to_clients_that_have_gone(port: int, work: Work) -> None:
    request = binary_request(np.zeros((1, 3, SLOW, 8, 3), np.uint8))
    with socket.create_connection(("127.0.0.1", port)) as first:
        first.sendall(request)
        while not work.rows:
            time.sleep(0.01)
        for _ in range(8):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(request)
        healthy(port)  # the server has seen them come and go
        work.may_go_on.set()
        assert first.recv(12) == b"HTTP/1.1 200"
    assert ask(port) == 200
    assert work.rows == [SLOW, 8]


@contextmanager
def asked(folder: Path, count: int, compute_s: float, drain_s: float) -> Iterator[tuple[Any, list[socket.socket]]]:
    """Runs a server that holds so many requests, the first of which it computes; gives it and the connections."""
    (folder / "serve.py").write_text(SERVER)
    command = [sys.executable, "serve.py", str(compute_s), str(drain_s)]
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        assert process.stderr is not None
        port = int(process.stderr.readline())
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=WAIT_S))
            for _ in range(count)
        ]
        for client in clients:
            client.sendall(binary_request(np.zeros((1, 3, 8, 8, 3), np.uint8)))
        assert process.stderr.readline() == "computing\n"
        healthy(port)  # the others have been heard, too
        yield process, clients


def test_a_second_ctrl_c_ends_a_server_that_works(tmp_path: Path) -> None:
    with asked(tmp_path, 1, 600, 600) as (process, _):
        process.send_signal(signal.SIGINT)
        said = process.stderr.readline()
        assert (
            said == "shutting down: waiting up to 600.0 s for 1 request or session; Ctrl-C again stops at once\n"
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == -signal.SIGINT
        assert process.stderr.read() == ""


def test_a_server_that_is_told_to_stop_answers_what_it_holds(tmp_path: Path) -> None:
    with asked(tmp_path, 4, 0.1, 60) as (process, clients):
        process.send_signal(signal.SIGTERM)
        assert [client.recv(12) for client in clients] == [b"HTTP/1.1 200"] * 4
        assert process.wait(WAIT_S) == -signal.SIGTERM


def test_a_server_that_is_told_to_stop_refuses_after_a_while_and_ends(tmp_path: Path) -> None:
    with asked(tmp_path, 4, 600, 0.1) as (process, clients):
        process.send_signal(signal.SIGTERM)
        assert process.stderr.readline().startswith(
            "shutting down: waiting up to 0.1 s for 4 requests or sessions; "
        )
        for client in clients:
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            assert json.load(answer)["error"].startswith("the server is shutting down; ")
        assert process.wait(WAIT_S) == -signal.SIGTERM


def test_requests_whose_body_waits_are_refused_at_shutdown_too(tmp_path: Path) -> None:
    body = binary_request(np.zeros((1, 100, 160, 160, 3), np.uint8))
    with asked(tmp_path, 1, 600, 1.0) as (process, (first,)), ThreadPoolExecutor(24) as pool:

        def refused(_: int) -> int:
            with socket.create_connection(first.getpeername(), timeout=WAIT_S) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)  # the kernel holds no whole body
                client.sendall(body)  # as clients do, which read no answer before
                answer = http.client.HTTPResponse(client)
                answer.begin()
                return answer.status

        statuses = pool.map(refused, range(24))
        while under_way(first.getpeername()[1]) < 25:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert list(statuses) == [503] * 24


def under_way(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT_S) as answer:
        (count,) = re.findall(rb"^maskcast_requests_under_way\S* (\d+)", answer.read(), re.MULTILINE)
    return int(count)


def test_the_log_has_a_line_for_each_request_and_the_version_its_commit() -> None:
    command = [sys.executable, "-m", "maskcast", "serve", "--model", "sample", "--port", "0", "--access-log"]
    env = {**os.environ, "MASKCAST_GIT_SHA": "0123abcd"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None and process.stdout is not None
            (port,) = re.findall(r" on http://127\.0\.0\.1:(\d+)$", process.stderr.readline().strip())
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/version?token=hunter22", timeout=WAIT_S
            ) as answer:
                assert json.load(answer)["commit"] == "0123abcd"
            line = process.stdout.readline()
        finally:
            process.kill()
    assert re.fullmatch(r'20\d\d-\S+ \S+ 127\.0\.0\.1:\d+ "GET /version\?token=\*{3} HTTP/1\.1" 200 OK\n', line)


def test_every_refusal_is_json() -> None:
    """By the protocol the body of an error is an object with the key `error`."""

    def fail(_: np.ndarray) -> tuple[np.ndarray, list[str]]:
        raise RuntimeError

    app = make_app(ServedModel("toy", "1", "0" * 64, {}, ((-1, -1, -1, -1, 3), (-1, 2, -1, -1)), fail))
    client = TestClient(app, raise_server_exceptions=False)
    tensor = {"name": "frames", "shape": [1, 1, 1, 1, 3], "datatype": "UINT8", "data": [0, 0, 0]}
    for headers, status, line in (
        ({}, 500, "the model failed; see the server's log"),
        (
            {"Content-Encoding": "gzip"},
            415,
            "Content-Encoding: 'gzip' is not supported; send the body uncompressed",
        ),
    ):
        answer = client.post("/v2/models/toy/infer", json={"inputs": [tensor]}, headers=headers)
        assert (answer.status_code, answer.json()) == (status, {"error": line})


@pytest.mark.parametrize(
    ("path", "encoding", "status"),
    [
        ("/v2/models/other/infer", "identity", 404),
        ("/v1/models/toy:predict", "identity", 404),
        ("/v2/models/toy", "identity", 405),
        ("/v2/models/toy/infer", "gzip", 415),
    ],
)
def test_who_sends_much_to_a_wrong_address_hears_why(port: int, path: str, encoding: str, status: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    headers = {"Content-Encoding": encoding, "Connection": "close"}  # as urllib asks
    connection.request("POST", path, bytes(32 << 20), headers)  # more than the kernel holds
    answer = connection.getresponse()
    assert (answer.status, "error" in json.load(answer)) == (status, True)
    connection.close()


def test_a_place_that_is_taken_is_said_before_it_is_said_that_something_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_registered(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, message in (
            (["--port", port], f"--host 127.0.0.1 --port {port}: cannot listen (Address already in use); "),
            (["--port", "99999"], "--port: got 99999; give 0 to 65535"),
            (["--host", "256.1.1.1"], "--host 256.1.1.1 --port 8080: cannot listen ("),
            (["--host", "my..host"], "--host my..host --port 8080: cannot listen (not a valid host name); "),
        ):
            assert main(["serve", "--model", str(model), *words]) == 2
            said = capsys.readouterr().err
            assert said.count("\n") == 1 and message in said, said


def test_a_folder_is_called_by_its_name_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_registered(tmp_path))
    assert [served_model(load_servable(address)).name for address in (".", "../artifact/")] == ["artifact"] * 2


def test_a_name_whose_addresses_are_all_of_other_machines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{k}", 8080)) for k in (1, 2)]

    def elsewhere(place: object, *, family: int) -> socket.socket:
        raise OSError(
            errno.EADDRNOTAVAIL, f"Cannot assign requested address (while attempting to bind on {place})"
        )

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
        patch.setattr(socket, "create_server", elsewhere)
        with pytest.raises(MaskcastError, match=r"^--host far --port 8080: cannot listen \(Cannot assign"):
            listen("far", 8080)
