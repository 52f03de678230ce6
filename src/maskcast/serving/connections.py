"""Connections on which nobody asks for anything, or reads the answer: they are closed and hold up no client."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_S = 30.0
"""A client that sends no whole request head, or reads nothing of an answer, for so long is given up; it may take
twice as long."""


class PatientProtocol(H11Protocol):
    """uvicorn's protocol, which of itself waits for ever for the first request, with an end to its patience."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._seen: object = None
        self._unread = 0
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
        """Closes the connection if nothing has moved on it since the last look, and it is the client's turn.

        Either no request has come, or nothing was read of an answer, which would stay in memory for ever.
        """
        unread = self.transport.get_write_buffer_size()
        if self.cycle is self._seen:
            if unread and unread == self._unread:
                self.transport.abort()
                return
            if not unread and self.conn.their_state is h11.IDLE:  # to close waits for what is unread
                self.transport.close()
                return
        self._seen, self._unread = self.cycle, unread
        self._timer = self.loop.call_later(HEADER_S, self._look)
