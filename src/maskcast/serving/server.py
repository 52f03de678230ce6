"""A registered pipeline behind HTTP, by the Open Inference Protocol (v2) of KServe."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from maskcast import __version__
from maskcast.errors import MaskcastError
from maskcast.registry.inputs import MAX_BYTES, check_size
from maskcast.registry.loading import LoadedPipeline
from maskcast.serving.connections import PatientProtocol
from maskcast.serving.protocol import HEADER, read_request, write_answer

INPUT, OUTPUT = "frames", "masks"
MAX_BODIES = 16  # in memory at once; further requests wait unread, with no more of them than the kernel holds
BODY_S = 60.0  # a client that sends its body more slowly is given up


def run_server(loaded: LoadedPipeline, host: str, port: int) -> None:
    """Answers for a model until the process is told to stop."""
    app = make_app(loaded, loaded.model.answer)
    uvicorn.run(app, host=host, port=port, log_level="warning", http=PatientProtocol)


def make_app(loaded: LoadedPipeline, predict: Callable[[Any], tuple[Any, list[str]]]) -> Starlette:
    """Returns the application that answers for a model.

    Args:
        loaded: what the model is.
        predict: runs it, and says of each clip in what it is unlike those that the model knows (see
            ``PipelineModel.answer``); called by one thread, one request at a time, so that memory is bounded.
    """
    about, worker = loaded.about, ThreadPoolExecutor(1, thread_name_prefix="model")
    turns = asyncio.Semaphore(MAX_BODIES)
    name, version = loaded.name.rpartition("/")[2], loaded.version or "0"
    identity = {"model_name": name, "model_version": version}
    metadata = {
        "name": name,
        "versions": [version],
        "platform": "maskcast",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, -1, 3]}],
        "outputs": [{"name": OUTPUT, "datatype": "UINT8", "shape": [-1, about.horizon, -1, -1]}],
        "parameters": {"digest": loaded.digest, **about.model_dump(mode="json", exclude={"format", "kind"})},
    }

    async def ready(_: HttpRequest) -> Response:
        return JSONResponse({"live": True, "ready": True})

    async def server(_: HttpRequest) -> Response:
        return JSONResponse({"name": "maskcast", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def which(_: HttpRequest) -> Response:
        return JSONResponse({"name": name, "version": version, "digest": loaded.digest, "maskcast": __version__})

    async def describe(request: HttpRequest) -> Response:
        return _unknown(request, name, version) or JSONResponse(metadata)

    async def model_ready(request: HttpRequest) -> Response:
        return _unknown(request, name, version) or JSONResponse({"name": name, "ready": True})

    async def infer(request: HttpRequest) -> Response:
        if (unknown := _unknown(request, name, version)) is not None:
            return unknown
        async with turns:
            return await answer_to(request)

    async def answer_to(request: HttpRequest) -> Response:
        try:
            body = await _body(request)
        except ClientDisconnect:  # it has waited long enough for its turn
            return Response()
        if isinstance(body, Response):
            return body

        def run() -> tuple[bytes, dict[str, str]]:
            asked = read_request(body, request.headers.get(HEADER), INPUT, OUTPUT)
            check_size(asked.tensor.shape)
            masks, warnings = predict(asked.tensor)
            parameters = {"digest": loaded.digest} | _warning(warnings)
            return write_answer(asked, masks, OUTPUT, identity | {"parameters": parameters})

        try:
            answer, headers = await asyncio.get_running_loop().run_in_executor(worker, run)
        except MaskcastError as error:
            return _error(400, str(error))
        return Response(answer, headers=headers)

    routes = [Route(f"/v2/health/{path}", ready) for path in ("live", "ready")]
    routes += [Route("/v2", server), Route("/version", which)]
    for place in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [Route(place, describe), Route(f"{place}/ready", model_ready)]
        routes.append(Route(f"{place}/infer", infer, methods=["POST"]))

    async def elsewhere(request: HttpRequest, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        what = f"{request.method} {request.url.path}: not here"
        return _error(status, f"{what}; this server speaks the v2 protocol: POST /v2/models/{name}/infer")

    return Starlette(routes=routes, exception_handlers={404: elsewhere, 405: elsewhere})


async def _body(request: HttpRequest) -> bytes | Response:
    """Returns the body, or the answer to one that is too large or too slow; never holds more than it may."""
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():  # to its end: clients that are sending do not hear an answer
                size += len(chunk)
                if size <= MAX_BYTES:
                    body += chunk
    except TimeoutError:
        return _error(408, f"body: did not arrive within {BODY_S:.0f} s; send it faster, or less")
    if size > MAX_BYTES:
        return _error(413, f"body: more than {MAX_BYTES >> 20} MiB; send fewer clips, or send binary data")
    return bytes(body)


def _warning(warnings: list[str]) -> dict[str, str]:
    """Returns the parameter of an answer that tells of the first clip with a warning, and of how many more."""
    told = [f"clip {k}: {warning}" for k, warning in enumerate(warnings) if warning]
    if not told:
        return {}
    return {"warning": told[0] + (f" (and {len(told) - 1} more clips)" if told[1:] else "")}


def _unknown(request: HttpRequest, name: str, version: str) -> Response | None:
    """Returns the answer to who asks for a model that is not here."""
    asked = request.path_params
    if asked["name"] == name and asked.get("version", version) == version:
        return None
    return _error(404, f"no such model here; this server has {name!r}, version {version!r}")


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)
