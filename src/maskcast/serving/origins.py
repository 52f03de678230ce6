"""Refuses requests that a web page of another host makes through a browser.

A browser states the origin of the page in the header ``Origin``. Without this check, any page that a user visits
could use a server on the user's own machine. Other clients send no ``Origin`` and are not affected.
"""

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


def origin_middleware(allowed: Sequence[str]) -> list[Middleware]:
    """Returns the middleware that refuses foreign origins, and lets pages of allowed ones read the answers.

    Args:
        allowed: origins that may use the server, besides its own.
    """
    check = Middleware(OriginCheck, allowed=frozenset(allowed))
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
    """Answers requests and WebSocket handshakes of foreign origins by 403; see ``origin_middleware``."""

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self.app, self.allowed = app, allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it on."""
        if scope["type"] not in ("http", "websocket") or self._is_allowed(HTTPConnection(scope)):
            await self.app(scope, receive, send)
            return
        origin = HTTPConnection(scope).headers["Origin"][:100]
        answer = error_answer(
            403, f"Origin: {origin!r} is not this server's; start it with --allow-origin ORIGIN to allow it"
        )
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(answer)
            return
        await discard_body(Request(scope, receive, send))
        await answer(scope, receive, send)

    def _is_allowed(self, connection: HTTPConnection) -> bool:
        origin, host = (connection.headers.get(name) for name in ("Origin", "Host"))
        if origin is None or origin in self.allowed:
            return True
        try:
            return bool(host) and urlsplit(origin).netloc.lower() == str(host).lower()
        except ValueError:  # an invalid address
            return False
