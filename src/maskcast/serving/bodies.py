"""Bodies of requests: read to their end or given up, and the errors that answer them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from maskcast.registry.inputs import MAX_BYTES

BODY_S, STALL_S = 60.0, 10.0  # a client that sends its body more slowly, or nothing for so long, is given up
FIRST_BYTES = 64 << 10  # of a body that are read before it is among the few: who sends little holds up nobody


async def read_body(request: Request, turn: Callable[[], Awaitable[None]]) -> bytearray | Response:
    """Returns the body, or the answer to one that is too large or too slow; never holds more than it may.

    Args:
        request: whose body it is.
        turn: waits until there is room for a body; called once.
    """
    body, size, waits = bytearray(), 0, True
    now = asyncio.get_running_loop().time
    end = now() + BODY_S
    try:
        async with asyncio.timeout(STALL_S) as limit:
            async for chunk in request.stream():  # to its end: clients that are sending do not hear an answer
                size += len(chunk)
                if size <= MAX_BYTES:
                    body += chunk
                if waits and size > FIRST_BYTES:
                    limit.reschedule(None)
                    await turn()
                    waits, end = False, now() + BODY_S
                limit.reschedule(min(end, now() + STALL_S))
    except TimeoutError:
        slow = f"nothing of it for {STALL_S:.0f} s, or not all of it within {BODY_S:.0f} s"
        return error_answer(408, f"body: {slow}; send it faster, or less")
    if size > MAX_BYTES:
        return error_answer(413, f"body: more than {MAX_BYTES >> 20} MiB; send fewer clips, or smaller frames")
    if waits:
        await turn()
    return body


async def pass_over_body(request: Request) -> None:
    """Reads a body that nobody wants to its end: clients that are sending do not hear an answer."""
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(STALL_S):
            async for _ in request.stream():
                pass


def error_answer(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Returns an answer that says what is wrong, in the form that the protocol has for it."""
    return JSONResponse({"error": message}, status, headers)
