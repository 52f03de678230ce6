"""Kills stages at every kind of moment, starts them again, and compares what they leave with an unbroken run.

    python tests/attacks/kill.py --kills 100

A stage is killed by SIGKILL before the n-th thing that it does to a file (the last ones are the final renames, the
end of its lock and, of register_models, the registration), or at a time. Then the same stage is started again.
It must end as if nothing had been: equal bits, nothing left over, one finished run in MLflow, one version.
"""

import argparse
import importlib
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TRAINING = {"epochs": 1, "steps_per_epoch": 4, "batch_size": 2, "learning_rate": 0.01, "checkpoint_every": 2}
UNET = {"arch": "unet", "width": 4}
PARAMS: dict[str, dict[str, Any]] = {
    "fetch_dataset": {"uri": "data"},
    "prepare_clips": {"source": {"layout": "competition"}, "workers": 1},
    "pretrain_encoder": {
        "model": UNET,
        "method": {"name": "densecl", "queue": 8, "hidden": 8, "dim": 4},
        "views": {"size": [16, 16]},
        "training": TRAINING | {"batch_size": 8},
    },
    "train_masker": {"model": UNET, "training": TRAINING},
    "generate_masks": {},
    "pretrain_forecaster": {"model": {"arch": "convlstm", "hidden": 4}, "training": TRAINING},
    "finetune_forecaster": {"training": TRAINING},
    "evaluate": {"pictures": 0},
    "predict": {},
    "register_models": {},
}
LAST = ("pretrain_encoder", "predict")  # which no other stage needs
EVENTS = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "open"})
WRITTEN = re.compile(rb"Written [0-9: -]+ UTC")  # the minute, in a page
IMPORTED = (  # what each run would take seconds to import
    *("mlflow.store.tracking.sqlalchemy_store", "mlflow.store.tracking.sqlalchemy_workspace_store"),
    *("alembic.command", "torch._dynamo", "maskcast.training.finish", "maskcast.stages.train_masker"),
)
OWN_FILES = ("mlflow.db", "mlartifacts", "log", "index.html")  # the last says when its pages were written


@dataclass
class Outcome:
    """What an unbroken run of a stage did: how many events, how long, and what it left by path."""

    events: int
    seconds: float
    left: dict[str, bytes] = field(default_factory=dict)


def ports(root: Path, name: str, results: Path) -> dict[str, Path]:
    """Returns a path per port: inputs from the chain of unbroken runs, outputs in ``results``."""
    from maskcast.runner.stage import get_stage

    made = {"unlabeled": "clips", "metrics": f"{name}.json", "page": f"{name}.html"}
    found = {}
    for port in get_stage(name).ports:
        inner = made.get(port.name, port.name)
        if port.direction == "out":
            found[port.name] = results / inner
        elif not port.optional or (port.name == "encoder" and (root / inner).exists()):
            found[port.name] = root / inner
    return found


def run(
    root: Path, name: str, results: Path, before: int | None = None, after_s: float | None = None
) -> tuple[int, int]:
    """Runs a stage in a child process; returns its exit code, and how many events it had.

    Args:
        root: the chain of unbroken runs.
        name: the stage.
        results: where its outputs and its MLflow database are.
        before: kills the child before this event.
        after_s: kills the child after so many seconds.
    """
    receive, send = os.pipe()
    if not (child := os.fork()):
        code = 1
        try:
            os.close(receive)
            _in_child(root, name, results, before, send)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(send)
    if after_s is not None:
        timer = threading.Timer(after_s, os.kill, (child, signal.SIGKILL))
        timer.start()
    told = b""
    while piece := os.read(receive, 64):
        told += piece
    os.close(receive)
    status = os.waitpid(child, 0)[1]
    if after_s is not None:
        timer.cancel()
    return os.waitstatus_to_exitcode(status), int(told or b"0")


