"""A proxy between an S3 client and its server that breaks the requests a test chooses, and counts them all."""

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from tests.servers import Handler, Server

HELD_S = 300
HOP_BY_HOP = {"connection", "content-length", "expect", "keep-alive", "transfer-encoding"}
ERRORS = {"503": (503, "SlowDown"), "no such upload": (404, "NoSuchUpload")}


@dataclass
class Fault:
    """What happens to the first `times` requests whose method and path (with query) match.

    - `503`, `no such upload`: the answer is SlowDown or NoSuchUpload, the request is not passed on.
    - `reset request`: the connection is reset after `after` bytes of the request's body.
    - `lose answer`: the request is done, then the connection is reset in place of the answer.
    - `reset`, `close`, `stall`: the same, or the end, or silence, after `after` bytes of the answer's body.
    - `shorten`: the answer's body is cut to `after` bytes, and its length says so.
    - `corrupt`: one byte of the answer's body is another.
    - `corrupt request`: one byte of the request's body is another.
    - `drip`: the answer comes in twenty pieces over `seconds`.
    - `hold`: the request waits for `release` before it is passed on.
    - `swallow`: the request waits for `release` and is then dropped.
    """

    kind: Literal[
        "503",
        "no such upload",
        "reset request",
        "lose answer",
        "reset",
        "close",
        "stall",
        "shorten",
        "corrupt",
        "corrupt request",
        "drip",
        "hold",
        "swallow",
    ]
    method: str
    path: str
    times: int = 1
    after: int = 0
    seconds: float = 2.0
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


class FaultyProxy:
    """The proxy: its address, the faults to come, and the requests seen and answered whole."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.faults: list[Fault] = []
        self._seen: list[str] = []
        self._answered: list[str] = []
        self._lock = threading.Lock()
        self.server = Server(self._handler())
        self.endpoint = self.server.url

    def add(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def seen(self, pattern: str) -> int:
        """Counts the requests that came, as `METHOD path`, by a pattern."""
        return sum(re.search(pattern, line) is not None for line in self._seen)

    def answered(self, pattern: str) -> int:
        """Counts the requests that were passed on and answered whole."""
        return sum(re.search(pattern, line) is not None for line in self._answered)

    def forget(self) -> None:
        """Ends all faults and starts counting anew."""
        for fault in self.faults:
            fault.release.set()
        with self._lock:
            self.faults.clear()
            self._seen.clear()
            self._answered.clear()

    def begin(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self._seen.append(f"{method} {path}")
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    fault.reached.set()
                    return fault
        return None

    def end(self, method: str, path: str) -> None:
        with self._lock:
            self._answered.append(f"{method} {path}")

    def _handler(self) -> type[Handler]:
        return type("Handler", (_Handler,), {"proxy": self})


class _Handler(Handler):
    proxy: FaultyProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def relay(self) -> None:
        fault = self.proxy.begin(self.command, self.path)
        kind = fault.kind if fault else None
        length = int(self.headers.get("Content-Length", 0))
        if kind == "reset request":
            self.rfile.read(fault.after)
            self.reset()
            return
        body = self.rfile.read(length)
        if kind in ERRORS:
            status, code = ERRORS[kind]
            content = f"<Error><Code>{code}</Code><Message>Injected.</Message></Error>".encode()
            content = b"" if self.command == "HEAD" else content
            self.answer(status, code, {"Content-Length": str(len(content))}, content)
            return
        if kind in ("hold", "swallow"):
            fault.release.wait(HELD_S)
        if kind == "swallow":
            self.reset()
            return
        if kind == "corrupt request":
            body = flipped(body)
        status, reason, headers, content = self.ask(body)
        if kind == "lose answer":
            self.reset()
        elif kind in ("reset", "close", "stall"):
            self.answer(status, reason, headers, content, stop=fault.after)
            if kind == "stall":
                fault.release.wait(HELD_S)
            self.close_connection = True
            if kind == "reset":
                time.sleep(0.1)  # a reset overtakes bytes that the client has not read
                self.reset()
        elif kind == "shorten":
            self.answer(status, reason, headers | {"Content-Length": str(fault.after)}, content[: fault.after])
        elif kind == "corrupt":
            self.answer(status, reason, headers, flipped(content))
        else:
            self.answer(status, reason, headers, content, seconds=fault.seconds if kind == "drip" else 0)
            self.proxy.end(self.command, self.path)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = relay

    def ask(self, body: bytes) -> tuple[int, str, dict[str, str], bytes]:
        """Passes the request on as it is: its signature covers the Host header."""
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=HELD_S)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        kept = {k: v for k, v in answer.getheaders() if k.lower() not in HOP_BY_HOP}
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        kept["Content-Length"] = length
        connection.close()
        return answer.status, answer.reason, kept, content

    def answer(
        self,
        status: int,
        reason: str,
        headers: dict[str, str],
        content: bytes,
        stop: int | None = None,
        seconds: float = 0,
    ) -> None:
        """Sends an answer, its body up to `stop`, at once or over `seconds`."""
        self.send_response_only(status, reason)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        size = max(1, len(content) // 20) if seconds else max(1, len(content))
        for start in range(0, len(content[:stop]), size):
            self.wfile.write(content[:stop][start : start + size])
            time.sleep(seconds / 20)

    def reset(self) -> None:
        """Ends the connection with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        socket.close(self.connection.detach())
        self.close_connection = True

    def handle(self) -> None:
        with suppress(OSError, ValueError):  # the client was killed, or `reset` closed the connection
            super().handle()


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Runs a proxy before the server at `upstream` (http://host:port)."""
    proxy = FaultyProxy(upstream)
    with proxy.server:
        try:
            yield proxy
        finally:
            proxy.forget()
