"""Closes connections whose clients send no request or do not read the answer, so that they do not block others."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_S = 30.0
"""Seconds without a complete request head, or without reading an answer, after which a connection is closed. It
may take twice as long."""


class TimeoutProtocol(H11Protocol):
    """uvicorn's protocol with a timeout for the first request, for which uvicorn itself has none."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._last_cycle: object = None
        self._last_unread = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the timeout."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEADER_S, self._check_progress)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the timeout."""
        super().connection_lost(exc)
        self._cancel_timer()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Ends the timeout, as another protocol takes over."""
        self._cancel_timer()
        super().handle_websocket_upgrade(event)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check_progress(self) -> None:
        """Closes the connection if there was no progress since the last check and it is the client's turn.

        Either no request has come, or the client does not read an answer, which would stay in memory.
        """
        unread = self.transport.get_write_buffer_size()
        if self.cycle is self._last_cycle:
            if unread and unread == self._last_unread:
                self.transport.abort()
                return
            if not unread and self.conn.their_state is h11.IDLE:  # close waits for unread data
                self.transport.close()
                return
        self._last_cycle, self._last_unread = self.cycle, unread
        self._timer = self.loop.call_later(HEADER_S, self._check_progress)
