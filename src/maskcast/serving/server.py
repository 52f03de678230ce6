"""The process that serves a model: its sockets and its shutdown."""

import asyncio
import errno
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.logging import AccessFormatter
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.redaction import redacted
from maskcast.serving.application import ServedModel, make_app
from maskcast.serving.connections import TimeoutProtocol
from maskcast.serving.sessions import MAX_FRAME
from maskcast.stopping import terminate_now

DRAIN_S = 20  # seconds for answering waiting requests at shutdown; Kubernetes kills after 30
ACCESS_LINE = '%(asctime)s %(client_addr)s "%(request_line)s" %(status_code)s'
LAST_S = 2  # further seconds for sending refusals
ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # errors if there is no IPv6


class _WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol without the error that it (0.54) logs after each handshake that is refused."""

    async def send(self, message: Any) -> None:
        """Sends a message of the application."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True


PROTOCOLS: dict[str, Any] = {  # protocol settings of uvicorn
    "http": TimeoutProtocol,
    "ws": _WebSocketProtocol,
    "ws_max_size": 2 * MAX_FRAME,  # beyond this the connection is closed without a message
    "ws_per_message_deflate": False,  # frames are hardly compressible
}


def listen(host: str, port: int) -> list[socket.socket]:
    """Returns listening sockets for all addresses of a host.

    Raises:
        MaskcastError: the port is in use, or the host is not an address of this machine.
    """
    sockets: list[socket.socket] = []
    try:
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = [*dict.fromkeys((family, address[:2]) for family, *_, address in resolved)]
        for number, (family, address) in enumerate(addresses, 1):
            try:
                sockets.append(socket.create_server(address, family=family))
            except OSError as error:
                if error.errno not in ABSENT or (number == len(addresses) and not sockets):
                    raise
    except (OSError, UnicodeError) as error:  # UnicodeError for names that are invalid in DNS
        reason = str(getattr(error, "strerror", "not a valid host name"))
        reason = reason.partition(" (while")[0]  # the rest repeats the address
        raise MaskcastError(
            f"--host {host} --port {port}: cannot listen ({reason}); use an address of this machine and a free "
            "port"
        ) from None
    return sockets


def is_local(sockets: Sequence[socket.socket]) -> bool:
    """Says whether only this machine reaches the listening sockets."""
    return all(ipaddress.ip_address(listening.getsockname()[0]).is_loopback for listening in sockets)


def run_server(
    served: ServedModel,
    sockets: list[socket.socket],
    sessions: int,
    idle_s: float,
    allowed_origins: Sequence[str] = (),
    host: str = "localhost",
    *,
    access_log: bool = False,
) -> None:
    """Serves a model until the process is stopped; then answers waiting requests for up to ``DRAIN_S``.

    If a computation is still running then, the process ends by the signal.

    Args:
        served: the model.
        sockets: see ``listen``.
        sessions: see ``make_app``.
        idle_s: see ``make_app``.
        allowed_origins: see ``make_app``.
        host: name that the sockets belong to.
        access_log: whether to print a line for each request.
    """
    app = make_app(served, sessions, idle_s, allowed_origins, host if is_local(sockets) else None)
    last = DRAIN_S + LAST_S
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=last, **PROTOCOLS)
    if access_log:  # the log level is that of all loggers of uvicorn
        access = logging.getLogger("uvicorn.access")
        access.setLevel(logging.INFO)
        for handler in access.handlers:
            handler.setFormatter(_RedactingFormatter(ACCESS_LINE, use_colors=False))
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again after the shutdown
        _Server(config, app.state.refuse_pending).run(sockets)


class _RedactingFormatter(AccessFormatter):
    """uvicorn's formatter of requests, whose query may have a token."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        return redacted(super().formatMessage(record))


class _Server(uvicorn.Server):
    """uvicorn's server, which reports what it waits for at shutdown; a second Ctrl-C ends the wait.

    Args:
        config: of uvicorn.
        refuse_pending: refuses waiting requests.
    """

    def __init__(self, config: uvicorn.Config, refuse_pending: Callable[[], None]) -> None:
        super().__init__(config)
        self._refuse_pending, self._late = refuse_pending, False

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Waits for running requests, with a time limit, and ends."""
        if count := len(self.server_state.tasks):
            running = "1 request or session" if count == 1 else f"{count} requests or sessions"
            say(f"shutting down: waiting up to {DRAIN_S} s for {running}; Ctrl-C again stops at once")
        limit = asyncio.get_running_loop().call_later(DRAIN_S, self._end_late)
        await super().shutdown(sockets)
        limit.cancel()
        if self._late:
            terminate_now(signal.SIGTERM, None)

    def _end_late(self) -> None:
        self._late = True
        self._refuse_pending()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handles a signal."""
        if self.should_exit and sig == signal.SIGINT:
            terminate_now(sig, frame)
        super().handle_exit(sig, frame)
