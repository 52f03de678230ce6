"""Refuses requests that a web page of another host makes through a browser.

A browser states the origin of the page in the header ``Origin``. Without this check, any page that a user visits
could use a server on the user's own machine. Other clients send no ``Origin`` and are not affected.

A page can also point its own host name to this machine (DNS rebinding): for the browser, the server then is of the
page's origin. So a server that only this machine can reach also refuses other names in the header ``Host``.
"""

import ipaddress
import re
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from maskcast.errors import MaskcastError
from maskcast.serving.protocol import HEADER
from maskcast.serving.request_bodies import discard_body, error_answer

ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[^/\s?#@A-Z]+")  # as browsers send it


def check_origins(origins: Sequence[str]) -> None:
    """Checks the values of ``--allow-origin``.

    Raises:
        MaskcastError: one is not an origin.
    """
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise MaskcastError(
                f"--allow-origin {origin}: not an origin; give SCHEME://HOST[:PORT] in lower case and without a "
                "path, e.g. https://app.example.org, or null for pages opened from files"
            )


def origin_middleware(allowed: Sequence[str], local: str | None = None) -> list[Middleware]:
    """Returns the middleware that refuses foreign origins, and lets pages of allowed ones read the answers.

    Args:
        allowed: origins that may use the server, besides its own.
        local: name under which the server listens on this machine alone. Then values of ``Host`` are refused that
            name neither this machine nor the host of an allowed origin. None if others reach the server.
    """
    check = Middleware(OriginCheck, allowed=frozenset(allowed), local=local)
    if not allowed:
        return [check]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=allowed,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=[HEADER],
    )
    return [cors, check]


class OriginCheck:
    """Answers foreign requests and WebSocket handshakes by 403; see ``origin_middleware``."""

    def __init__(self, app: ASGIApp, allowed: Collection[str], local: str | None) -> None:
        self.app, self.allowed, self.local = app, allowed, local
        self.allowed_hosts = {urlsplit(origin).netloc for origin in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it on."""
        problem = self._problem(HTTPConnection(scope)) if scope["type"] in ("http", "websocket") else None
        if problem is None:
            await self.app(scope, receive, send)
            return
        answer = error_answer(403, problem)
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(answer)
            return
        await discard_body(Request(scope, receive, send))
        await answer(scope, receive, send)

    def _problem(self, connection: HTTPConnection) -> str | None:
        origin, host = connection.headers.get("Origin"), connection.headers.get("Host", "").lower()
        if self.local and host and not _is_this_machine(host, self.local) and host not in self.allowed_hosts:
            return (
                f"Host: {host[:100]!r} is not this machine, and the server listens on this machine alone; start "
                "it with --allow-origin http://HOST[:PORT] to allow it"
            )
        if origin is None or origin in self.allowed or (host and _netloc(origin) == host):
            return None
        return f"Origin: {origin[:100]!r} is not this server's; start it with --allow-origin ORIGIN to allow it"


def _netloc(address: str) -> str:
    """Returns host and port of an address, in lower case; nothing if it is invalid."""
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return ""


def _is_this_machine(host: str, local: str) -> bool:
    """Says whether the value of a header ``Host`` names this machine."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    if name in ("localhost", local.lower()) or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:  # another name
        return False
