"""Commands that start at once: forked from a process that has imported torch, MLflow and what else takes seconds.

`maskcast`, `dvc`, and `python3` with `-c` or with `-m` and one of them, `mlflow` or KFP's executor; another
`python3` is the real one.

A command stays a process of its own, with the environment, folder and streams of who starts it, and imports
maskcast itself anew. All commands of a server have one hash seed, those of another server another. Signals do not
reach a command. So whoever tests how one starts or stops takes the real one.
"""

import array
import atexit
import gc
import importlib
import marshal
import os
import runpy
import select
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

IMPORTED = [
    *("alembic", "av", "cv2", "faster_coco_eval", "kfp.dsl.executor_main", "kfp.local", "numpy", "pandas"),
    *("dulwich.porcelain", "dvc.cli.parser", "dvc.render", "dvc.repo.reproduce", "networkx", "scmrepo.git"),
    *("matplotlib.font_manager", "PIL.Image", "pydantic", "yaml", "zstandard"),
    *("mlflow", "mlflow.store.model_registry.sqlalchemy_store", "mlflow.store.tracking.sqlalchemy_store"),
    *("mlflow.store.tracking.sqlalchemy_workspace_store", "mlflow.system_metrics.system_metrics_monitor"),
    *("alembic.command", "rich.progress", "sqlalchemy.dialects.sqlite"),
    *("multiprocessing.spawn", "safetensors.torch", "torch"),  # the first starts what it starts by the real Python
    "torch._dynamo",  # which the first step of an optimizer imports
]
OF_TORCHVISION = ["segmentation_models_pytorch", "torchvision"]  # which fits the torch that is installed
OWN = ("maskcast", "components", "pipelines", "tests")
PROGRAMS = ("maskcast", "dvc")
# what KFP's local runner, maskcast itself and its tests start by `python -m`
MODULES = ("kfp.dsl.executor_main", "mlflow", *PROGRAMS)
CLIENT = """#!{python} -IS
import _socket, marshal, os, sys  # what `socket` and `json` import takes longer than the rest
words = sys.argv[1:] if {name!r} == "python3" else ["-m", {name!r}, *sys.argv[1:]]
if words[:1] != ["-c"] and (words[:1] != ["-m"] or words[1] not in {modules!r}):
    os.execv({python!r}, [{python!r}, *words])
server = _socket.socket(_socket.AF_UNIX)
server.connect({address!r})
streams = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
server.sendmsg([b"x"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
server.sendall(marshal.dumps([words, os.getcwd(), dict(os.environ)]))
server.shutdown(_socket.SHUT_WR)
os._exit(server.recv(1)[0])
"""


@contextmanager
def warm(torch: Path | None = None) -> Iterator[Path]:
    """Serves commands for the block; yields the folder of these that is to stand first in PATH.

    Args:
        torch: a folder with another torch than the one that is installed.
    """
    with TemporaryDirectory(prefix="maskcast-", dir="/tmp") as folder:  # addresses of sockets are short
        address, programs = f"{folder}/socket", Path(folder, "bin")
        programs.mkdir()
        for name in (*PROGRAMS, "python3"):
            script = CLIENT.format(python=sys.executable, name=name, modules=MODULES, address=address)
            (programs / name).write_text(script)
            (programs / name).chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {} if torch is None else {"PYTHONPATH": str(torch)}
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(address)
            listening.listen(64)
            server = subprocess.Popen(
                [sys.executable, __file__, str(listening.fileno()), str(programs)],
                env=environment | {"OMP_NUM_THREADS": "1"},
                pass_fds=[listening.fileno()],
                stdin=subprocess.DEVNULL,
            )
        try:
            yield programs
        finally:
            server.terminate()
            server.wait()


def serve(listening: socket.socket, programs: Path) -> None:
    """Forks a process for each command, until who started the server is gone."""
    parent = os.getppid()
    gc.disable()  # it would look through a million objects again and again, which stay
    for name in [*IMPORTED, *(() if "PYTHONPATH" in os.environ else OF_TORCHVISION)]:
        importlib.import_module(name)
    assert not [name for name in sys.modules if name.partition(".")[0] in OWN]
    assert threading.active_count() == 1  # others would be missing in the fork
    without_work_at_exit()
    gc.freeze()  # or the collector of each command would look through all that is imported, and copy its memory
    gc.enable()
    running: dict[int, tuple[int, socket.socket]] = {}  # the commands and who waits for them, by pidfd
    while os.getppid() == parent:
        for ready in select.select([listening, *running], [], [], 5)[0]:
            if ready is not listening:
                process, client = running.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                with client, suppress(ConnectionError):  # of one that was killed
                    client.sendall(bytes([code if code >= 0 else 128 - code]))  # as a shell tells a signal
                os.close(ready)
                continue
            client, _ = listening.accept()
            if (process := os.fork()) == 0:
                listening.close()
                for other, (_, waiting) in running.items():
                    os.close(other)
                    waiting.close()
                os._exit(command(client, programs))
            running[os.pidfd_open(process)] = process, client


def without_work_at_exit() -> None:
    """Spares each command what takes time at its end and concerns only what the server imported."""
    for library in list(weakref.finalize._registry):  # 200 of PyTorch, which take their operators back
        library.atexit = False
    atexit.unregister(sys.modules["torch._dynamo.utils"].dump_compile_times)  # imports much to log of nothing


def command(client: socket.socket, programs: Path) -> int:
    """Runs what follows `python` and returns its exit code."""
    _, [(_, _, sent)], *_ = client.recvmsg(1, socket.CMSG_SPACE(3 * 4))
    for number, stream in enumerate(array.array("i", sent)):
        os.dup2(stream, number)
        os.close(stream)
    # Made anew, as each process does: those of the server know whether its own files could be sought in.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    with client.makefile("rb") as told:
        (flag, code_or_module, *words), folder, environment = marshal.load(told)
    client.close()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:1] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv, sys.executable = [flag, *words], str(programs / "python3")
    importlib.invalidate_caches()
    code = 0
    try:
        if flag == "-c":
            exec(code_or_module, {"__name__": "__main__"})
        else:
            runpy.run_module(code_or_module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]))
