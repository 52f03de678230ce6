"""Servers of a registered pipeline under load and abuse: `mlflow models serve`, and `maskcast serve`."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.conftest import write_store
from tests.integration.conftest import S3
from tests.integration.workshop import NO_BASELINE
from tests.registered import HEIGHT, HORIZON, SEEN, WIDTH, clips_of_squares, write_parts
from tests.servers import free_ports, wait_for_answer
from tests.unit.test_forecast_command import enlarged
from tests.videos import encode_frames

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore
from maskcast.registry.graphs import run_exported
from maskcast.registry.inputs import MAX_BYTES, MAX_FRAMES
from maskcast.registry.loading import Loaded, load_address
from maskcast.serving.videos import find_videos
from maskcast.stages.evaluate import Evaluate, evaluate
from maskcast.stages.register_models import RegisterModels, register_models
from maskcast.storage.store import put

CLIENTS, REQUESTS = 8, 200
GROWTH = 40 << 20  # bytes that a server may gain over 200 requests; each takes and gives about 1 MiB of text


@dataclass(frozen=True)
class Registered:
    """A pipeline that register_models registered, in a registry of its own."""

    folder: Path
    loaded: Loaded
    environment: Mapping[str, str]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Registered]:
    folder = tmp_path_factory.mktemp("registry")
    clips = write_store(folder / "clips", height=HEIGHT, width=WIDTH, val=2).root
    parts = write_parts(folder, noise=0.1)
    params = Evaluate(context="truth", pictures=0, context_frames=SEEN, horizon=HORIZON)
    report = folder / "report"
    evaluate(clips=clips, masks=clips, **parts, metrics=folder / "metrics.json", report=report, params=params)
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.chdir(folder)
        anything = RegisterModels.model_validate({"gate": NO_BASELINE})
        register_models(clips=clips, **parts, report=report, registration=folder / "r.json", params=anything)
        yield Registered(folder, load_address("models:/maskcast@candidate"), dict(os.environ))


@contextmanager
def running(
    registered: Registered, command: list[str], port: int, health: str
) -> Iterator[tuple[str, psutil.Process]]:
    """Runs a server until the block ends, and gives its address and the process that answers."""
    uri, log = f"http://127.0.0.1:{port}", registered.folder / f"{port}.log"
    environment = {**registered.environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=registered.folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_for_answer(f"{uri}{health}", server, log)
        inner = psutil.Process(server.pid).children(recursive=True)
        yield uri, inner[-1] if inner else psutil.Process(server.pid)
        assert server.poll() is None, log.read_text()
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def post(url: str, body: bytes, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
    """Returns status, body and headers of the answer."""
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, given), timeout=600) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def send_half(url: str, body: bytes) -> None:
    """Promises a body, sends half of it and hangs up."""
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.putrequest("POST", f"/{path}")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[: len(body) // 2])
    assert connection.sock is not None
    connection.sock.shutdown(socket.SHUT_WR)
    connection.close()


def load(ask: Any, process: psutil.Process) -> int:
    """Asks 200 times from 8 threads, and returns by how much the server grew; all must answer true."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        assert all(pool.map(ask, range(3 * CLIENTS)))  # every thread of the server has its buffers now
        before = process.memory_info().rss
        assert all(pool.map(ask, range(REQUESTS)))
    return process.memory_info().rss - before


