"""Many clients at once, and connections on which nobody asks: every honest request is answered."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import uvicorn
from tests.integration.conftest import free_ports

from maskcast.models.bounds import check_time
from maskcast.serving import connections, server
from maskcast.serving.server import PROTOCOLS, Served, make_app

CLIENTS, IDLE = 64, 34


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server of a model that takes a moment; it is patient for half a second."""
    monkeypatch.setattr(connections, "HEADER_S", 0.5)

    def predict(clips: np.ndarray) -> tuple[np.ndarray, list[str]]:
        time.sleep(0.005)
        check_time()
        return np.zeros((len(clips), 2, *clips.shape[2:4]), np.uint8), [""] * len(clips)

    (number,) = free_ports(1)
    shapes = (-1, -1, -1, -1, 3), (-1, 2, -1, -1)
    app = make_app(Served("toy", "1", "0" * 64, {}, shapes, predict))
    config = uvicorn.Config(app, port=number, log_level="critical", **PROTOCOLS)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield number
    running.should_exit = True
    thread.join()


def ask(port: int) -> int:
    """Sends a clip and returns the status of the answer."""
    return answer_to(port)[0]


def answer_to(port: int) -> tuple[int, bytes]:
    frames = np.zeros((1, 3, 8, 8, 3), np.uint8)
    tensor = {"name": "frames", "shape": frames.shape, "datatype": "UINT8", "data": frames.ravel().tolist()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v2/models/toy/infer", json.dumps({"inputs": [tensor]}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def healthy(port: int) -> float:
    """Returns the seconds until the server says that it is alive."""
    start = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/v2/health/live")
    assert connection.getresponse().status == 200
    connection.close()
    return time.monotonic() - start


def test_idle_connections_hold_up_nobody_and_are_closed(port: int) -> None:
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(IDLE)]
    idle[0].sendall(b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: x\r\n")  # a head that never ends
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = pool.map(lambda _: ask(port), range(4 * CLIENTS))
        assert healthy(port) < 20  # beside all the others
        assert set(answers) == {200}
    for each in idle:
        each.settimeout(60)
        assert each.recv(1) == b""  # closed by the server
        each.close()


def test_work_that_takes_too_long_ends_in_a_line_and_the_next_is_answered(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ANSWER_S", 0.001)
    status, said = answer_to(port)
    assert status == 400 and b"frames: not done within the 0.001 s that one call may take here; give fewer" in said
    monkeypatch.undo()
    assert ask(port) == 200


def test_a_connection_that_asks_again_and_again_is_kept(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(4):
        connection.request("GET", "/v2/health/live")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b'{"live":true,"ready":true}')
        time.sleep(0.3)
    assert connection.sock is not None
    connection.close()
