"""The Open Inference Protocol, version 2, for one input and one output tensor, as JSON or binary data.

Binary data (an extension of KServe, Triton and their clients) is a JSON object, whose length in bytes is in the
header ``Inference-Header-Content-Length``, followed by the tensor's bytes.
"""

import json
import math
import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from maskcast.errors import MaskcastError
from maskcast.registry.inputs import MAX_JSON

HEADER = "Inference-Header-Content-Length"
DATATYPE = "UINT8"
MAX_AXES = 8
MAX_SIDE = 2**31
NUMBERS = tuple(map(str, range(256)))
AT_ONCE = 2**20  # numbers that are written before other requests are served


@dataclass(frozen=True)
class Request:
    """A checked request.

    Args:
        id: returned with the answer; None if the client gave none.
        tensor: uint8.
        binary: whether the answer is binary.
    """

    id: str | None
    tensor: np.ndarray
    binary: bool


def read_request(body: bytes | bytearray, json_length: str | None, name: str, output: str) -> Request:
    """Parses a body; null counts as missing, because KServe's clients write it so.

    Args:
        body: the whole body.
        json_length: value of ``HEADER``.
        name: of the input tensor.
        output: name of the output tensor.

    Raises:
        MaskcastError: the request is invalid; the message says what is expected.
    """
    if json_length is not None and not re.fullmatch("[0-9]{1,12}", json_length):
        raise MaskcastError(f"{HEADER}: got {json_length!r}; give the number of bytes of the JSON object")
    end = len(body) if json_length is None else int(json_length)
    if end > len(body):
        raise MaskcastError(f"{HEADER}: got {end}, the body has {len(body)} bytes; send the whole of it")
    if end > MAX_JSON:
        raise MaskcastError(f"body: {end} bytes of JSON, at most {MAX_JSON >> 20} MiB; send binary data")
    try:
        request = json.loads(body[:end])
    except (ValueError, RecursionError) as error:
        sent = f"send a v2 inference request, and the length of its JSON as {HEADER} where binary data follows"
        raise MaskcastError(f"body: no valid JSON ({error}); {sent}") from None
    try:
        (given,) = request["inputs"]
        got, shape, datatype = given["name"], given["shape"], given["datatype"]
        size = _parameter(given, "binary_data_size")
        data = given.get("data")
        asked = request.get("outputs") or []
        wrong = [one["name"] for one in asked if one["name"] != output]
        identity = request.get("id")
        binary = [_parameter(one, "binary_data") for one in asked]
        binary = [one for one in [*binary, _parameter(request, "binary_data_output"), False] if one is not None]
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        raise MaskcastError(
            "body: no v2 inference request; send "
            '{"inputs": [{"name": ..., "shape": ..., "datatype": ..., "data": ...}]} with one input'
        ) from None
    if (got, datatype) != (name, DATATYPE):
        raise MaskcastError(
            f"inputs: got {str(got)[:40]!r} of {str(datatype)[:40]!r}; give {name!r} of {DATATYPE!r}"
        )
    if wrong:
        raise MaskcastError(f"outputs: no output {str(wrong[0])[:40]!r}; ask for {output!r}, or leave outputs out")
    if not isinstance(identity, str | int | None):
        raise MaskcastError("id: must be a text; give one, or leave it out")
    if not all(isinstance(one, bool) for one in binary):
        raise MaskcastError("parameters: binary_data and binary_data_output must be true or false")
    if not (
        isinstance(shape, list)
        and len(shape) <= MAX_AXES
        and all(type(side) is int and 0 <= side < MAX_SIDE for side in shape)
    ):
        raise MaskcastError(f"inputs: shape must be a short list of integers from 0 to {MAX_SIDE - 1}")
    if size is None and end == len(body):
        tensor = _from_json(data)
    elif type(size) is int and size == len(body) - end:
        tensor = np.frombuffer(body, np.uint8, offset=end)
    else:
        follow = f"{len(body) - end} bytes after the JSON object"
        raise MaskcastError(f"inputs: binary_data_size must be the {follow}, got {str(size)[:20]}")
    if tensor.size != math.prod(shape):
        raise MaskcastError(
            f"inputs: shape {shape} needs {math.prod(shape)} values, got {tensor.size}; send as many"
        )
    return Request(None if identity is None else str(identity), tensor.reshape(shape), binary[0])


def check_answer(request: Request, numbers: int) -> None:
    """Checks that an answer with ``numbers`` numbers can be written in the requested form.

    Raises:
        MaskcastError: if it cannot.
    """
    if numbers > MAX_JSON and not request.binary:
        raise MaskcastError(
            f"outputs: {numbers} numbers, at most {MAX_JSON} are written as JSON; set binary_data_output"
        )


def _parameter(part: dict[str, Any], key: str) -> Any:
    """Returns a parameter of the request or of a tensor; None if it is missing."""
    return (part.get("parameters") or {}).get(key)


def write_answer(
    request: Request, masks: np.ndarray, name: str, model: dict[str, Any]
) -> tuple[bytes, dict[str, str]]:
    """Returns body and headers of an answer.

    Args:
        request: the request.
        masks: uint8.
        name: of the output tensor.
        model: fields about the model: name, version and parameters.
    """
    output: dict[str, Any] = {"name": name, "shape": list(masks.shape), "datatype": DATATYPE}
    answer = {**model, **({} if request.id is None else {"id": request.id}), "outputs": [output]}
    if not request.binary:
        output["data"] = []
        start, end, _ = json.dumps(answer).rpartition("]}]}")
        flat = masks.ravel()
        parts = [flat[first : first + AT_ONCE].tobytes() for first in range(0, flat.size, AT_ONCE)]
        data = ", ".join(", ".join(map(NUMBERS.__getitem__, part)) for part in parts)
        return f"{start}{data}{end}".encode(), {"Content-Type": "application/json"}
    output["parameters"] = {"binary_data_size": masks.size}
    head = json.dumps(answer).encode()
    return head + masks.tobytes(), {"Content-Type": "application/octet-stream", HEADER: str(len(head))}


def _from_json(data: Any) -> np.ndarray:
    """Converts flat or nested lists to uint8."""
    for _ in range(MAX_AXES):
        if isinstance(data, list) and set(map(type, data)) == {list} and len(set(map(len, data))) == 1:
            data = list(chain.from_iterable(data))
    if isinstance(data, list) and set(map(type, data)) <= {int}:
        with suppress(ValueError, OverflowError):
            return np.frombuffer(bytes(data), np.uint8)
    raise MaskcastError("inputs: data must be a list of integers from 0 to 255")
