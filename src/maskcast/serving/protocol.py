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
CHUNK = 2**20  # values that are formatted at once


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
    """Parses a body; null counts as missing, because KServe's clients send it for missing values.

    Args:
        body: the whole body.
        json_length: value of the header ``HEADER``; None if it is missing.
        name: name of the input tensor.
        output: name of the output tensor.

    Raises:
        MaskcastError: the request is invalid; the message says what is expected.
    """
    request, end = _read_json(body, json_length)
    try:
        (given,) = request["inputs"]
        got, shape, datatype = given["name"], given["shape"], given["datatype"]
        size = _parameter(given, "binary_data_size")
        data = given.get("data")
        outputs = request.get("outputs") or []
        unknown = [each["name"] for each in outputs if each["name"] != output]
        identity = request.get("id")
        choices = [_parameter(each, "binary_data") for each in outputs]
        choices += [_parameter(request, "binary_data_output"), False]
        binary = [choice for choice in choices if choice is not None]
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        raise MaskcastError(
            "body: not a v2 inference request; send "
            '{"inputs": [{"name": ..., "shape": ..., "datatype": ..., "data": ...}]} with one input'
        ) from None
    if (got, datatype) != (name, DATATYPE):
        raise MaskcastError(
            f"inputs: got {str(got)[:40]!r} with datatype {str(datatype)[:40]!r}; send {name!r} with {DATATYPE!r}"
        )
    if unknown:
        raise MaskcastError(
            f"outputs: unknown output {str(unknown[0])[:40]!r}; request {output!r}, or omit outputs"
        )
    if not isinstance(identity, str | int | None) or isinstance(identity, bool):
        raise MaskcastError("id: must be a string; send one, or omit it")
    if not all(isinstance(choice, bool) for choice in binary):
        raise MaskcastError("parameters: binary_data and binary_data_output must be true or false")
    if not (
        isinstance(shape, list)
        and len(shape) <= MAX_AXES
        and all(type(side) is int and 0 <= side < MAX_SIDE for side in shape)
    ):
        raise MaskcastError(
            f"inputs: shape must be a list of at most {MAX_AXES} integers from 0 to {MAX_SIDE - 1}"
        )
    if size is None and end == len(body):
        tensor = _from_json(data)
    elif type(size) is int and size == len(body) - end:
        tensor = np.frombuffer(body, np.uint8, offset=end)
    else:
        raise MaskcastError(
            f"inputs: binary_data_size: got {str(size)[:20]}, but {len(body) - end} bytes follow the JSON object; "
            "set it to their number"
        )
    if tensor.size != math.prod(shape):
        raise MaskcastError(
            f"inputs: shape {shape} needs {math.prod(shape)} values, got {tensor.size}; send that many"
        )
    try:
        shaped = tensor.reshape(shape)
    except ValueError:  # without values, sides may have any product
        raise MaskcastError(f"inputs: shape {shape} is larger than any array; send smaller frames") from None
    return Request(None if identity is None else str(identity), shaped, binary[0])


def _read_json(body: bytes | bytearray, json_length: str | None) -> tuple[Any, int]:
    """Returns the JSON value that a body begins with, and its number of bytes."""
    if json_length is not None and not re.fullmatch("[0-9]{1,12}", json_length):
        raise MaskcastError(f"{HEADER}: got {json_length!r}; give the number of bytes of the JSON object")
    end = len(body) if json_length is None else int(json_length)
    if end > len(body):
        raise MaskcastError(f"{HEADER}: got {end}, but the body has {len(body)} bytes; send the whole body")
    if end > MAX_JSON:
        raise MaskcastError(f"body: {end} bytes of JSON, the limit is {MAX_JSON >> 20} MiB; send binary data")
    try:
        return json.loads(body[:end]), end
    except (ValueError, RecursionError) as error:
        remedy = f"send a v2 inference request, with the length of its JSON as {HEADER} if binary data follows"
        raise MaskcastError(f"body: not valid JSON ({error}); {remedy}") from None


def check_answer(request: Request, numbers: int) -> None:
    """Checks that an answer with ``numbers`` values can be sent in the requested form.

    Raises:
        MaskcastError: there are too many values for JSON.
    """
    if numbers > MAX_JSON and not request.binary:
        raise MaskcastError(
            f"outputs: {numbers} values, the limit for JSON is {MAX_JSON}; set binary_data_output to true"
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
        parts = [flat[first : first + CHUNK].tobytes() for first in range(0, flat.size, CHUNK)]
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
