"""A real MLflow server on SQLite."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.servers import free_ports


@contextmanager
def mlflow_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """Runs a real server on SQLite until the block ends, on a free port if none is given."""
    port = port or free_ports(1)[0]
    uri = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # seven processes that nobody needs here
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(720):
            try:
                with urllib.request.urlopen(f"{uri}/health", timeout=1):
                    break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.25)
        else:
            pytest.fail(f"no MLflow server after 3 minutes: {(folder / 'server.log').read_text()}")
        yield uri
    finally:
        os.killpg(server.pid, 15)
        server.wait()
