"""What a server counts of itself, read as Prometheus' text format 0.0.4 says."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.registered import clips_of_squares, write_registered

from maskcast.errors import MaskcastError
from maskcast.registry.loading import load_servable
from maskcast.serving.application import ServedModel, make_app, served_model
from maskcast.serving.metrics import BOUNDS_S, CLIENT_CLOSED, ServerMetrics

SHAPES = (-1, -1, -1, -1, 3), (-1, 1, -1, -1)


LABEL = r'[a-z_]+="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"(?P<name>[a-z_]+)(?P<labels>{{{LABEL}(?:,{LABEL})*}})? (?P<value>[0-9.e+-]+)")


def read(text: str) -> dict[str, float]:
    """Returns the samples of a text, by name and values of labels; each stands below its HELP and TYPE."""
    found, family = {}, ""
    assert text.endswith("\n")
    for line in text.splitlines():
        if match := re.fullmatch(r"# (HELP|TYPE) ([a-z_]+) (.+)", line):
            assert match[1] == "HELP" or (match[2] == family and match[3] in ("counter", "gauge", "histogram"))
            family = match[2]
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample is not None and sample["name"].startswith(family), line
        labels = [match[1] for match in re.finditer(LABEL, sample["labels"] or "")]
        found[":".join([sample["name"], *labels])] = float(sample["value"])
    return found


def answer(clips: Any) -> tuple[Any, list[str]]:
    """A model that takes every second clip for another kind, refuses single frames and fails at the fourth."""
    if clips.shape[1] == 1:
        raise MaskcastError("frames: too few")
    assert clips.shape[1] != 4
    return np.zeros((len(clips), 1, 2, 2), np.uint8), ["unlike" * (k % 2) for k in range(len(clips))]


def test_requests_clips_and_those_unlike_the_training_are_counted() -> None:
    app = make_app(ServedModel("toy", "7", "ab" * 32, {}, SHAPES, answer))
    client = TestClient(app, raise_server_exceptions=False)

    def ask(clips: int, frames: int) -> int:
        shape = (clips, frames, 2, 2, 3)
        tensor = {"name": "frames", "shape": shape, "datatype": "UINT8", "data": [0] * int(np.prod(shape))}
        return client.post("/v2/models/toy/infer", content=json.dumps({"inputs": [tensor]})).status_code

    before = read(client.get("/metrics").text)
    assert before == {
        f"maskcast_model_info:{'ab' * 32}:toy:7": 1,
        **{f"maskcast_request_seconds_bucket:{bound}": 0 for bound in (*BOUNDS_S, "+Inf")},
        **{f"maskcast_request_seconds_{end}": 0 for end in ("sum", "count")},
        **{f"maskcast_{name}": 0 for name in ("requests_under_way", "sessions", "session_frames_total")},
        **{f"maskcast_{name}_total": 0 for name in ("computed_seconds", "inputs", "inputs_unlike")},
    }
    assert [ask(5, 3), ask(2, 3), ask(1, 1), ask(1, 4)] == [200, 200, 400, 500]
    assert client.post("/v2/models/other/infer").status_code == 404  # no request to this model
    response = client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    after = read(response.text)
    assert {code: after[f"maskcast_requests_total:{code}"] for code in (200, 400, 500)} == {200: 2, 400: 1, 500: 1}
    assert (after["maskcast_inputs_total"], after["maskcast_inputs_unlike_total"]) == (7, 3)
    assert after["maskcast_request_seconds_count"] == 4
    assert 0 < after["maskcast_computed_seconds_total"] <= after["maskcast_request_seconds_sum"]
    assert after["maskcast_requests_under_way"] == 0


def test_a_sample_without_batch_axis_is_counted_and_warned_of_like_a_batch_of_it(tmp_path: Path) -> None:
    folder = write_registered(tmp_path)
    clips = clips_of_squares(1)
    for address, sample in ((folder, clips[0]), (folder.parent / "parts" / "masker", clips[0, 0])):
        served = served_model(load_servable(str(address)))
        client = TestClient(make_app(served))
        answers = []
        for tensor in (sample, sample[None]):
            given = {"name": "frames", "shape": tensor.shape, "datatype": "UINT8", "data": tensor.ravel().tolist()}
            answer = client.post(f"/v2/models/{served.name}/infer", content=json.dumps({"inputs": [given]})).json()
            answers.append((answer["parameters"], *(answer["outputs"][0][key] for key in ("shape", "data"))))
        (alone, shape, data), (batched, batched_shape, batched_data) = answers
        assert alone == batched == {"digest": served.digest}, address
        assert ([1, *shape], data) == (batched_shape, batched_data)
        counted = read(client.get("/metrics").text)
        assert (counted["maskcast_inputs_total"], counted["maskcast_inputs_unlike_total"]) == (2, 0), address


def test_a_request_counts_in_the_first_bound_that_it_keeps_and_in_all_above() -> None:
    measured = ServerMetrics("toy", "1", "0")
    for seconds in (0.01, 0.1, 0.11, 61.0):
        measured.answered(CLIENT_CLOSED, seconds)
    measured.sessions.set(2)
    measured.session_frames.inc(30)
    found = read(measured.text().decode())
    bounds = [found[f"maskcast_request_seconds_bucket:{bound}"] for bound in (*BOUNDS_S, "+Inf")]
    assert bounds == [1, 2, *[3] * (len(BOUNDS_S) - 2), 4]
    assert found["maskcast_request_seconds_sum"] == pytest.approx(61.22)
    assert (found["maskcast_sessions"], found["maskcast_session_frames_total"]) == (2, 30)


def test_a_name_with_quotes_is_read_back() -> None:
    assert r"maskcast_model_info:0:a\"b\\c\nd:1" in read(ServerMetrics('a"b\\c\nd', "1", "0").text().decode())
