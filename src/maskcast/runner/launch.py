"""Starts the processes of a training stage: by torchrun's API on this machine, by a TrainJob on several nodes."""

import logging
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker, util

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from maskcast.errors import MaskcastError
from maskcast.memory import skip_last_collection
from maskcast.resources import threads_per_process
from maskcast.runner.stage import Job
from maskcast.stopping import EXIT_PAUSED, PAUSE_SIGNALS, Paused, Stopped, raise_on_signals, without_nohup
from maskcast.streams import protect_streams

Work = Callable[[Job], dict[str, float]]


def launch(work: Work, job: Job, *, nodes: int, processes: int) -> dict[str, float]:
    """Runs a stage on ``processes`` processes of each of ``nodes`` nodes and returns its metrics.

    Args:
        work: is run by each process.
        job: the stage with valid params; after a failure its outputs may be incomplete.
        nodes: 1 for this machine; more create a TrainJob.
        processes: number on each node.

    Raises:
        MaskcastError: the error that a process raised, or one that names the killed process.
    """
    if nodes > 1:
        try:
            from maskcast.runner.trainjob import run_trainjob
        except ImportError as error:
            raise MaskcastError(f"training.nodes {nodes}: {error}; pip install 'maskcast[cluster]'") from None
        return run_trainjob(job, nodes=nodes, processes=processes)
    handlers = {number: signal.getsignal(number) for number in without_nohup(PAUSE_SIGNALS)}
    _start_tracker()
    logging.disable(logging.CRITICAL)  # torchrun logs failures at length; the cause is raised below
    try:
        with tempfile.TemporaryDirectory(prefix="maskcast-") as logs, _temporary_files_in(logs):
            start = elastic_launch(_config(processes, logs), _worker)
            return start(work, job, threads_per_process(processes))[0]
    except ChildFailedError as error:
        raise _cause(job.name, processes, error) from None
    except SignalException as error:
        raise (Paused() if error.sigval in PAUSE_SIGNALS else Stopped(error.sigval)) from None
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items():  # restores those that torchrun replaced
            signal.signal(number, handler)


@contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """A context in which this process creates temporary files in a folder, as torch removes none of its own."""
    util.get_temp_dir()  # multiprocessing keeps the folder that it creates until this process ends
    before, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield
    finally:
        tempfile.tempdir = before


def _start_tracker() -> None:
    """Starts multiprocessing's resource tracker with signals blocked that whole jobs or terminals get."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGHUP})
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _config(processes: int, logs: str) -> LaunchConfig:
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,  # repeating the command resumes from the checkpoint
        signals_to_handle=",".join(number.name for number in without_nohup(PAUSE_SIGNALS)),
        logs_specs=DefaultLogsSpecs(log_dir=logs),  # for error files
    )


def _worker(work: Work, job: Job, threads: int | None) -> dict[str, float]:
    # torch sends SIGINT if the parent dies; background processes would ignore it by default
    signal.signal(signal.SIGINT, signal.default_int_handler)
    protect_streams()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with raise_on_signals():
            return work(job)
    except KeyboardInterrupt as stop:  # the parent process reports it
        raise SystemExit(getattr(stop, "code", 128 + signal.SIGINT)) from None
    finally:
        skip_last_collection()


def _cause(name: str, processes: int, error: ChildFailedError) -> BaseException:
    """Returns the error of the process that failed first, or one that says how it died."""
    rank, failure = error.get_first_failure()
    if failure.exitcode == EXIT_PAUSED:
        return Paused()
    if not isinstance(failure.message, dict):  # it left no error file
        reason = f"ended with exit code {failure.exitcode}"
        if failure.exitcode < 0:
            reason = f"was killed by {failure.signal_name()}, possibly because memory ran out"
        return MaskcastError(
            f"{name}: process {rank} of {processes} {reason}; fix the cause and run the same command again to "
            "resume from the last checkpoint"
        )
    kind, _, text = failure.message["message"].partition(": ")
    if kind == MaskcastError.__name__:
        return MaskcastError(text)
    return RuntimeError(f"process {rank} of {processes}:\n{failure.message['extraInfo']['py_callstack']}")
