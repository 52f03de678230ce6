"""Sessions over WebSocket: a client sends the frames of a video one by one, and receives their masks.

A message is a line of JSON, a newline, and bytes. A frame is ``{"height": 270, "width": 512}`` and its RGB pixels;
``"reset": true`` starts a new video with it. The answer is ``{"frame": 0, "reset": "", "height": 270, "width":
512}`` and the concatenated pixels of all label maps, in the order of the greeting.

The greeting is a text message in JSON with the model, its label maps, and the idle seconds after which the server
closes the connection. An error is answered by a text ``{"error": ...}``, and the connection is closed. A session
ends with its connection.

Legend: H height, W width, C = 3 channels.
"""

import asyncio
import json
from concurrent.futures import Executor
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from maskcast.errors import MaskcastError
from maskcast.inference.session import Session
from maskcast.models.limits import time_limit
from maskcast.registry.forecast_models import MaskerModel
from maskcast.serving.metrics import ServerMetrics

MAX_FRAME = 32 << 20  # bytes; a frame of 4096x2160 has 27 MB
MAX_HEAD = 1000  # bytes of the JSON line
EXAMPLE = '{"height": 270, "width": 512}, a newline, then height x width x 3 bytes'
BAD, BUSY, IDLE, FAILED = 1008, 1013, 1001, 1011  # close codes of RFC 6455


class Sessions:
    """The sessions of a server, with limits of their number and idle time.

    Args:
        model: the masker.
        greeting: information for clients.
        worker: executor that computes one frame at a time for all sessions.
        metrics: count sessions and their frames.
        most: maximum number of open sessions.
        idle_s: seconds without a frame after which a session is closed.
        answer_s: time limit in seconds for one frame, because other clients wait for it.
    """

    def __init__(
        self,
        model: MaskerModel,
        greeting: dict[str, Any],
        worker: Executor,
        metrics: ServerMetrics,
        most: int,
        idle_s: float,
        answer_s: float,
    ) -> None:
        self.model, self.worker, self.metrics = model, worker, metrics
        self.most, self.idle_s, self.answer_s = most, idle_s, answer_s
        maps = [label_map.to_entry() for label_map in model.network.maps]
        self.greeting = {**greeting, "maps": maps, "idle_s": idle_s}
        self.open = 0  # number of open sessions

    async def __call__(self, socket: WebSocket) -> None:
        """Serves one client until it disconnects, sends an invalid message or is idle too long."""
        await socket.accept()
        if self.open >= self.most:
            await refuse(socket, BUSY, f"session: the limit of {self.most} open sessions is reached; retry later")
            return
        self.open += 1
        try:
            with self.metrics.sessions.track_inprogress(), self.model.session() as session:
                await self._serve_frames(socket, session)
        except MaskcastError as error:
            await refuse(socket, BAD, str(error))
        except TimeoutError:
            await refuse(socket, IDLE, f"session: timed out, no frame for {self.idle_s:g} s; reconnect")
        except WebSocketDisconnect:  # while an answer was being sent
            pass
        except Exception:  # a model may raise any error
            await refuse(socket, FAILED, "session: the model failed; see the server's log")
            raise
        finally:
            self.open -= 1

    async def _serve_frames(self, socket: WebSocket, session: Session) -> None:
        await socket.send_json(self.greeting)
        count = 0
        while True:
            async with asyncio.timeout(self.idle_s):
                message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            answer = await asyncio.get_running_loop().run_in_executor(
                self.worker, self._answer, session, message.get("bytes"), count
            )
            async with asyncio.timeout(self.idle_s):  # a client that does not read counts as idle
                await socket.send_bytes(answer)
            count += 1
            self.metrics.session_frames.inc()

    def _answer(self, session: Session, message: bytes | None, count: int) -> bytes:
        """Returns the answer to a message; runs in the model's thread."""
        frame_HWC, new = read_frame(message)
        if new:
            session.reset()
        with time_limit(self.answer_s):
            step = session.step(frame_HWC)
        height, width = frame_HWC.shape[:2]
        head = {"frame": count, "reset": step.reset, "height": height, "width": width}
        masks = (mask_HW.tobytes() for mask_HW in step.maps.values())
        return b"".join([json.dumps(head).encode(), b"\n", *masks])


async def refuse(socket: WebSocket, code: int, reason: str) -> None:
    """Sends the reason, if the client is still connected, and closes the connection."""
    try:
        async with asyncio.timeout(1):
            await socket.send_json({"error": reason})
            await socket.close(code)
    except (WebSocketDisconnect, TimeoutError, RuntimeError):  # the client has disconnected
        pass


def read_frame(message: bytes | None) -> tuple[np.ndarray, bool]:
    """Returns the frame (H, W, C) uint8 in a message, and whether it starts a new video.

    Args:
        message: None if the client sent text.

    Raises:
        MaskcastError: the message is invalid; the error says what is expected.
    """
    if message is not None and len(message) > MAX_FRAME:
        raise MaskcastError(f"message: larger than {MAX_FRAME >> 20} MiB; send smaller frames")
    end = -1 if message is None else message.find(b"\n", 0, MAX_HEAD)
    if message is None or end < 0:
        raise MaskcastError(f"message: not a frame; send a binary message of {EXAMPLE}")
    try:
        head = json.loads(message[:end])
        height, width, new = head["height"], head["width"], head.get("reset", False)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise MaskcastError(f"message: the first line is not JSON with height and width; send {EXAMPLE}") from None
    if not all(type(side) is int and side > 0 for side in (height, width)) or not isinstance(new, bool):
        raise MaskcastError(
            f"message: height and width must be positive integers, and reset true or false; send {EXAMPLE}"
        )
    pixels = np.frombuffer(message, np.uint8, offset=end + 1)
    if pixels.size != height * width * 3:
        raise MaskcastError(
            f"message: {height}x{width} pixels have {height * width * 3} bytes, got {pixels.size}; send {EXAMPLE}"
        )
    return pixels.reshape(height, width, 3), new