def test_mlflow_serves_the_model_under_load_and_survives_bad_requests(registered: Registered) -> None:
    clips = clips_of_squares(CLIENTS)
    wanted = registered.loaded.model.predict(clips)
    bodies = [json.dumps({"inputs": clip[None].tolist()}).encode() for clip in clips]
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/maskcast@candidate"]
    with running(registered, [*command, "--env-manager", "local", "-p", str(port)], port, "/ping") as (
        uri,
        process,
    ):

        def ask(number: int) -> bool:
            status, answer, _ = post(f"{uri}/invocations", bodies[number % CLIENTS])
            return status == 200 and np.array_equal(
                json.loads(answer)["predictions"], wanted[number % CLIENTS][None]
            )

        assert load(ask, process) < GROWTH
        status, answer, _ = post(f"{uri}/invocations", json.dumps({"instances": clips[:1].tolist()}).encode())
        assert (status, json.loads(answer)["predictions"]) == (200, wanted[:1].tolist())
        many = np.zeros((1, MAX_FRAMES + 1, 1, 1, 3), np.uint8)
        flat = np.zeros((1, 2, 2, 3), np.uint8)
        for body, reason in (
            (json.dumps({"inputs": many.tolist()}).encode(), f"{MAX_FRAMES} frames per call; give fewer clips"),
            (bodies[0][: len(bodies[0]) // 2], "valid JSON"),
            (json.dumps({"inputs": flat.tolist()}).encode(), "shape"),
            (b'{"frames": 3}', "exactly one of the input fields"),
            (json.dumps({"inputs": {"frames": flat.tolist()}}).encode(), "expects a single n-dimensional array"),
            (json.dumps({"dataframe_split": {"columns": ["frames"], "data": [[3]]}}).encode(), "Tensor("),
            (b"\xff\xfe", "valid JSON"),
        ):
            status, answer, _ = post(f"{uri}/invocations", body)
            assert (status, reason in json.loads(answer)["message"]) == (400, True), answer[-500:]
        send_half(f"{uri}/invocations", bodies[0])
        assert ask(3)


def v2(clips: np.ndarray, **changes: Any) -> bytes:
    given = {"name": "frames", "shape": list(clips.shape), "datatype": "UINT8", "data": clips.ravel().tolist()}
    return json.dumps({"inputs": [given | changes]}).encode()


def v2_binary(clips: np.ndarray) -> tuple[bytes, int]:
    given = {"name": "frames", "shape": list(clips.shape), "datatype": "UINT8"}
    head = {
        "id": "seven",
        "inputs": [given | {"parameters": {"binary_data_size": clips.size}}],
        "outputs": [{"name": "masks", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(head).encode()
    return text + clips.tobytes(), len(text)


def test_maskcast_serves_v2_under_load_and_says_what_is_wrong_with_bad_requests(registered: Registered) -> None:
    clips = clips_of_squares(CLIENTS)
    wanted = registered.loaded.model.predict(clips)
    (port,) = free_ports(1)
    command = [
        sys.executable,
        "-m",
        "maskcast",
        "serve",
        "--model",
        "models:/maskcast@candidate",
        "--port",
        str(port),
    ]
    with running(registered, command, port, "/v2/health/ready") as (uri, process):
        model = f"{uri}/v2/models/maskcast"

        def ask(number: int) -> bool:
            clip = clips[number % CLIENTS][None]
            if number % 4 == 0:  # as JSON
                status, answer, _ = post(f"{model}/infer", v2(clip))
                output = json.loads(answer)["outputs"][0]
                masks = np.array(output["data"], np.uint8)
            else:
                body, length = v2_binary(clip)
                status, answer, headers = post(f"{model}/infer", body, Inference_Header_Content_Length=str(length))
                end = int(headers["Inference-Header-Content-Length"])
                output = json.loads(answer[:end])["outputs"][0]
                masks = np.frombuffer(answer[end:], np.uint8)
            assert status == 200
            return np.array_equal(masks.reshape(output["shape"]), wanted[number % CLIENTS][None])

        assert load(ask, process) < GROWTH

        for place in (model, f"{model}/versions/1"):
            with urllib.request.urlopen(place) as answer:
                about = json.load(answer)
            assert (about["name"], about["versions"]) == ("maskcast", ["1"])
            assert about["parameters"]["digest"] == registered.loaded.digest
        with urllib.request.urlopen(f"{uri}/version") as answer:
            version = json.load(answer)
        assert (version["name"], version["version"], version["digest"]) == (
            "maskcast",
            "1",
            registered.loaded.digest,
        )
        answer = json.loads(post(f"{model}/infer", v2(clips[:1]))[1])
        assert (answer["model_name"], answer["model_version"]) == ("maskcast", "1")
        assert "id" not in answer
        nulls = dict.fromkeys(("id", "parameters", "outputs"))  # as KServe's client writes them
        status, told, _ = post(f"{model}/infer", json.dumps(json.loads(v2(clips[:1])) | nulls).encode())
        assert (status, json.loads(told)["outputs"]) == (200, answer["outputs"])
        with urllib.request.urlopen(f"{model}/ready") as ready:
            assert json.load(ready) == {"name": "maskcast", "ready": True}

        one = clips[:1]
        body, length = v2_binary(one)
        half = {"Inference_Header_Content_Length": str(length)}
        for status, reason, sent, headers in (
            (400, "not valid JSON", v2(one)[:1000], {}),
            (400, "not valid JSON", b"\xff\xfe", {}),
            (400, "not valid JSON", b"[" * 100_000, {}),
            (400, "not a v2 inference request; send", b"[1, 2]", {}),
            (400, "not a v2 inference request; send", b'{"inputs": []}', {}),
            (400, "send 'frames' with 'UINT8'", v2(one, datatype="FP32"), {}),
            (400, "shape must be a list of at most 8 integers", v2(one, shape=[1, -1]), {}),
            (400, "needs 1 values, got", v2(one, shape=[1]), {}),
            (400, "integers from 0 to 255", v2(one, data=[256] * one.size), {}),
            (400, "integers from 0 to 255", v2(one, data=[[1], [2, 3]]), {}),
            (400, "integers from 0 to 255", v2(one, data=["a"]), {}),
            (400, "shape (any, any, any, any, 3)", v2(one.reshape(-1)), {}),
            (400, f"{MAX_FRAMES} frames", v2(np.zeros((MAX_FRAMES + 1, 1, 1, 1, 3), np.uint8)), {}),
            (400, "binary_data_size: got ", body[:-1], half),
            (400, "give the number of bytes", body, {"Inference_Header_Content_Length": "x"}),
            (413, "larger than 64 MiB", bytes(MAX_BYTES + 1), {}),
            (403, "Host: 'evil.example' is not this machine", v2(one), {"Host": "evil.example"}),
        ):
            found, told, _ = post(f"{model}/infer", sent, **headers)
            assert (found, reason in json.loads(told)["error"]) == (status, True), told
        assert post(f"{uri}/v2/models/other/infer", v2(one))[0] == 404
        assert post(f"{model}/versions/9/infer", v2(one))[0] == 404
        send_half(f"{model}/infer", v2(one))
        assert ask(0)


def test_the_batch_command_reads_a_bucket_and_the_registry_and_agrees_with_the_exported_graph(
    registered: Registered, s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode_frames(tmp_path / "videos" / "one.mp4", enlarged(1, 9))
    encode_frames(tmp_path / "videos" / "more" / "two.mp4", enlarged(2, 9))
    put(tmp_path / "videos", f"{s3.uri}/today")
    out = tmp_path / "out"
    words = ["forecast", f"{s3.uri}/today", "--model", "models:/maskcast/1", "--output", str(out), "--stride", "1"]
    assert main(words) == 0
    assert f"2 forecast, 0 skipped, 0 failed: {out}" in capsys.readouterr().out
    assert main(words) == 0
    assert f"0 forecast, 2 skipped, 0 failed: {out}" in capsys.readouterr().out
    assert main(["models", "export", "1", "--format", "torch-export", "--output", str(tmp_path / "graph")]) == 0
    assert "0 of " in capsys.readouterr().out
    clips = clips_of_squares(2)
    found = run_exported(tmp_path / "graph", clips)
    assert np.array_equal(found, registered.loaded.model.predict(clips))
    record = json.loads((out / "one" / "forecast.json").read_text())
    assert record["model"] == {"name": "maskcast", "version": "1", "digest": registered.loaded.digest}
    assert ClipStore(out / "more_two" / "masks").clips[0].num_frames == HORIZON


def test_videos_of_a_bucket_are_those_that_lie_there_now_whatever_addresses_were_given_before(
    s3: S3, tmp_path: Path
) -> None:
    def names(address: str) -> list[str]:
        return [video.name for video in find_videos([f"{s3.uri}/{address}"], tmp_path / "out")]

    encode_frames(tmp_path / "videos" / "one.mp4", enlarged(1, 9))
    encode_frames(tmp_path / "videos" / "two.mp4", enlarged(2, 9))
    put(tmp_path / "videos", f"{s3.uri}/today")
    assert names("today") == ["one", "two"]
    assert names("today/two.mp4") == ["two"]
    assert names("") == ["today_one", "today_two"]
    (tmp_path / "videos" / "one.mp4").unlink()
    put(tmp_path / "videos", f"{s3.uri}/today")
    assert names("today") == ["two"]
