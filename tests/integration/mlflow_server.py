"""A real MLflow server on SQLite, forked from a process that has imported MLflow: that takes ten seconds."""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
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
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    words += ["--artifacts-destination", str(folder / "artifacts")]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # seven processes that nobody needs here
    if auth is not None:
        words += ["--app-name", "basic-auth"]
        env |= {"MLFLOW_AUTH_CONFIG_PATH": str(auth), "MLFLOW_FLASK_SERVER_SECRET_KEY": "of this test"}
    server = Forked(words, folder, env, folder / "server.log")
    try:
        wait_for_answer(f"{uri}/health", server, folder / "server.log")
        yield uri
    finally:
        server.stop()


class Forked:
    """A process that runs `mlflow` in a folder with an environment, and prints into a log."""

    def __init__(self, words: list[str], folder: Path, env: dict[str, str], log: Path) -> None:
        forking = _forking_process()
        assert forking.stdin and forking.stdout
        forking.stdin.write(json.dumps([words, str(folder), env, str(log)]).encode() + b"\n")
        forking.stdin.flush()
        log.touch()
        self._process = os.pidfd_open(int(forking.stdout.readline()))  # a zombie if it has ended

    def poll(self) -> int | None:
        """Returns None while it runs, as ``Popen`` does."""
        return 0 if select.select([self._process], [], [], 0)[0] else None

    def stop(self) -> None:
        """Ends it and waits."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._process, signal.SIGTERM)
            select.select([self._process], [], [])
        os.close(self._process)


@cache
def _forking_process() -> "subprocess.Popen[bytes]":
    """Returns the process that forks, which ends with this one."""
    environment = {name: value for name, value in os.environ.items() if "MLFLOW_" not in name}
    command = [sys.executable, "-P", "-W", "ignore", Path(__file__).with_name("mlflow_forks.py")]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(process.communicate)
    return process
