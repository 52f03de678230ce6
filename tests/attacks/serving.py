"""Attacks a server of a small pipeline: many clients, connections that hang, requests that are bombs.

    python tests/attacks/serving.py [--requests 670] [--size 1920 2880] [--threads 1]

Of 64 clients each asks again as soon as it is answered, while 34 connections say nothing, half a head or half a
body (closed ones come again), and bombs come in between. Every honest request must be answered, health within a
second, and the server must stay within the memory of its manifest. Of itself every request has the largest clip
that is legal, nearly 64 MiB, which a processor takes half a minute for: give it a card, or a smaller `--size`. The
command prints what came out.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from tests.registered import SEEN, write_registered  # noqa: E402
from tests.servers import free_ports  # noqa: E402

from pipelines.cluster import Serving  # noqa: E402

CLIENTS, IDLE, HEALTH_S = 64, 34, 1.0
LARGEST = (1920, 2880)  # of 4 frames: with their three colours 63.3 of the 64 MiB that a request may have
CLIPS = 4  # different ones
INFER = "/v2/models/artifact/infer"
INPUT = '{"name": "frames", "datatype": "UINT8", "shape": %s, "data": %s}'
ENDLESS = b"POST %s HTTP/1.1\r\nHost: localhost\r\n" % INFER.encode()
HANGING = (b"", ENDLESS, ENDLESS + b"Content-Length: 1000000\r\n\r\n" + bytes(100_000))
BOMBS = [
    b"[" * 1_000_000,
    b'{"inputs": ' * 10_000,
    b'{"inputs": [' + b"9" * 5000 + b"]}",
    ('{"inputs": [' + INPUT % ("[1" + "0" * 4000 + "]", "[1]") + "]}").encode(),
    ('{"inputs": [' + INPUT % ("[" + ", ".join(["9" * 4000] * 8) + "]", "[1]") + "]}").encode(),
    ('{"inputs": [' + INPUT % (f"[{2**70}, 0]", "[]") + "]}").encode(),
    ('{"inputs": [' + INPUT % ("[2147483647, 0]", "[]") + "]}").encode(),
    ('{"inputs": [' + INPUT % ("[1000]", json.dumps(["a" * 1_000_000, *["b"] * 999])) + "]}").encode(),
    ('{"inputs": [' + INPUT % ("[1]", "[" * 500 + "1" + "]" * 500) + "]}").encode(),
    ('{"inputs": [' + INPUT % ("[1, 1, 1, 1, 3]", "[NaN, Infinity, 1e999]") + "]}").encode(),
    b'{"id": ' + b"[" * 900 + b"]" * 900 + b', "inputs": [null]}',
]


@dataclass
class Outcome:
    """What came of an attack.

    Attributes:
        answers: of honest requests, by status.
        refusals: of bombs, by status.
        health: seconds until each answer about health.
        peak: bytes that the server took at most.
        limit: bytes that its manifest gives it.
        seconds: that the honest requests took together.
    """

    answers: Counter[int] = field(default_factory=Counter)
    refusals: Counter[int] = field(default_factory=Counter)
    health: list[float] = field(default_factory=list)
    peak: int = 0
    limit: int = int(Serving().memory.removesuffix("Gi")) << 30
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"honest {dict(self.answers)} in {self.seconds:.1f} s, bombs {dict(self.refusals)}, health at most "
            f"{max(self.health):.2f} s of {len(self.health)}, peak {self.peak >> 20} of {self.limit >> 20} MiB"
        )


def attack(requests: int, shape: tuple[int, int, int], threads: int = 1) -> Outcome:
    """Attacks a server.

    Args:
        requests: of honest clients.
        shape: frames, rows and columns of each of their clips.
        threads: that the server computes with.
    """
    outcome, over = Outcome(), threading.Event()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, process = stack.enter_context(served(write_registered(scratch), threads))
        idle = [hanging(port, number) for number in range(IDLE)]

        def look() -> None:
            while not outcome.health or not over.wait(0.2):
                start = time.monotonic()
                assert ask(port, "GET", "/v2/health/live") == 200
                outcome.health.append(time.monotonic() - start)
                for number, each in enumerate(idle):
                    if is_closed(each):
                        each.close()
                        idle[number] = hanging(port, number)

        watching = threading.Thread(target=look)
        watching.start()
        try:
            start = time.monotonic()
            with ThreadPoolExecutor(CLIENTS) as pool:
                honest = [pool.submit(send_clip, port, shape, number) for number in range(requests)]
                bombs = [pool.submit(ask, port, "POST", INFER, bomb) for bomb in BOMBS]
                outcome.answers.update(one.result() for one in honest)
                outcome.refusals.update(one.result() for one in bombs)
            outcome.seconds = time.monotonic() - start
        finally:
            over.set()
            watching.join()
            for each in idle:
                each.close()
        outcome.peak = peak_of(process)
    return outcome


def hanging(port: int, number: int) -> socket.socket:
    """Opens a connection on which nothing comes, or too little."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(HANGING[number % len(HANGING)])
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection; what it has said is thrown away."""
    connection.setblocking(False)
    with suppress(BlockingIOError):
        try:
            return not connection.recv(4096)
        except ConnectionError:
            return True
    return False


def send_clip(port: int, shape: tuple[int, int, int], number: int) -> int:
    """Asks for the future of a clip as binary data; returns the status."""
    body, length = body_of(shape, number % CLIPS)
    return ask(port, "POST", INFER, body, {"Inference-Header-Content-Length": length})


@cache
def body_of(shape: tuple[int, int, int], seed: int) -> tuple[bytes, str]:
    """Returns the body of a request and the length of its JSON; clients share the few that there are."""
    clip = np.random.default_rng(seed).integers(0, 256, (1, *shape, 3), np.uint8)
    clip[..., 8:, :] = 0  # few objects, as in real clips
    tensor = {"name": "frames", "datatype": "UINT8", "shape": clip.shape}
    inputs = [tensor | {"parameters": {"binary_data_size": clip.size}}]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return head + clip.tobytes(), str(len(head))


def ask(port: int, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
    """Returns the status of an answer, which is read to its end; one line where it is an error."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1800)
    try:
        connection.request(method, path, body or None, headers or {})
        answer = connection.getresponse()
        told = answer.read()
        assert answer.status == 200 or b"\n" not in told, told[:500]
        return answer.status
    finally:
        connection.close()


@contextmanager
def served(model: Path, threads: int) -> Iterator[tuple[int, int]]:
    """Runs `maskcast serve` of a model; gives its port and process id."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "maskcast", "serve", "--model", str(model), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
    try:
        while True:
            try:
                ask(port, "GET", "/v2/health/ready")
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"{model}: the server ended with {process.returncode}") from None
                time.sleep(0.1)
        yield port, process.pid
        assert process.poll() is None, f"the server ended with {process.returncode}"
    finally:
        process.terminate()
        process.wait()


def peak_of(process: int) -> int:
    """Returns the most bytes of memory that a process has had."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=670)
    parser.add_argument("--size", type=int, nargs=2, default=LARGEST, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--threads", type=int, default=1, help="that the server computes with")
    given = parser.parse_args()
    outcome = attack(given.requests, (SEEN, *given.size), given.threads)
    print(outcome)
    good = outcome.answers.keys() == {200} and outcome.refusals.keys() == {400}
    sys.exit(not (good and max(outcome.health) < HEALTH_S and outcome.peak < outcome.limit))


if __name__ == "__main__":
    main()
