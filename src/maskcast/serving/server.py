"""A registered model behind HTTP, by the Open Inference Protocol (v2) of KServe, with sessions over WebSocket."""

import asyncio
import errno
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from maskcast import __version__
from maskcast.errors import MaskcastError
from maskcast.models.bounds import done_within
from maskcast.progress import say
from maskcast.reading import counted
from maskcast.registry.forecast_models import MaskerModel, PipelineModel
from maskcast.registry.inputs import MAX_BYTES, Shape, check_size
from maskcast.registry.loading import LoadedPipeline, Servable
from maskcast.serving.connections import PatientProtocol
from maskcast.serving.measured import GONE, MEDIA_TYPE, Measured
from maskcast.serving.protocol import HEADER, check_answer, read_request, write_answer
from maskcast.serving.sessions import BAD, MAX_FRAME, Sessions, refuse
from maskcast.stopping import end_at_once

INPUT, OUTPUT = "frames", "masks"
MAX_BODIES = 16  # in memory at once; further requests wait unread, with no more of them than the kernel holds
SESSIONS, IDLE_S = 8, 60.0  # at once, and seconds without a frame after which one ends
BODY_S, STALL_S = 60.0, 10.0  # a client that sends its body more slowly, or nothing for so long, is given up
ANSWER_S = 300.0  # that one answer may take to compute: the others wait for it
DRAIN_S = 20  # to answer what is held when the server is told to stop; Kubernetes kills it after 30
LAST_S = 2  # after that, to send the refusals
ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # of IPv6 where there is none
FIRST_BYTES = 64 << 10  # of a body that are read before it is among the few: who sends little holds up nobody
PROTOCOLS: dict[str, Any] = {  # that uvicorn is to speak
    "http": PatientProtocol,
    "ws": "websockets-sansio",
    "ws_max_size": 2 * MAX_FRAME,  # who sends still more hears nothing but that the line breaks
    "ws_per_message_deflate": False,  # frames hardly shrink by it
}

Handler = Callable[[HttpRequest], Awaitable[Response]]


@dataclass(frozen=True)
class Served:
    """A model that answers requests.

    Attributes:
        name: what its routes call it.
        version: its number, or 0.
        digest: of what was loaded.
        facts: what is told of it besides.
        shapes: of input and output.
        answer: runs it, and says of each clip in what it is unlike those that the model knows (see
            ``PipelineModel.answer``); called by one thread, one request at a time, so that memory is bounded.
        masker: what sessions are of; None where there are none.
    """

    name: str
    version: str
    digest: str
    facts: Mapping[str, Any]
    shapes: tuple[Shape, Shape]
    answer: Callable[[Any], tuple[Any, list[str]]]
    masker: MaskerModel | None = None


def serving(loaded: Servable) -> Served:
    """Returns a pipeline or a masker as a model that answers requests."""
    model = loaded.model
    masker = model.masker if isinstance(model, PipelineModel) else model
    label_map = masker.network.maps[masker.place]
    _ = masker.network.numbers_per_pixel  # runs the network, for which the first client would wait
    facts: dict[str, Any] = {"label_map": label_map.name, "classes": list(label_map.classes)}
    if masker.size:  # frames of another size are masked at theirs, and worse
        facts |= dict(zip(("height", "width"), masker.size, strict=True))

    def answer(frames: Any) -> tuple[Any, list[str]]:
        return masker.predict(frames), []

    name = loaded.name if loaded.version else Path(os.path.abspath(loaded.name)).name  # of `.`, too
    version, shapes = loaded.version or "0", (model.shape_in, model.shape_out)
    if isinstance(model, PipelineModel) and isinstance(loaded, LoadedPipeline):
        facts = loaded.about.model_dump(mode="json", exclude={"format", "kind"})
        return Served(name, version, loaded.digest, facts, shapes, model.answer, masker)
    return Served(name, version, loaded.digest, facts, shapes, answer, masker)


