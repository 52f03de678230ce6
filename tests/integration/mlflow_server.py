"""A real MLflow server on SQLite."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import free_ports, wait_for_answer


@contextmanager
def mlflow_server(folder: Path, port: int | None = None, auth: Path | None = None) -> Iterator[str]:
    """Runs a real server on SQLite until the block ends.

    Args:
        folder: for database, artifacts and log.
        port: to listen on; None is a free one.
        auth: configuration of accounts; None lets everybody do everything.
    """
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
    if auth is not None:
        command += ["--app-name", "basic-auth"]
        env |= {"MLFLOW_AUTH_CONFIG_PATH": str(auth), "MLFLOW_FLASK_SERVER_SECRET_KEY": "of this test"}
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for_answer(f"{uri}/health", server, folder / "server.log")
        yield uri
    finally:
        os.killpg(server.pid, 15)
        server.wait()
