"""Reads bodies of requests, with limits of size and time, and makes error answers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from maskcast.registry.inputs import MAX_BYTES

BODY_S, STALL_S = 60.0, 10.0  # maximum seconds for a whole body, and without any data
FIRST_BYTES = 64 << 10  # bytes read before a body takes a slot, so that slow clients do not block others


async def read_body(request: Request, acquire_slot: Callable[[], Awaitable[None]]) -> bytearray | Response:
    """Returns the body, or an error answer if it is too large or too slow; memory is bounded.

    Args:
        request: to read from.
        acquire_slot: waits for a free slot; called once.
    """
    body, size, waiting = bytearray(), 0, True
    now = asyncio.get_running_loop().time
    end = now() + BODY_S
    try:
        async with asyncio.timeout(STALL_S) as limit:
            async for chunk in request.stream():  # to its end, because clients do not read an answer while sending
                size += len(chunk)
                if size <= MAX_BYTES:
                    body += chunk
                if waiting and size > FIRST_BYTES:
                    limit.reschedule(None)
                    await acquire_slot()
                    waiting, end = False, now() + BODY_S
                limit.reschedule(min(end, now() + STALL_S))
    except TimeoutError:
        problem = f"timed out (no data for {STALL_S:.0f} s, or incomplete after {BODY_S:.0f} s)"
        return error_answer(408, f"body: {problem}; send it faster, or send less")
    if size > MAX_BYTES:
        return error_answer(413, f"body: larger than {MAX_BYTES >> 20} MiB; send fewer clips, or smaller frames")
    if waiting:
        await acquire_slot()
    return body


async def discard_body(request: Request, limit_s: float = STALL_S) -> None:
    """Reads and drops what is left of a body, because clients do not read an answer while sending.

    Args:
        request: to read from.
        limit_s: maximum seconds.
    """
    # RuntimeError: Starlette's for a body that was read to its end
    with suppress(TimeoutError, ClientDisconnect, RuntimeError):
        async with asyncio.timeout(limit_s):
            async for _ in request.stream():
                pass


def error_answer(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Returns an error answer in the protocol's form."""
    return JSONResponse({"error": message}, status, headers)
