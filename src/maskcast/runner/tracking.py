"""Tracks a stage: sends its metrics, files and outputs to its MLflow run while it runs.

A separate thread talks to the server (``mlflow_sender``), so that training never waits for it. The run is opened
first (``mlflow_run``), and a permanent error of MLflow ends the stage before any work. While the server is
unavailable, everything is queued. At its end, a stage waits while the queues shrink. If nothing was sent for two
minutes, the number of lost items is reported.

Files go to MLflow's artifact store, which may fail while MLflow itself works. The run then gets all metrics and
ends. Whatever is lost is kept in a folder, with the command that sends it, and the next stages wait only shortly.
"""

import csv
import hashlib
import os
import re
import shlex
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path

from maskcast.errors import MaskcastError, is_disk_full, one_line
from maskcast.progress import log_if_slow, say
from maskcast.reading import pluralize
from maskcast.runner.mlflow_errors import error_text, is_mlflow_error, is_temporary, user_error
from maskcast.runner.mlflow_run import EXPERIMENT
from maskcast.runner.mlflow_sender import Files, Metrics, Sender, StoreError
from maskcast.runner.mlflow_uri import env_value, redacted_uri, tracking_uri
from maskcast.runner.provenance import CHANGED, ERROR, Origin, output_tags

OPEN_S = 60.0  # how long a stage waits for the server's first response
FLUSH_S = 120.0  # how long the end of a stage waits if nothing can be sent
STOPPED_FLUSH_S = 10.0  # the same for a stopped stage, as a pod is killed after half a minute
BROKEN_S = 3600.0  # how long later stages remember that the server or its store lost items, and wait only shortly
SEND_EVERY_S = 2.0
LOST_METRICS = "lost_metrics.csv"
NO_NAME = re.compile(r"[^\w/.: -]")  # not allowed in names of metrics: MLflow would refuse the whole request


