"""DVC's queue of experiments, controlled by its command line: queue, run and follow experiments, fetch outputs."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.reading import pluralize

POLL_S = 2.0
NO_WORKER_TIMEOUT_S = 60.0  # a queue with work but no worker is given up after this; workers need seconds to start
UNFINISHED = ("Queued", "Running")
WORKERS = re.compile(r"Worker status: (\d+) active, (\d+) idle")
TASK = re.compile(r"^([0-9a-f]{7}) +(\S+) .* (Queued|Running|Failed|Success)$", re.MULTILINE)
BACKSLASHES = re.compile(r"\\+(?='|\Z)")  # those that Hydra takes as escapes in quotes
SEPARATOR = re.compile(r"[\\()\[\]{}:=, \t]")  # must be escaped in a Hydra key, which cannot be quoted
KEY = re.compile(r"[\w/+.$%*@?|\\()\[\]{}:=, \t-]+", re.ASCII)  # what Hydra allows in a key
OTHER_TYPE = re.compile(r"true|false|null|[+-]?(inf|nan|\.?\d[\d_.]*(e[+-]?\d[\d_]*)?)", re.IGNORECASE)
ERROR = re.compile(r"^\s*error: (.+)$", re.MULTILINE)  # maskcast's form of errors


@dataclass(frozen=True)
class Experiment:
    """An experiment for the queue.

    Attributes:
        name: of the experiment.
        sections: complete sections of params.yaml that differ.
        targets: entries of dvc.yaml to run, with their dependencies.
    """

    name: str
    sections: Mapping[str, Mapping[str, Any]]
    targets: Sequence[str]


class Queue:
    """The experiment queue of a repository.

    Args:
        folder: of dvc.yaml and params.yaml in the repository.

    Raises:
        MaskcastError: the folder is not in a Git and DVC repository, or files have uncommitted changes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if self._git("rev-parse", "--verify", "--quiet", "HEAD").returncode:
            raise MaskcastError(
                f"{folder.absolute()}: not a Git repository with a commit, from which DVC experiments start; "
                "run `git init`, and commit the project"
            )
        if self._dvc("root").returncode:
            raise MaskcastError(f"{folder.absolute()}: not a DVC repository; run `dvc init`")
        self._commit = self._git("rev-parse", "HEAD").stdout.strip()
        if changed := self._git("status", "--porcelain", "--untracked-files=no").stdout.splitlines():
            more = f" and {pluralize(len(changed) - 1, 'more file')}" if changed[1:] else ""
            raise MaskcastError(
                f"{changed[0].split()[-1]}{more}: uncommitted changes, but DVC experiments start from the last "
                "commit; commit or `git stash` them"
            )

    def run(self, experiments: Sequence[Experiment], jobs: int) -> dict[str, str]:
        """Runs the experiments that have not succeeded at this commit yet, and returns the reasons of failures.

        Experiments that are already queued or running continue. Ctrl-C stops all that are running.

        Args:
            experiments: to run.
            jobs: number of parallel workers.

        Raises:
            MaskcastError: the queue has other experiments, DVC rejects one, or all workers have exited.
        """
        remaining = {each.name: each for each in experiments if not self._has_succeeded(each.name)}
        if finished := [each.name for each in experiments if each.name not in remaining]:
            say(f"already finished: {', '.join(finished)}")
        if not remaining:
            return {}
        self._clear(remaining)
        waiting = {name for name, (_, state) in self._status()[0].items() if state in UNFINISHED}
        try:
            for name, experiment in remaining.items():
                if name not in waiting:
                    self._enqueue(experiment)
            self._dvc_output("queue", "start", "--jobs", str(jobs))
            failed = self._wait_for(list(remaining))
        except KeyboardInterrupt:
            self._dvc("queue", "stop", "--kill")
            for name, (task, state) in self._status()[0].items():
                if name in remaining and state == "Queued":
                    self._dvc("queue", "remove", task)
            raise
        return {name: self._reason(task) for name, task in failed.items()}

    def fetch(self, name: str, path: str, to: Path) -> None:
        """Copies an output of an experiment.

        Args:
            name: of the experiment.
            path: of the output, relative to the folder.
            to: a new path.

        Raises:
            MaskcastError: DVC cannot fetch it.
        """
        top = Path(self._git("rev-parse", "--show-toplevel").stdout.strip())
        inside = (self._folder.resolve() / path).relative_to(top.resolve())
        self._dvc_output("get", str(top), str(inside), "--rev", self._experiment_ref(name), "--out", str(to))

    def _clear(self, remaining: Container[str]) -> None:
        """Removes experiments from the queue that have ended, or were killed with their worker.

        Raises:
            MaskcastError: the queue has other experiments.
        """
        states, workers = self._status()
        if others := [
            name for name, (_, state) in states.items() if state in UNFINISHED and name not in remaining
        ]:
            raise MaskcastError(
                f"the DVC queue has other experiments: {', '.join(others)}; wait for them (`dvc queue status`), "
                "or remove them (`dvc queue remove --queued`)"
            )
        for name, (task, state) in states.items():
            killed = state == "Running" and not workers
            if name in remaining and killed:
                self._dvc_output("queue", "kill", task)
            if name in remaining and (killed or state not in UNFINISHED):
                self._dvc_output("queue", "remove", task)

    def _enqueue(self, experiment: Experiment) -> None:
        changes = []
        for section, values in experiment.sections.items():
            changes += ["-S", f"~{section}", "-S", f"+{section}={_hydra(values)}"]
        self._dvc_output("exp", "run", "--queue", "--name", experiment.name, *changes, *experiment.targets)

    def _wait_for(self, names: Sequence[str]) -> dict[str, str]:
        """Waits until experiments end, reports each result, and returns the tasks of failed ones."""
        reported: dict[str, str] = {}
        worker_seen = time.monotonic()
        while True:
            states, workers = self._status()
            worker_seen = time.monotonic() if workers else worker_seen
            for name in names:
                state = states.get(name, ("", "Queued"))[1]
                if state not in (reported.get(name), "Queued"):
                    reported[name] = state
                    ended = sum(state not in UNFINISHED for state in reported.values())
                    say(f"{name}: {state.lower()} ({ended} of {len(names)} have ended)")
            if all(reported.get(name) in ("Success", "Failed") for name in names):
                return {name: states[name][0] for name in names if reported[name] == "Failed"}
            if time.monotonic() - worker_seen > NO_WORKER_TIMEOUT_S:
                raise MaskcastError(
                    "all workers of the DVC queue have exited; run the same command again to continue"
                )
            time.sleep(POLL_S)

    def _reason(self, task: str) -> str:
        output = self._dvc("queue", "logs", task).stdout
        if errors := ERROR.findall(output):
            return str(errors[-1])
        return f"no maskcast error in its log; see `dvc queue logs {task}`"

    def _status(self) -> tuple[dict[str, tuple[str, str]], int]:
        """Returns task and state of each queued experiment by name, and the number of workers."""
        text = self._dvc_output("queue", "status")
        workers = WORKERS.search(text)
        states = {name: (task, state) for task, name, state in TASK.findall(text)}
        return states, int(workers[1]) + int(workers[2]) if workers else 0

    def _experiment_ref(self, name: str) -> str:
        return f"refs/exps/{self._commit[:2]}/{self._commit[2:]}/{name}"

    def _has_succeeded(self, name: str) -> bool:
        return not self._git("rev-parse", "--verify", "--quiet", self._experiment_ref(name)).returncode

    def _dvc_output(self, *arguments: str) -> str:
        done = self._dvc(*arguments)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr]
            raise MaskcastError(f"dvc {' '.join(arguments[:2])}: {lines[-1].removeprefix('ERROR: ').strip()}")
        return done.stdout

    def _dvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run([sys.executable, "-m", "dvc", *arguments])

    def _git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(["git", *arguments])

    def _run(self, command: Iterable[str]) -> subprocess.CompletedProcess[str]:
        # It gets its own session, so that Ctrl-C only reaches this process, which then stops the queue in
        # order. Workers and stages start `dvc` and `maskcast`, which must be those of this interpreter. Telemetry
        # is off, because following a queue calls `dvc` every few seconds.
        path = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
        return subprocess.run(
            list(command),
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
            env={"DVC_NO_ANALYTICS": "1"} | os.environ | path,
        )


def _hydra(value: Any) -> str:
    """Returns a value in the syntax of Hydra overrides, which DVC's ``-S`` takes.

    Raises:
        MaskcastError: Hydra has no syntax for a key.
    """
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_hydra_key(key)}:{_hydra(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_hydra, value)) + "]"
    if isinstance(value, str):
        return "'" + BACKSLASHES.sub(lambda found: 2 * found[0], value).replace("'", "\\'") + "'"
    if isinstance(value, float):
        return repr(value)
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _hydra_key(key: Any) -> str:
    """Returns a key of a mapping in the syntax of Hydra overrides."""
    if not isinstance(key, str):
        return _hydra(key)
    if not KEY.fullmatch(key) or OTHER_TYPE.fullmatch(key):
        raise MaskcastError(
            f"params.yaml: key {key!r} cannot be passed to a DVC experiment; name it by ASCII letters, digits, "
            "spaces and `_-.`, not like a number, true, false or null"
        )
    return SEPARATOR.sub(r"\\\g<0>", key)
