"""Connections on which nobody asks for anything: they are closed, so that they hold up no client."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_S = 30.0
"""A client that sends no whole request head for so long, or at most twice as long, is given up."""


class PatientProtocol(H11Protocol):
    """uvicorn's protocol, which of itself waits for ever for the first request, with an end to its patience."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._seen: object = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts to wait for a request."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEADER_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the wait."""
        super().connection_lost(exc)
        self._end_wait()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Ends the wait: another protocol takes over."""
        self._end_wait()
        super().handle_websocket_upgrade(event)

    def _end_wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """Closes the connection if it waits for a request, and none has come since the last look."""
        if self.conn.their_state is h11.IDLE and self.cycle is self._seen:
            self.transport.close()
            return
        self._seen = self.cycle
        self._timer = self.loop.call_later(HEADER_S, self._look)
