"""The web application of a registered model: KServe's Open Inference Protocol (v2), and WebSocket sessions."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from maskcast import __version__
from maskcast.data.images import RESIZE
from maskcast.errors import MaskcastError
from maskcast.installation import commit
from maskcast.models.limits import time_limit
from maskcast.reading import pluralize
from maskcast.registry.forecast_models import MaskerModel, PipelineModel
from maskcast.registry.inputs import Shape, as_batch, check_request_size
from maskcast.registry.loading import Loaded, LoadedPipeline
from maskcast.serving.metrics import CLIENT_CLOSED, MEDIA_TYPE, ServerMetrics
from maskcast.serving.origins import origin_middleware
from maskcast.serving.protocol import HEADER, check_answer, read_request, write_answer
from maskcast.serving.request_bodies import discard_body, error_answer, read_body
from maskcast.serving.sessions import BAD, Sessions, refuse

INPUT, OUTPUT = "frames", "masks"
MAX_BODIES = 16  # maximum bodies in memory; further requests wait unread in the kernel's buffers
SESSIONS, IDLE_S = 8, 60.0  # maximum open sessions, and seconds without a frame after which one is closed
REFUSAL_S = 1.5  # maximum seconds for reading the rest of a body that is refused at shutdown
ANSWER_S = 300.0  # time limit for computing one answer, because other requests wait for it

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class ServedModel:
    """A served model.

    Attributes:
        name: its name in routes.
        version: version number, or 0.
        digest: of the loaded model.
        facts: further information for clients.
        shapes: of input and output.
        predict_with_warnings: see ``PipelineModel``; it always gets a batch axis. It is called by one thread, one
            request at a time, so that memory is bounded.
        masker: model for sessions; None if there are no sessions.
    """

    name: str
    version: str
    digest: str
    facts: Mapping[str, Any]
    shapes: tuple[Shape, Shape]
    predict_with_warnings: Callable[[Any], tuple[Any, list[str]]]
    masker: MaskerModel | None = None


def served_model(loaded: Loaded[Any, Any]) -> ServedModel:
    """Returns a pipeline or a masker as a served model."""
    if isinstance(loaded.model, PipelineModel):
        masker, answer = loaded.model.masker, _forecast_by(loaded)
        facts: dict[str, Any] = loaded.about.model_dump(mode="json", exclude={"format", "kind"})
        facts["resize"] = RESIZE
    else:
        masker, answer = loaded.model, lambda frames: (masker.predict(frames), [])
        label_map = masker.network.maps[masker.map_index]
        facts = {"label_map": label_map.name, "classes": list(label_map.classes)}
        if masker.size:  # frames of another size would be masked without resizing, with worse results
            facts |= {**dict(zip(("height", "width"), masker.size, strict=True)), "resize": RESIZE}
    _ = masker.network.numbers_per_pixel  # runs the network once, so that the first client need not wait
    name = loaded.name if loaded.version else Path(os.path.abspath(loaded.name)).name  # works for `.`
    version, shapes = loaded.version or "0", (loaded.model.shape_in, loaded.model.shape_out)
    return ServedModel(name, version, loaded.digest, facts, shapes, answer, masker)


def _forecast_by(loaded: LoadedPipeline) -> Callable[[Any], tuple[Any, list[str]]]:
    """Returns a function that forecasts clips, and also warns of their length if the evaluation had another."""
    evaluated = loaded.about.context_frames

    def answer(clips_BTHWC: Any) -> tuple[Any, list[str]]:
        masks, warnings = loaded.model.predict_with_warnings(clips_BTHWC)
        given = clips_BTHWC.shape[1]
        if given == evaluated:
            return masks, warnings
        length = f"has {pluralize(given, 'frame')}, in the evaluation {evaluated}, so the forecast may be worse"
        return masks, ["; ".join(filter(None, (length, warning))) for warning in warnings]

    return answer


def make_app(
    served: ServedModel,
    sessions: int = SESSIONS,
    idle_s: float = IDLE_S,
    allowed_origins: Sequence[str] = (),
    local: str | None = None,
) -> Starlette:
    """Returns the application for a model; its ``state.refuse_pending()`` refuses all waiting requests.

    Args:
        served: the model.
        sessions: maximum number of open sessions.
        idle_s: seconds without a frame after which a session is closed.
        allowed_origins: see ``origin_middleware``.
        local: see ``origin_middleware``.
    """
    service = _Service(served, sessions, idle_s)

    async def failed(_: Request, __: Exception) -> Response:
        return error_answer(500, "the model failed; see the server's log")

    async def unrouted(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        await discard_body(request)
        problem = f"{request.method} {request.url.path}: {error.detail.lower()}"
        remedy = f"use the v2 inference protocol, e.g. POST /v2/models/{served.name}/infer"
        return error_answer(error.status_code, f"{problem}; {remedy}", error.headers)

    app = Starlette(
        routes=service.routes(),
        middleware=origin_middleware(allowed_origins, local),
        exception_handlers={404: unrouted, 405: unrouted, 500: failed},
    )
    app.state.refuse_pending = service.refuse_pending
    return app


class _Service:
    """The handlers of the application; see ``make_app``."""

    def __init__(self, served: ServedModel, sessions: int, idle_s: float) -> None:
        self.served = served
        self.unknown = f"model not found; this server serves {served.name!r}, version {served.version!r}"
        self.identity = {"model_name": served.name, "model_version": served.version}
        self.metrics = ServerMetrics(served.name, served.version, served.digest)
        self.body_slots, self.model_lock = asyncio.Semaphore(MAX_BODIES), asyncio.Lock()
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.pending: set[asyncio.Task[Response]] = set()
        self.sessions: Sessions | None = None
        if served.masker is not None:
            greeting = self.identity | {"digest": served.digest}
            self.sessions = Sessions(
                served.masker, greeting, self.worker, self.metrics, sessions, idle_s, ANSWER_S
            )

    def routes(self) -> list[BaseRoute]:
        """Returns the routes of the application."""
        served, name = self.served, self.served.name
        ready = _always({"live": True, "ready": True})
        server = {"name": "maskcast", "version": __version__, "extensions": ["binary_tensor_data"]}
        version = {"name": name, "version": served.version, "digest": served.digest, "maskcast": __version__}
        version["commit"] = commit()
        inputs, outputs = (list(shape) for shape in served.shapes)
        model = {
            "name": name,
            "versions": [served.version],
            "platform": "maskcast",
            "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": inputs}],
            "outputs": [{"name": OUTPUT, "datatype": "UINT8", "shape": outputs}],
            "parameters": {"digest": served.digest, **served.facts},
        }
        routes: list[BaseRoute] = [Route(f"/v2/health/{path}", ready) for path in ("live", "ready")]
        routes += [
            Route("/v2", _always(server)),
            Route("/version", _always(version)),
            Route("/metrics", self._metrics),
        ]
        for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            routes += [
                Route(path, self._if_served(_always(model))),
                Route(f"{path}/ready", self._if_served(_always({"name": name, "ready": True}))),
                Route(f"{path}/infer", self._if_served(self._infer), methods=["POST"]),
                WebSocketRoute(f"{path}/session", self._session),
            ]
        return routes

    def refuse_pending(self) -> None:
        """Refuses the requests that wait for an answer."""
        for answer in self.pending:
            answer.cancel()

    def _is_served(self, path_params: Mapping[str, str]) -> bool:
        name, version = self.served.name, self.served.version
        return path_params["name"] == name and path_params.get("version", version) == version

    def _if_served(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            if self._is_served(request.path_params):
                return await handler(request)
            await discard_body(request)
            return error_answer(404, self.unknown)

        return answer

    async def _metrics(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type=MEDIA_TYPE)

    async def _session(self, socket: WebSocket) -> None:
        if self.sessions is not None and self._is_served(socket.path_params):
            await self.sessions(socket)
            return
        await socket.accept()
        await refuse(socket, BAD, self.unknown)

    async def _infer(self, request: Request) -> Response:
        begin, code = time.perf_counter(), 500
        try:
            with self.metrics.in_flight.track_inprogress():
                answer = await self._answer_or_refuse(request)
            code = answer.status_code
            return answer
        finally:
            self.metrics.answered(code, time.perf_counter() - begin)

    async def _answer_or_refuse(self, request: Request) -> Response:
        if (encoding := request.headers.get("Content-Encoding", "identity")) != "identity":
            await discard_body(request)
            return error_answer(
                415, f"Content-Encoding: {encoding[:40]!r} is not supported; send the body uncompressed"
            )
        answer = asyncio.create_task(self._answer(request))
        self.pending.add(answer)
        try:
            return await answer
        except asyncio.CancelledError:
            await discard_body(request, REFUSAL_S)
            message = "the server is shutting down; retry in 1 s, when another replica may answer"
            return error_answer(503, message, {"Retry-After": "1"})
        finally:
            self.pending.discard(answer)

    async def _answer(self, request: Request) -> Response:
        async with AsyncExitStack() as stack:
            try:
                body = await read_body(request, lambda: stack.enter_async_context(self.body_slots))
            except ClientDisconnect:  # the client did not wait for its turn
                return Response(status_code=CLIENT_CLOSED)
            if isinstance(body, Response):
                return body
            async with self.model_lock:
                if await request.is_disconnected():  # do not compute if the client has gone
                    return Response(status_code=CLIENT_CLOSED)
                begin, loop = time.perf_counter(), asyncio.get_running_loop()
                try:
                    length = request.headers.get(HEADER)
                    answer, headers = await loop.run_in_executor(self.worker, self._compute, body, length)
                except MaskcastError as error:
                    return error_answer(400, str(error))
                finally:
                    self.metrics.computed_s.inc(time.perf_counter() - begin)
            return Response(answer, headers=headers)

    def _compute(self, body: bytearray, json_length: str | None) -> tuple[bytes, dict[str, str]]:
        """Returns body and headers of an answer; runs in the model's thread."""
        request = read_request(body, json_length, INPUT, OUTPUT)
        check_answer(request, check_request_size(request.tensor.shape, *self.served.shapes))
        inputs, alone = as_batch(request.tensor, self.served.shapes[0], INPUT)
        with time_limit(ANSWER_S):
            masks, warnings = self.served.predict_with_warnings(inputs)
        self.metrics.inputs.inc(len(inputs))
        self.metrics.shifted.inc(sum(map(bool, warnings)))
        facts = self.identity | {"parameters": {"digest": self.served.digest} | _warning(warnings)}
        return write_answer(request, masks[0] if alone else masks, OUTPUT, facts)


def _always(content: Mapping[str, Any]) -> Handler:
    """Returns a handler with a constant answer."""

    async def answer(_: Request) -> Response:
        return JSONResponse(content)

    return answer


def _warning(warnings: list[str]) -> dict[str, str]:
    """Returns a parameter of the answer with the first warning, and the number of further ones."""
    messages = [f"clip {k}: {warning}" for k, warning in enumerate(warnings) if warning]
    if not messages:
        return {}
    others = f" (and {pluralize(len(messages) - 1, 'more clip')})" if messages[1:] else ""
    return {"warning": messages[0] + others}
