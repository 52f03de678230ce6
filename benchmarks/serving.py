"""Latency and throughput of a served pipeline against calling the model directly, side by side.

    python benchmarks/serving.py [--rounds 30] [--model ADDRESS] [--mlflow]

One clip a request, of the size that the model was evaluated on (default: an untrained U-Net and ConvLSTM of 49
classes, 11 + 11 frames of 80x120). Latency is of one client that waits for each answer; throughput of 4 clients at
once. Wall time: the server is another process. `--mlflow` adds `mlflow models serve`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _common import positive_int, print_table, time_interleaved, write_untrained
from maskcast.errors import one_line_errors
from maskcast.registry.loading import LoadedPipeline, load_address, pipeline_of
from maskcast.simulator.scenes import simulate_clip

CLASSES, HEIGHT, WIDTH, SEEN, HORIZON, CLIENTS = 49, 80, 120, 11, 11, 4
DIRECT = "direct call, 1 client"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive_int, default=30)
    parser.add_argument("--model", help="address of a registered pipeline; default: an untrained one")
    parser.add_argument("--mlflow", action="store_true", help="measure `mlflow models serve`, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with ExitStack() as stack:
        address = args.model or untrained(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        loaded = pipeline_of(load_address(address))
        clip = clip_for(loaded)
        command = [sys.executable, "-m", "maskcast", "serve", "--model", address, "--port"]
        uri = stack.enter_context(running(command, "/v2/health/ready"))
        infer = f"{uri}/v2/models/{loaded.name.rpartition('/')[2]}/infer"
        variants: dict[str, Callable[[], np.ndarray]] = {
            DIRECT: lambda: loaded.model.predict(clip),
            "serve, binary": lambda: request_binary(infer, clip),
            "serve, JSON": lambda: request_json(infer, clip),
        }
        if args.mlflow:
            command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", address]
            command += ["--env-manager", "local", "-p"]
            invoke = f"{stack.enter_context(running(command, '/ping'))}/invocations"
            variants["mlflow models serve, JSON"] = lambda: request_mlflow(invoke, clip)
        expected = loaded.model.predict(clip)
        for send_request in variants.values():
            np.testing.assert_array_equal(send_request(), expected)
        seconds = time_interleaved(variants, args.rounds, time.perf_counter)
        rows = []
        for name, taken in seconds.items():
            rate = throughput(variants[name], args.rounds, 1 if name == DIRECT else CLIENTS)
            p50, p95 = np.percentile(taken, [50, 95]) * 1000
            rows.append((name, f"{p50:.0f}", f"{p95:.0f}", f"{rate:.1f}"))
    shape = "x".join(map(str, clip.shape[1:4]))
    title = f"One clip of {shape} a request, {loaded.about.horizon} forecast (equal on all pixels)"
    print_table(title, ("how", "p50 ms", "p95 ms", f"clips/s, {CLIENTS} clients"), rows)


def throughput(send_request: Callable[[], object], rounds: int, clients: int) -> float:
    """Returns the requests per second of several clients that each wait for their answers."""
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda _: send_request(), range(rounds)))
    return rounds / (time.perf_counter() - start)


def request_binary(url: str, clip: np.ndarray) -> np.ndarray:
    frames = {"name": "frames", "shape": clip.shape, "datatype": "UINT8"}
    inputs = [frames | {"parameters": {"binary_data_size": clip.size}}]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    with urllib.request.urlopen(urllib.request.Request(url, head + clip.tobytes(), length)) as answer:
        end, raw = int(answer.headers["Inference-Header-Content-Length"]), answer.read()
    return np.frombuffer(raw[end:], np.uint8).reshape(json.loads(raw[:end])["outputs"][0]["shape"])


def request_json(url: str, clip: np.ndarray) -> np.ndarray:
    frames = {"name": "frames", "shape": clip.shape, "datatype": "UINT8", "data": clip.ravel().tolist()}
    output = json.loads(_post(url, {"inputs": [frames]}))["outputs"][0]
    return np.array(output["data"], np.uint8).reshape(output["shape"])


def request_mlflow(url: str, clip: np.ndarray) -> np.ndarray:
    return np.array(json.loads(_post(url, {"inputs": clip.tolist()}))["predictions"], np.uint8)


def _post(url: str, content: dict[str, Any]) -> bytes:
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        found: bytes = answer.read()
    return found


@contextmanager
def running(command: list[str], health: str) -> Iterator[str]:
    """Runs a server with a free port appended to its command; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    server = subprocess.Popen(
        [*command, str(port)],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while server.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=1):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.25)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def untrained(folder: Path) -> str:
    """Writes an untrained pipeline and returns its address."""
    write_untrained(folder, CLASSES, HEIGHT, WIDTH, seen=SEEN, horizon=HORIZON)
    return str(folder / "maskcast")


def clip_for(loaded: LoadedPipeline) -> np.ndarray:
    """Returns a simulated clip (1, T, H, W, 3) with the size and number of context frames of a model."""
    about = loaded.about
    frames, _ = simulate_clip(0, frames=about.context_frames, height=about.height, width=about.width)
    assert frames is not None
    return frames[None]


if __name__ == "__main__":
    with one_line_errors():
        main()
