"""Forks MLflow's commands: a line that is read asks for one, one that is printed is the number of its process."""

import gc
import json
import os
import sys
import threading
from contextlib import suppress
from importlib import import_module

import mlflow.cli
import mlflow.server
import uvicorn

LATER = [  # what a server imports when it starts or is first asked
    *("mlflow.server.fastapi_app", "uvicorn.lifespan.on", "uvicorn.loops.auto", "uvicorn.protocols.http.auto"),
    *("mlflow.store.model_registry.sqlalchemy_store", "mlflow.store.tracking.sqlalchemy_workspace_store"),
    *("alembic.command", "flask_wtf.csrf", "sqlalchemy.dialects.sqlite"),
]


def run(words: list[str], folder: str, environment: dict[str, str], log: str) -> None:
    """Runs `mlflow` in this process."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path, flags in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
        opened = os.open(path, flags, 0o644)
        os.dup2(opened, stream)
        os.close(opened)
    os.dup2(1, 2)
    mlflow.server._exec_cmd = run_uvicorn
    mlflow.cli.cli(words)


def run_uvicorn(command: list[str], *, extra_env: dict[str, str], **_: object) -> None:
    """Runs `python -m uvicorn` with its words, which MLflow starts as a process of its own."""
    os.environ.update(extra_env)
    uvicorn.main(command[3:])


if __name__ == "__main__":
    for name in LATER:
        import_module(name)
    assert threading.active_count() == 1  # others would be missing in the fork
    gc.freeze()  # or the collector of each command would copy the memory of all that is imported
    for line in sys.stdin.buffer:
        if (process := os.fork()) == 0:
            run(*json.loads(line))
        print(process, flush=True)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass  # what it took counts as time of the tests