def _in_child(root: Path, name: str, results: Path, before: int | None, send: int) -> None:
    from maskcast.runner.run import run_stage

    log = os.open(results / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(root)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{results / 'mlflow.db'}"
    count = 0

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if (
            event not in EVENTS
            or (event == "open" and not _writes(arguments))
            or str(root) not in str(arguments[0])
        ):
            return
        if count == before:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    sys.addaudithook(hear)
    run_stage(name, PARAMS[name], **ports(root, name, results))
    os.write(send, str(count).encode())


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode = arguments[1]
    return isinstance(mode, str) and any(letter in mode for letter in "wax+")


def left(results: Path) -> dict[str, bytes]:
    """Returns what lies in a folder of results, by path, without log, MLflow's own files and times of pages."""
    return {
        path.relative_to(results).as_posix(): WRITTEN.sub(b"", path.read_bytes())
        for path in sorted(results.rglob("*"))
        if path.is_file() and path.relative_to(results).parts[0] not in OWN_FILES
    }


def write_raw(folder: Path) -> None:
    """Writes videos of the competition's layout: moving squares."""
    import numpy as np
    from PIL import Image
    from tests.conftest import moving_squares

    for split, number, length in (
        ("train", 1, 22),
        ("train", 2, 22),
        ("val", 3, 22),
        ("unlabeled", 4, 22),
        ("hidden", 5, 11),
    ):
        video = folder / f"{split}/video_{number}"
        video.mkdir(parents=True)
        frames, masks = moving_squares(number, length, 32, 48)
        for k, frame in enumerate(frames):
            Image.fromarray(frame).save(video / f"image_{k}.png")
        if split in ("train", "val"):
            np.save(video / "mask.npy", masks)


def unbroken(root: Path, name: str, compared: bool) -> Outcome:
    """Runs a stage twice; what is equal in both is what a killed one must leave, too.

    A stage that is not killed, but made what others read, is run once.
    """
    lefts = []
    for number in range(1 + compared):
        results = root / f"unbroken_{number}"
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir()
        shutil.copy(root / "empty.db", results / "mlflow.db")
        started = time.monotonic()
        code, events = run(root, name, results)
        if code:
            raise SystemExit(f"{name} fails unbroken:\n{(results / 'log').read_text()[-3000:]}")
        seconds = time.monotonic() - started
        lefts.append(left(results))
    for output in ports(root, name, results):
        place = ports(root, name, results)[output]
        if place.exists() and place.parent == results and not (root / place.name).exists():
            shutil.move(place, root / place.name)
    same = {path: content for path, content in lefts[0].items() if lefts[-1].get(path) == content}
    return Outcome(events, seconds, same | dict.fromkeys(lefts[0].keys() - same.keys(), b""))


def has_ended(root: Path, name: str, results: Path) -> bool:
    """Whether a killed stage had only its process left to end: started again, it is a run of its own."""
    outputs = [path for path in ports(root, name, results).values() if path.parent == results]
    return all(path.exists() for path in outputs) and not list(results.glob("*.resume"))


def faults(root: Path, name: str, results: Path, whole: Outcome, most_runs: int) -> Iterator[str]:
    """Yields what differs from an unbroken run."""
    found = left(results)
    for path in sorted(found.keys() ^ whole.left.keys()):
        yield f"{path} is {'left over' if path in found else 'missing'}"
    for path in sorted(found.keys() & whole.left.keys()):
        if whole.left[path] and found[path] != whole.left[path]:
            yield f"{path} has other bits"
    yield from of_server(results, name, most_runs)


def of_server(results: Path, name: str, most_runs: int) -> Iterator[str]:
    """Yields runs that stand twice or did not end, and versions that stand twice."""
    import sqlite3

    with sqlite3.connect(results / "mlflow.db") as database:
        runs = database.execute("SELECT status FROM runs").fetchall()
        versions = database.execute("SELECT name, COUNT(*) FROM model_versions GROUP BY name").fetchall()
    database.close()
    if len(runs) > most_runs or any(status != "FINISHED" for (status,) in runs):
        yield f"runs in MLflow: {', '.join(status for (status,) in runs)}"
    if any(count != 1 for _, count in versions) or (name == "register_models" and not versions):
        yield f"versions: {versions}"


def moments(whole: Outcome, kills: int) -> list[dict[str, Any]]:
    """Returns when a stage is killed: before its last events, before others, evenly, and at times."""
    last = list(range(whole.events - 1, -1, -1))[: -(-kills // 2)]
    rest = kills - len(last)
    early = [round((k + 1) * (whole.events - len(last)) / (rest // 2 + 1)) for k in range(rest // 2)]
    timed = [whole.seconds * (k + 1) / (rest - len(early) + 1) for k in range(rest - len(early))]
    return [{"before": k} for k in (*last, *early)] + [{"after_s": s} for s in timed]


def kill(folder: Path, kills: int, stages: tuple[str, ...]) -> list[str]:
    """Kills the stages so often in all; returns what was wrong, a line each."""
    import mlflow
    import torch

    for module in IMPORTED:
        importlib.import_module(module)
    torch.set_num_threads(1)
    write_raw(folder / "data")
    if not (child := os.fork()):  # the parent never opens a database: its connections would be the children's, too
        mlflow.MlflowClient(f"sqlite:///{folder / 'empty.db'}").search_experiments()
        os._exit(0)
    os.waitpid(child, 0)
    wrong, killed = [], 0
    for number, name in enumerate(PARAMS):
        if (name in LAST and name not in stages) or number > max(map(list(PARAMS).index, stages)):
            continue
        whole = unbroken(folder, name, name in stages)
        if name not in stages:
            continue
        share = kills // len(stages) + (stages.index(name) < kills % len(stages))
        for moment in moments(whole, share):
            results = folder / "killed"
            results.mkdir()
            shutil.copy(folder / "empty.db", results / "mlflow.db")
            code, _ = run(folder, name, results, **moment)
            killed += code == -signal.SIGKILL
            had_ended = has_ended(folder, name, results)
            again, _ = run(folder, name, results)
            found = list(faults(folder, name, results, whole, 1 + had_ended))
            if again:
                found.append(f"exit code {again}: {(results / 'log').read_text()[-1500:]}")
            wrong += [f"{name} killed at {moment} of {whole.events} events: {fault}" for fault in found]
            shutil.rmtree(results)
        print(f"{number + 1}/{len(PARAMS)} {name}: {share} kills, {len(wrong)} faults so far", flush=True)
    print(f"{killed} runs were killed")
    return wrong


def main() -> int:
    """Is the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="over all stages (default: %(default)s)")
    parser.add_argument("--stages", nargs="+", choices=tuple(PARAMS), default=tuple(PARAMS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="maskcast-kill-") as folder:
        wrong = kill(Path(folder), given.kills, tuple(given.stages))
    print("\n".join(wrong) or "each ended as an unbroken run does")
    return bool(wrong)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main())
