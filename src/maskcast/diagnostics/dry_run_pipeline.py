"""Tries each stage of a pipeline on a few clips, in a separate process, and estimates the cost of the real run.

Each stage is run by ``run_stage`` with its real params, so model, sizes and batch are those of the real run. The
first stage reads a few clips of each part of the data set; a training takes a few steps. All is written to a
temporary folder, with a separate MLflow database, and removed afterwards.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from maskcast.diagnostics.cost import CostEstimate, estimate_cost
from maskcast.dry_run_notes import NOTES_FILE
from maskcast.errors import MaskcastError
from maskcast.params import validate
from maskcast.runner.dvc_calls import Call, ancestors_of, in_order, needs_of, params_of, path_within, read_calls

POLL_S = 0.5  # seconds between checks, as reading a process's memory maps takes time
# Environment variables of other runs, which are removed.
REMOVED_VARIABLES = ("MLFLOW_", "MASKCAST_RESUME_DIR", "KFP_")


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial of a stage.

    Attributes:
        name: name of the stage.
        cost: estimated cost of the stage; None if it failed or was not tried.
        note: the reason why there is no estimate, or a remark.
        failed: whether it was tried and failed.
    """

    name: str
    cost: CostEstimate | None
    note: str = ""
    failed: bool = False


def dry_run(folder: Path) -> Iterator[TrialResult]:
    """Tries the stages of ``dvc.yaml`` in a folder, in order, and yields the result of each.

    If a stage fails, the stages that read its outputs are not tried; all others are.

    Raises:
        MaskcastError: before any trial, if there is no pipeline, params are invalid, or entries are in a cycle.
    """
    file = folder / "dvc.yaml"
    calls, others = read_calls(file)
    if not calls:
        raise MaskcastError(f"{file}: contains no stage of maskcast; pass the folder of a pipeline")
    params = {entry: _params(folder, call) for entry, call in calls.items()}
    needs = needs_of(calls)
    written = {path for call in calls.values() for path in call.paths("out").values()}
    parent = folder if os.access(folder, os.W_OK) else None  # the disk that the real run will write to
    with TemporaryDirectory(prefix=".dry-run-", dir=parent) as scratch:
        results: dict[str, TrialResult] = {}
        for entry in in_order(calls):
            if failed_needs := [name for name in calls if name in needs[entry] and results[name].cost is None]:
                results[entry] = TrialResult(entry, None, f"not tried: it needs {failed_needs[0]}")
            else:
                parts = {
                    part: number
                    for name in ancestors_of(entry, needs)
                    if (cost := results[name].cost) is not None
                    for part, number in cost.parts.items()
                }
                results[entry] = _Trial(folder, Path(scratch), written, entry, calls[entry]).run(
                    params[entry], parts
                )
            yield results[entry]
    for name in others:
        yield TrialResult(name, None, "not tried: not a stage of maskcast")


