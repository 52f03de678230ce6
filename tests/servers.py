"""HTTP servers beside a test, in threads of its process; for servers that are processes, ports and a wait."""

import random
import socket
import time
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self

START_S = 600  # that a server may take to start, on the slowest machine


class Server(ThreadingHTTPServer):
    """Answers on a port of this machine while its block lasts, however that ends.

    Attributes:
        url: its address.
    """

    def __init__(self, handler: Any, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Prints nothing, of requests or of clients that have gone: tests read what is printed."""

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()


def wait_for_answer(url: str, server: Any, log: Path) -> None:
    """Waits until a server answers; fails with the end of its log if it ends before, or never does."""
    end = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=60):
                return
        except OSError:
            late = time.monotonic() > end
            assert server.poll() is None and not late, log.read_text(errors="replace")[-5000:]
            time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Returns ports for servers to come: the kernel gives them to nobody who asks for any, if it leaves some."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = range(10_000, 1 << 16)
    others = [port for port in ports if not first <= port <= last] or ports
    found: list[int] = []
    for port in random.SystemRandom().sample(others, len(others)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found