class TrackedRun:
    """One MLflow run, to which queued items are sent; a listener of ``progress``."""

    def __init__(self, origin: Origin, key_file: Path) -> None:
        self.origin, self.key_file = origin, key_file
        self._metrics: Metrics = deque()
        self._files: Files = deque()
        self._end_tags: dict[str, str] = {}
        self._spool = Path(tempfile.mkdtemp(prefix="maskcast-"))
        self._lost = self._spool / "lost"
        self._sender: Sender | None = None
        self._store: str | None = None  # the artifact store, while it is sent files or fails
        self._num_files = 0
        self._answered, self._stop, self._abandoned = threading.Event(), threading.Event(), threading.Event()
        # Not `join` and `is_alive`: after Ctrl-C during `join` a thread counts as ended.
        self._ended = threading.Event()
        self._refused: Exception | None = None
        self._reason = "no response yet"
        self._status = "FINISHED"
        # in this thread's context, which has the stage's name
        threading.Thread(target=copy_context().run, args=(self._work,), name="mlflow", daemon=True).start()

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        """Queues metrics."""
        now = int(time.time() * 1000)
        named = ((NO_NAME.sub("", name), float(value)) for name, value in values.items())
        self._metrics.extend((name, value, now, step or 0) for name, value in named)

    def file(self, path: Path, folder: str) -> None:
        """Queues a copy of a file, so that the stage may remove the original; a full disk loses the copy."""
        spool = self._spool / str(self._num_files)
        self._num_files += 1
        try:
            spool.mkdir()
            self._files.append((Path(shutil.copy(path, spool)), folder))
        except OSError as error:
            if not is_disk_full(error):
                raise
            shutil.rmtree(spool, ignore_errors=True)
            say(f"tracking: lost {path.name}: no space left at {self._spool.parent}; free some, or set TMPDIR")

    def outputs(self, paths: Mapping[str, Path]) -> None:
        """Records digests of the stage's outputs, by which later runs can be traced to this one."""
        self._end_tags |= output_tags(paths)

    def changed(self, inputs: list[str]) -> None:
        """Records inputs that were replaced while the stage ran."""
        self._end_tags[CHANGED] = ", ".join(inputs)

    def failed(self, error: Exception) -> None:
        """Records why the stage failed."""
        kind = "" if isinstance(error, MaskcastError) else f"{type(error).__name__}: "
        notes = getattr(error, "__notes__", [])  # e.g. the clip of an augmentation that failed
        self._end_tags[ERROR] = one_line(Exception(" ".join([f"{kind}{error}", *notes])))

    def section(self, title: str, content: object) -> None:
        """Does nothing: the page that includes the section is a file of the run."""

    def wait_until_open(self) -> None:
        """Waits for the server's first response, or until it is known to be unavailable.

        Raises:
            MaskcastError: MLflow refuses the run permanently.
        """
        wait_s = min(OPEN_S, STOPPED_FLUSH_S) if _is_recent(_broken_marker()) else OPEN_S
        with log_if_slow(f"the first response of MLflow, at most {wait_s:.0f} s"):
            self._answered.wait(wait_s)
        if self._refused is not None:
            raise self._refused

    def close(self, status: str) -> None:
        """Sends all queued items, waiting for a server that is unavailable, and ends the run.

        Ctrl-C and SIGTERM only end the waiting: the stage is complete, and its outputs are kept.
        """
        self._status = status
        self._stop.set()
        what = "MLflow to receive the last metrics and files; Ctrl-C ends only this wait"
        with suppress(KeyboardInterrupt), log_if_slow(what):
            self._wait_for_rest(STOPPED_FLUSH_S if status == "KILLED" else FLUSH_S)
        if not self._ended.is_set():
            self._abandoned.set()
            if self._store is not None:  # MLflow itself works, but an upload may hang
                end = threading.Thread(target=self._end_run, name="mlflow-end", daemon=True)
                end.start()
                with suppress(KeyboardInterrupt):
                    end.join(STOPPED_FLUSH_S)
            self._report_lost(f"was unavailable ({self._reason})")
        if not self._lost.is_dir():
            shutil.rmtree(self._spool, ignore_errors=True)

    def _wait_for_rest(self, wait_s: float) -> None:
        """Returns when everything is sent, or nothing was sent for a while."""
        before, left = float("inf"), self._left
        while left < before and not self._ended.wait(min(wait_s, STOPPED_FLUSH_S)):
            if not _is_recent(_broken_marker()) and self._ended.wait(max(0.0, wait_s - STOPPED_FLUSH_S)):
                return
            before, left = left, self._left

    @property
    def _left(self) -> int:
        return len(self._metrics) + len(self._files)

    def _work(self) -> None:
        try:
            self._send_all()
        finally:
            self._ended.set()

    def _send_all(self) -> None:
        reported = False
        while True:
            stopping = self._stop.is_set()
            try:
                sender = self._sender = self._sender or Sender(self.origin, self.key_file)
                self._answered.set()
                sender.send_metrics(self._metrics)
                self._store = sender.store if self._files else None
                sender.send_files(self._files)
                self._store = None
                if stopping:
                    sender.end(self._status, self._end_tags)
                    with suppress(OSError):
                        _broken_marker().unlink()
                    return
                reported = False
            # Errors of server or network must not end a training; they are reported instead.
            except Exception as error:
                self._store = self._sender.store if isinstance(error, StoreError) and self._sender else None
                cause = error.__cause__ if isinstance(error, StoreError) and error.__cause__ else error
                lasting = not is_temporary(cause)
                if lasting and self._sender is None and not self._answered.is_set():
                    known = isinstance(error, MaskcastError) or not is_mlflow_error(error)
                    self._refused = error if known else user_error(error)
                    self._answered.set()
                    return
                self._answered.set()
                self._reason = error_text(cause)
                if self._abandoned.is_set():
                    return
                if stopping and lasting:
                    if self._store is not None:
                        self._end_run()
                    self._report_lost(f"rejected them ({self._reason})")
                    return
                if not reported:
                    what = "files" if self._store is not None else "metrics or files"
                    state = f"rejects {what}" if lasting else "is unavailable"
                    say(f"tracking: {self._place} {state} ({self._reason}); the stage continues and queues them")
                    reported = True
                if stopping:
                    self._abandoned.wait(SEND_EVERY_S)
            if not stopping:
                self._stop.wait(SEND_EVERY_S)

    def _end_run(self) -> None:
        """Sends the last metrics and ends the run without its files, while the artifact store fails."""
        assert self._sender is not None
        with suppress(Exception):  # the loss is reported
            self._sender.send_metrics(self._metrics)
            self._sender.end(self._status, self._end_tags)

    @property
    def _place(self) -> str:
        """What does not take items: the artifact store, or the server of MLflow."""
        return self._store or redacted_uri()

    def _report_lost(self, what: str) -> None:
        lost = f"{pluralize(len(self._metrics), 'metric')}, {pluralize(len(self._files), 'file')}"
        kept = "; the outputs of the stage are complete" if self._status == "FINISHED" else ""
        with suppress(OSError):
            _broken_marker().touch()
        say(f"tracking: lost {lost} of {self.origin.name}: {self._place} {what}{kept}{self._remedy()}")

    def _remedy(self) -> str:
        """Arranges what is lost as in the run, metrics as a CSV file; returns the commands that send it."""
        files, metrics, folder = list(self._files), self._metrics.copy(), self._lost
        if not files and not metrics:
            return ""
        try:
            folder.mkdir()
            for path, name in files:  # a slow upload may end meanwhile
                (folder / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / name)
            if metrics:
                with (folder / LOST_METRICS).open("w", encoding="utf-8", newline="") as file:
                    csv.writer(file).writerows([("name", "value", "milliseconds", "step"), *metrics])
        except OSError as error:  # e.g. a full disk, which must not end a finished stage
            self._files.clear()
            shutil.rmtree(folder, ignore_errors=True)
            return f"; the files could not be kept ({one_line(error)})"
        create, run_id = "", self._sender and self._sender.run_id
        if run_id is None:  # the server has no run
            experiment, run_id = shlex.quote(env_value("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT), "RUN_ID"
            name = shlex.quote(self.origin.title)
            create = f"`mlflow runs create --experiment-name {experiment} --run-name {name}`, then "
        command = f"mlflow artifacts log-artifacts --local-dir {folder} --run-id {run_id}"
        kept = "metrics and files" if metrics else "files"
        return f"; the {kept} are in {folder}, to send them later: {create}`{command}`"


def _broken_marker() -> Path:
    """Returns the file that tells later stages on this machine that MLflow or its store has lost items."""
    digest = hashlib.sha256(tracking_uri().encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir(), f"maskcast-{os.getuid()}-{digest}.broken")


def _is_recent(marker: Path) -> bool:
    try:
        return abs(time.time() - marker.stat().st_mtime) < BROKEN_S  # a clock may have been ahead
    except OSError:
        return False


@contextmanager
def tracked_run(origin: Origin, key_file: Path) -> Iterator[TrackedRun]:
    """A context with an open run, which ends as FINISHED, FAILED (error) or KILLED (stopped).

    Args:
        origin: provenance of the run.
        key_file: stores the run's key, so that a killed stage can resume it.

    Raises:
        MaskcastError: MLflow refuses the run permanently; the block is not entered.
    """
    run = TrackedRun(origin, key_file)
    try:
        run.wait_until_open()
        yield run
        if changed := origin.changed():
            run.changed(changed)
            listed = ", ".join(f"{name} ({origin.inputs[name]})" for name in changed)
            say(f"{origin.name}: inputs changed while the stage ran: {listed}; run the stage again")
    except BaseException as error:
        if isinstance(error, Exception):
            run.failed(error)
        run.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    run.close("FINISHED")