def _params(folder: Path, call: Call) -> dict[str, Any]:
    """Returns the validated params of a call; for a training on several machines, those of one machine's share."""
    values, checked = params_of(folder, call)
    nodes = getattr(getattr(checked, "training", None), "nodes", 1)
    if nodes > 1:
        training = {"nodes": 1, "batch_size": values["training"]["batch_size"] // nodes}
        values = {**values, "training": values["training"] | training}
    return values


class _Trial:
    """The trial of one stage.

    Args:
        folder: folder of the pipeline, in which the stage runs.
        scratch: folder for outputs.
        written: all paths that stages of the pipeline write; other paths are read in place.
        entry: name of the stage in dvc.yaml.
        call: the call of the stage in dvc.yaml.
    """

    def __init__(self, folder: Path, scratch: Path, written: set[str], entry: str, call: Call) -> None:
        self.folder, self.scratch, self.entry, self.call = folder.absolute(), scratch.absolute(), entry, call
        self.paths = {port: str(self._path(path, path in written)) for port, path in call.ports.items()}

    def run(self, params: dict[str, Any], parts: Mapping[str, int]) -> TrialResult:
        """Runs the trial.

        Args:
            params: params of the stage.
            parts: number of clips by part of the data set that it reads.
        """
        if (fetched := self._fetched(params)) is not None:
            Path(self.paths["raw"]).parent.mkdir(parents=True, exist_ok=True)
            Path(self.paths["raw"]).symlink_to(fetched)
            return TrialResult(self.entry, CostEstimate(0.0, None, 0, 0, 0), f"already fetched: {fetched}")
        warmed = bool(parts) and "training" not in params and "registration" not in self.call.ports
        job: dict[str, Any] = {
            "stage": self.call.stage.name,
            "name": self.call.name,
            "params": params,
            "paths": self.paths,
        }
        job |= {"where": f"{self.call.params_file}: {self.call.name}", "times": 2 if warmed else 1}
        file, notes_file = self.scratch / "job.json", self.scratch / f"{self.entry}.notes"
        file.write_text(json.dumps(job), encoding="utf-8")
        notes_file.touch()
        began = time.monotonic()
        code, memory, last_line = self._watched(file, notes_file)
        wall_s = time.monotonic() - began
        notes = [json.loads(line) for line in notes_file.read_text(encoding="utf-8").splitlines()]
        if code:
            return TrialResult(self.entry, None, _cause(notes, code, memory, last_line), failed=True)
        notes.append({"memory": memory})
        values = validate(self.call.stage.params, params, self.call.name)
        return TrialResult(self.entry, estimate_cost(notes, wall_s, values, parts))

    def _path(self, path: str, is_output: bool) -> Path:
        return path_within(self.scratch / "outputs", path) if is_output else self.folder / path

    def _fetched(self, params: Mapping[str, Any]) -> Path | None:
        """Returns the folder of the data set if `fetch_dataset` has fetched it before, else None."""
        if self.call.stage.name != "fetch_dataset" or params["uri"] == "synthetic":
            return None
        raw = self.folder / self.call.ports["raw"]
        with suppress(OSError, ValueError, TypeError, KeyError):
            if json.loads((raw / "SOURCE.json").read_text(encoding="utf-8"))["uri"] == params["uri"]:
                return raw
        return None

    def _watched(self, job: Path, notes: Path) -> tuple[int, int, str]:
        """Runs a job; returns its exit code, the peak memory of its processes, and its last line of output."""
        database = f"sqlite:///{self.scratch / 'mlflow.db'}"
        env = {name: value for name, value in os.environ.items() if not name.startswith(REMOVED_VARIABLES)}
        env |= {NOTES_FILE: str(notes), "MLFLOW_TRACKING_URI": database}
        log, peak = self.scratch / "log.txt", 0
        command = [sys.executable, "-m", "maskcast.diagnostics.dry_run_stage", str(job)]
        with (
            log.open("wb") as file,
            subprocess.Popen(command, cwd=self.folder, env=env, stdout=file, stderr=file) as process,
        ):
            try:
                while process.poll() is None:
                    peak = max(peak, _memory_of(process.pid))
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(POLL_S)
            finally:
                process.terminate()
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return process.returncode, peak, lines[-1] if lines else ""


def _memory_of(pid: int) -> int:
    """Returns the memory in bytes of a process and its descendants; shared pages count once."""
    total = 0
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error):
                usage = process.memory_full_info()
                total += getattr(usage, "pss", usage.rss)
    return total


def _cause(notes: list[Any], code: int, memory: int, last_line: str) -> str:
    """Returns the reason why a stage failed."""
    if code == -9:
        peak = f"{memory / 2**30:.1f} GiB"
        return f"out of memory: killed by the system at {peak}; lower its batch size, or use a machine with more"
    return next((str(note["error"]) for note in notes if "error" in note), last_line or f"exit code {code}")