def listen(host: str, port: int) -> list[socket.socket]:
    """Returns sockets that listen at every address of a host.

    Raises:
        MaskcastError: the port is taken, or this machine has no such address.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        places = [*dict.fromkeys((family, place[:2]) for family, *_, place in found)]
        for number, (family, place) in enumerate(places, 1):
            try:
                sockets.append(socket.create_server(place, family=family))
            except OSError as error:
                if error.errno not in ABSENT or (number == len(places) and not sockets):
                    raise
    except (OSError, UnicodeError) as error:  # the latter of names that DNS cannot have
        reason = str(getattr(error, "strerror", "no name of a host"))
        reason = reason.partition(" (while")[0]  # which goes on with the address
        raise MaskcastError(
            f"--host {host} --port {port}: cannot listen there ({reason}); give an address of this machine and a "
            "port that is free"
        ) from None
    return sockets


def run_server(served: Served, sockets: list[socket.socket], sessions: int, idle_s: float) -> None:
    """Answers for a model until the process is told to stop, and then what it was asked before, for ``DRAIN_S``.

    A process that is still computing then ends by the signal, since nobody waits for that any more.

    Args:
        served: the model.
        sockets: see ``listen``.
        sessions: see ``make_app``.
        idle_s: see ``make_app``.
    """
    app = make_app(served, sessions, idle_s)
    last = DRAIN_S + LAST_S
    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=last, **PROTOCOLS)
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal anew when it is done
        _Server(config, app.state.refuse_held).run(sockets)


class _Server(uvicorn.Server):
    """Says what it waits for when it is told to stop, and does not wait where Ctrl-C comes again.

    Args:
        config: of uvicorn.
        refuse_held: refuses what has waited for too long.
    """

    def __init__(self, config: uvicorn.Config, refuse_held: Callable[[], None]) -> None:
        super().__init__(config)
        self._refuse_held, self._late = refuse_held, False

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends after what is under way, or when that takes too long."""
        if count := len(self.server_state.tasks):
            held = f"{counted(count, 'request')} or session is done"
            say(f"stops when {held}, in {DRAIN_S} s at most; Ctrl-C again stops at once")
        limit = asyncio.get_running_loop().call_later(DRAIN_S, self._end_late)
        await super().shutdown(sockets)
        limit.cancel()
        if self._late:
            end_at_once(signal.SIGTERM, None)

    def _end_late(self) -> None:
        self._late = True
        self._refuse_held()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Hears a signal."""
        if self.should_exit and sig == signal.SIGINT:
            end_at_once(sig, frame)
        super().handle_exit(sig, frame)


def make_app(served: Served, sessions: int = SESSIONS, idle_s: float = IDLE_S) -> Starlette:
    """Returns the application that answers for a model; its ``state.refuse_held()`` refuses what waits for that.

    Args:
        served: the model.
        sessions: how many there may be at once.
        idle_s: seconds without a frame after which one ends.
    """
    service = _Service(served, sessions, idle_s)

    async def failed(_: HttpRequest, __: Exception) -> Response:
        return _error(500, "the model failed; the server's log says why")

    async def elsewhere(request: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        await _pass_over_body(request)
        what = f"{request.method} {request.url.path}: not here"
        line = f"{what}; this server speaks the v2 protocol: POST /v2/models/{served.name}/infer"
        return _error(error.status_code, line, error.headers)

    app = Starlette(routes=service.routes(), exception_handlers={404: elsewhere, 405: elsewhere, 500: failed})
    app.state.refuse_held = service.refuse_held
    return app


class _Service:
    """What answers for a model; see ``make_app``."""

    def __init__(self, served: Served, sessions: int, idle_s: float) -> None:
        self.served = served
        self.unknown = f"no such model here; this server has {served.name!r}, version {served.version!r}"
        self.identity = {"model_name": served.name, "model_version": served.version}
        self.measured = Measured(served.name, served.version, served.digest)
        self.turns, self.computing = asyncio.Semaphore(MAX_BODIES), asyncio.Lock()
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.held: set[asyncio.Task[Response]] = set()
        self.sessions: Sessions | None = None
        if served.masker is not None:
            greeting = self.identity | {"digest": served.digest}
            self.sessions = Sessions(served.masker, greeting, self.worker, sessions, idle_s)

    def routes(self) -> list[BaseRoute]:
        """Returns where it answers what."""
        served, name = self.served, self.served.name
        ready = _always({"live": True, "ready": True})
        server = {"name": "maskcast", "version": __version__, "extensions": ["binary_tensor_data"]}
        which = {"name": name, "version": served.version, "digest": served.digest, "maskcast": __version__}
        inputs, outputs = (list(shape) for shape in served.shapes)
        model = {
            "name": name,
            "versions": [served.version],
            "platform": "maskcast",
            "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": inputs}],
            "outputs": [{"name": OUTPUT, "datatype": "UINT8", "shape": outputs}],
            "parameters": {"digest": served.digest, **served.facts},
        }
        found: list[BaseRoute] = [Route(f"/v2/health/{path}", ready) for path in ("live", "ready")]
        found += [
            Route("/v2", _always(server)),
            Route("/version", _always(which)),
            Route("/metrics", self._metrics),
        ]
        for place in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            found += [
                Route(place, self._if_here(_always(model))),
                Route(f"{place}/ready", self._if_here(_always({"name": name, "ready": True}))),
                Route(f"{place}/infer", self._if_here(self._infer), methods=["POST"]),
                WebSocketRoute(f"{place}/session", self._session),
            ]
        return found

    def refuse_held(self) -> None:
        """Refuses the requests that wait for an answer."""
        for answer in self.held:
            answer.cancel()

    def _is_here(self, asked: Mapping[str, str]) -> bool:
        name, version = self.served.name, self.served.version
        return asked["name"] == name and asked.get("version", version) == version

    def _if_here(self, handler: Handler) -> Handler:
        async def answer(request: HttpRequest) -> Response:
            if self._is_here(request.path_params):
                return await handler(request)
            await _pass_over_body(request)
            return _error(404, self.unknown)

        return answer

    async def _metrics(self, _: HttpRequest) -> Response:
        talk = self.sessions
        counts = (0, 0) if talk is None else (talk.open, talk.frames)
        return Response(self.measured.text(*counts), media_type=MEDIA_TYPE)

    async def _session(self, socket: WebSocket) -> None:
        if self.sessions is not None and self._is_here(socket.path_params):
            await self.sessions(socket)
            return
        await socket.accept()
        await refuse(socket, BAD, self.unknown)

    async def _infer(self, request: HttpRequest) -> Response:
        begin, code = time.perf_counter(), 500
        self.measured.under_way += 1
        try:
            answer = await self._answer_or_refuse(request)
            code = answer.status_code
            return answer
        finally:
            self.measured.under_way -= 1
            self.measured.answered(code, time.perf_counter() - begin)

    async def _answer_or_refuse(self, request: HttpRequest) -> Response:
        if (encoding := request.headers.get("Content-Encoding", "identity")) != "identity":
            await _pass_over_body(request)
            return _error(415, f"Content-Encoding: got {encoding[:40]!r}; send the body as it is")
        answer = asyncio.create_task(self._answer(request))
        self.held.add(answer)
        try:
            return await answer
        except asyncio.CancelledError:
            stops = "this server stops; ask again in a second, where another may answer"
            return _error(503, stops, {"Retry-After": "1"})
        finally:
            self.held.discard(answer)

    async def _answer(self, request: HttpRequest) -> Response:
        async with AsyncExitStack() as stack:
            try:
                body = await _body(request, lambda: stack.enter_async_context(self.turns))
            except ClientDisconnect:  # it has waited long enough for its turn
                return Response(status_code=GONE)
            if isinstance(body, Response):
                return body
            async with self.computing:
                if await request.is_disconnected():  # nobody waits for what others would have to wait for
                    return Response(status_code=GONE)
                begin, loop = time.perf_counter(), asyncio.get_running_loop()
                try:
                    length = request.headers.get(HEADER)
                    answer, headers = await loop.run_in_executor(self.worker, self._computed, body, length)
                except MaskcastError as error:
                    return _error(400, str(error))
                finally:
                    self.measured.computed_s += time.perf_counter() - begin
            return Response(answer, headers=headers)

    def _computed(self, body: bytearray, json_length: str | None) -> tuple[bytes, dict[str, str]]:
        """Returns the body of an answer, and its headers; runs in the thread of the model."""
        asked = read_request(body, json_length, INPUT, OUTPUT)
        check_answer(asked, check_size(asked.tensor.shape, *self.served.shapes))
        with done_within(ANSWER_S):
            masks, warnings = self.served.answer(asked.tensor)
        self.measured.inputs += len(masks)
        self.measured.unlike += sum(map(bool, warnings))
        parameters = {"digest": self.served.digest} | _warning(warnings)
        return write_answer(asked, masks, OUTPUT, self.identity | {"parameters": parameters})


def _always(content: Mapping[str, Any]) -> Handler:
    """Returns what answers the same to everybody."""

    async def answer(_: HttpRequest) -> Response:
        return JSONResponse(content)

    return answer


async def _body(request: HttpRequest, turn: Callable[[], Awaitable[None]]) -> bytearray | Response:
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
        return _error(408, f"body: {slow}; send it faster, or less")
    if size > MAX_BYTES:
        return _error(413, f"body: more than {MAX_BYTES >> 20} MiB; send fewer clips, or smaller frames")
    if waits:
        await turn()
    return body


async def _pass_over_body(request: HttpRequest) -> None:
    """Reads a body that nobody wants to its end: clients that are sending do not hear an answer."""
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(STALL_S):
            async for _ in request.stream():
                pass


def _warning(warnings: list[str]) -> dict[str, str]:
    """Returns the parameter of an answer that tells of the first clip with a warning, and of how many more."""
    told = [f"clip {k}: {warning}" for k, warning in enumerate(warnings) if warning]
    if not told:
        return {}
    return {"warning": told[0] + (f" (and {counted(len(told) - 1, 'more clip')})" if told[1:] else "")}


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, headers)
