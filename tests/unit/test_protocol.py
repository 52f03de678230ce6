"""Requests of the Open Inference Protocol as clients write them, nulls and mistakes included."""

import json
import re
from typing import Any

import numpy as np
import pytest

from maskcast.errors import MaskcastError
from maskcast.serving.protocol import Request, read_request, write_answer

CLIPS = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
INPUT: dict[str, Any] = {"name": "frames", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": list(range(12))}
NULLS = {"id": None, "model_name": None, "model_version": None, "parameters": None, "outputs": None}


def read(request: dict[str, Any], tail: bytes = b"", header: str | None = None) -> Request:
    body = json.dumps(request).encode()
    if header is None and tail:
        header = str(len(body))
    return read_request(body + tail, header, "frames", "masks")


def answer(request: Request) -> dict[str, Any]:
    body, headers = write_answer(request, CLIPS[..., 0], "masks", {"model_name": "m"})
    end = int(headers.get("Inference-Header-Content-Length", len(body)))
    return json.loads(body[:end])


@pytest.mark.parametrize(
    "extra",
    [
        {},
        NULLS,  # as KServe's InferenceRequest is dumped
        {"outputs": []},
        {"outputs": [{"name": "masks", "parameters": None}]},
        {"outputs": [{"name": "masks", "parameters": {"binary_data": None}}]},
        {"parameters": {"binary_data_output": None}},
        {"parameters": {}, "inputs": [INPUT | {"parameters": None}]},
        {"inputs": [INPUT | {"parameters": {"binary_data_size": None}}]},
    ],
)
def test_what_is_null_counts_as_left_out(extra: dict[str, Any]) -> None:
    request = read({"inputs": [INPUT]} | extra)
    np.testing.assert_array_equal(request.tensor, CLIPS)
    assert (request.id, request.binary) == (None, False)
    assert answer(request) == {
        "model_name": "m",
        "outputs": [{"name": "masks", "shape": [1, 2, 2], "datatype": "UINT8", "data": [0, 3, 6, 9]}],
    }


@pytest.mark.parametrize(("given", "back"), [("seven", "seven"), ("", ""), (7, "7")])
def test_an_id_comes_back(given: object, back: str) -> None:
    assert answer(read({"inputs": [INPUT], "id": given}))["id"] == back


def test_binary_data_beside_nulls() -> None:
    given = INPUT | {"data": None, "parameters": {"binary_data_size": 12}}
    request = read({"inputs": [given], "parameters": {"binary_data_output": True}} | {"id": None}, CLIPS.tobytes())
    np.testing.assert_array_equal(request.tensor, CLIPS)
    assert request.binary
    assert answer(request)["outputs"][0]["parameters"] == {"binary_data_size": 4}


@pytest.mark.parametrize("data", [[], [[]], [[], []]])
def test_clips_without_frames_are_read_so_that_the_model_can_say_what_it_takes(data: list[Any]) -> None:
    shape = [1, 0, 4, 4, 3]
    assert read({"inputs": [INPUT | {"shape": shape, "data": data}]}).tensor.shape == tuple(shape)


def test_what_an_output_says_goes_before_what_the_request_says() -> None:
    output = {"name": "masks", "parameters": {"binary_data": False}}
    request = read({"inputs": [INPUT], "outputs": [output], "parameters": {"binary_data_output": True}})
    assert not request.binary


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ({"inputs": None}, "not a v2 inference request"),
        ({"inputs": [None]}, "not a v2 inference request"),
        ({"inputs": [INPUT, INPUT]}, "with one input"),
        ({"inputs": [INPUT], "outputs": [None]}, "not a v2 inference request"),
        ({"inputs": [INPUT], "outputs": "masks"}, "not a v2 inference request"),
        ({"inputs": [INPUT], "parameters": [1]}, "not a v2 inference request"),
        (
            {"inputs": [INPUT], "outputs": [{"name": "logits"}]},
            "outputs: unknown output 'logits'; request 'masks'",
        ),
        ({"inputs": [INPUT], "id": {"a": 1}}, "id: must be a string"),
        ({"inputs": [INPUT], "id": True}, "id: must be a string"),
        ({"inputs": [INPUT], "parameters": {"binary_data_output": "false"}}, "must be true or false"),
        ({"inputs": [INPUT | {"name": None}]}, "got 'None' with datatype 'UINT8'; send 'frames'"),
        ({"inputs": [INPUT | {"shape": None}]}, "shape must be a list of at most 8"),
        (
            {"inputs": [INPUT | {"shape": [0, *[2**31 - 1] * 4], "data": []}]},
            "is larger than any array; send smaller",
        ),
        ({"inputs": [INPUT | {"data": None}]}, "data must be a list of integers"),
        ({"inputs": [INPUT | {"data": [None] * 12}]}, "data must be a list of integers"),
        ({"inputs": [INPUT | {"data": [2**70] * 12}]}, "data must be a list of integers"),
    ],
)
def test_mistakes_are_said(request_: dict[str, Any], line: str) -> None:
    with pytest.raises(MaskcastError, match=re.escape(line)) as raised:
        read(request_)
    assert "\n" not in str(raised.value)


def test_lengths_that_do_not_fit_are_said() -> None:
    given = INPUT | {"data": None, "parameters": {"binary_data_size": -300}}
    with pytest.raises(MaskcastError, match=r"Content-Length: got 999, but the body has \d+ bytes"):
        read({"inputs": [given]}, header="999")
    with pytest.raises(MaskcastError, match="binary_data_size: got None, but 5 bytes follow the JSON object"):
        read({"inputs": [INPUT]}, b"12345")


def test_binary_data_without_its_header_names_it() -> None:
    with pytest.raises(MaskcastError, match="length of its JSON as Inference-Header-Content-Length if binary"):
        read_request(json.dumps({"inputs": [INPUT]}).encode() + b"\x82", None, "frames", "masks")
