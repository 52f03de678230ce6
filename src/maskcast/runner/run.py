"""Runs a stage: validates it, opens a tracked run, calls it and moves its outputs into place.

All stages are run by this module. Outputs are atomic: a stage writes to ``<output>.partial``, see ``outputs``.
"""

import json
import multiprocessing
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from maskcast.errors import MaskcastError, convert_system_errors
from maskcast.locks import exclusive_lock
from maskcast.memory import keep_freed_memory
from maskcast.params import validate
from maskcast.progress import is_main_process, listening
from maskcast.resources import limit_threads
from maskcast.runner.outputs import atomic_outputs, check_deletes_none, curves_file, resume_dir, run_file
from maskcast.runner.references import resolve_reference, store_output, working_path
from maskcast.runner.stage import Job, Stage, check_name, get_stage, running_as
from maskcast.runner.variants import in_grid, run_variant
from maskcast.stopping import RESUME_HINT, Stopped, raise_on_signals, report_stop


def run_stage(
    stage: str, params: Mapping[str, Any], *, name: str | None = None, where: str = "params", **paths: str | Path
) -> dict[str, float]:
    """Runs one stage and returns its metrics (empty for a stage without the output ``metrics``).

    If ``training.processes`` or ``training.nodes`` require several processes, it starts them and waits. If
    torchrun started this process, it is one of them.

    Args:
        stage: the stage.
        params: its params as plain values.
        name: its name in the pipeline; None for the stage's own name.
        where: location of the params for errors, e.g. ``params.yaml: train_masker``.
        **paths: one path per port; an optional input may be left out.

    Raises:
        MaskcastError: params or name are invalid, ports are missing or unknown, inputs are unreadable, outputs are
            unwritable, or the disk is full. Also if a process that the stage started runs the calling script
            again.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # multiprocessing's own check
        raise MaskcastError(
            f"{stage}: a process that the stage started has imported your script, which calls the stage again; "
            'put the calls in the script below `if __name__ == "__main__":`'
        )
    the_stage = get_stage(stage)
    name = name or stage
    check_name(name, stage)
    if not in_grid():
        return _run(the_stage, params, name, where, paths)
    ports = {port.name: port.direction for port in the_stage.ports}
    paths_by_direction = [
        [Path(paths[port]) for port in paths if ports.get(port) == direction] for direction in ("in", "out")
    ]
    return run_variant(lambda: _run(the_stage, params, name, where, paths), name, params, *paths_by_direction)


def _run(
    the_stage: Stage, params: Mapping[str, Any], name: str, where: str, paths: Mapping[str, str | Path]
) -> dict[str, float]:
    values = validate(the_stage.params, params, where)
    inputs, outputs = _resolve(the_stage, paths)
    partials = {port: working_path(out) for port, out in outputs.items()}
    job = Job(the_stage.name, name, dict(params), inputs, partials)
    training = getattr(values, "training", None)  # only training stages have it
    pages = outputs["page"].parent if "page" in outputs and outputs["page"].suffix == ".html" else None
    with (
        _stoppable(outputs),
        atomic_outputs(outputs, partials, store_output) if is_main_process() else nullcontext(),
    ):
        if is_main_process() and pages is not None and pages.is_dir():
            link_pages(pages)  # DVC has removed the page of the last run, and this one may be stopped
        if training is None or training.world_size == 1 or "RANK" in os.environ:
            metrics = execute(job)
        else:
            from maskcast.runner.launch import launch

            metrics = launch(execute, job, nodes=training.nodes, processes=training.processes)
    if is_main_process() and pages is not None:
        link_pages(pages)
    return metrics


def link_pages(folder: Path) -> None:
    """Writes the index of the pages in a folder; other stages may write to the folder at the same time."""
    from maskcast.report.index import write_index
    from maskcast.report.page import INDEX

    with convert_system_errors(folder / INDEX), exclusive_lock(folder / INDEX, blocking=True):
        write_index(folder)


@contextmanager
def _stoppable(outputs: Mapping[str, Path]) -> Iterator[None]:
    """A context that reports how to go on when a stage is stopped; in a pod it also ends the process."""
    before = [_inode(out) for out in outputs.values()]
    with raise_on_signals() as handles_signals:
        try:
            yield
        except KeyboardInterrupt as stop:
            # without a volume, a pod's checkpoints are lost with it
            resumes = "KFP_RUN_ID" not in os.environ or "MASKCAST_RESUME_DIR" in os.environ
            has_checkpoint = any(resume_dir(out).exists() for out in outputs.values())
            replaced = [_inode(out) != number for out, number in zip(outputs.values(), before, strict=True)]
            if all(replaced):  # stopped while locks and checkpoints were removed
                stop.add_note(": the outputs are complete")
            elif has_checkpoint and resumes:
                stop.add_note(RESUME_HINT)
            else:
                some = ": some outputs were written; run the same command again"
                stop.add_note(some if any(replaced) else ": nothing was written")
            if handles_signals and isinstance(stop, Stopped):
                raise SystemExit(report_stop(stop)) from None
            raise


def _inode(path: Path) -> int | None:
    """Returns the number of a file or folder, which another one that replaces it does not have."""
    return path.lstat().st_ino if os.path.lexists(path) else None


def execute(job: Job) -> dict[str, float]:
    """Runs a stage in this process and returns its metrics.

    With several processes only the first is tracked and writes the outputs. The others write to a temporary
    folder.
    """
    limit_threads()
    keep_freed_memory()  # for entry points other than the command line: shims, and processes of a group
    the_stage = get_stage(job.stage)
    values = validate(the_stage.params, job.params, job.name)
    outputs = {port: path for port, path in job.outputs.items() if port != "page" or not the_stage.tracked}
    with convert_system_errors(*job.outputs.values()), running_as(job.name, the_stage):
        if not is_main_process():
            with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch:
                os.environ.pop("MASKCAST_RESUME_DIR", None)  # only the first process writes checkpoints
                the_stage.function(**job.inputs, **{port: Path(scratch, port) for port in outputs}, params=values)
            return {}
        if not the_stage.tracked:
            the_stage.function(**job.inputs, **outputs, params=values)
            return {}
        from maskcast.report.page import Page
        from maskcast.runner.curve_log import CurveLog
        from maskcast.runner.fingerprint import known_digests
        from maskcast.runner.provenance import Origin
        from maskcast.runner.tracking import tracked_run

        origin = Origin.of(job.stage, values, job.inputs)
        page, out = Page(job.name), next(iter(job.outputs.values()))
        with (
            closing(CurveLog(curves_file(out), origin.digest)) as curves,
            tracked_run(origin, run_file(out)) as run,
            listening(run, page, curves),
        ):
            for step, reported in curves.earlier:
                page.metrics(reported, step)
            with known_digests({path: origin.data[port] for port, path in job.inputs.items()}):
                the_stage.function(**job.inputs, **outputs, params=values)
            metrics: dict[str, float] = json.loads(job.outputs["metrics"].read_text(encoding="utf-8"))
            run.metrics(metrics, None)
            run.outputs({port: path for port, path in outputs.items() if port != "metrics"})
            with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch:
                file = Path(scratch, f"{job.name}.html")
                page.write(file, metrics, values, dict(origin.facts))
                run.file(file, "")
                if "page" in job.outputs:
                    shutil.copy(file, job.outputs["page"])
        return metrics


def _resolve(the_stage: Stage, paths: Mapping[str, str | Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Returns input and output paths by port; checks that inputs exist, and follows references."""
    names = [port.name for port in the_stage.ports]
    for name in paths:
        if name not in names:
            raise MaskcastError(f"{the_stage.name} has no port {name!r}; ports: {', '.join(names)}")
    inputs, outputs = {}, {}
    protected = {"the working directory": Path.cwd()} | {f"--{name}": Path(path) for name, path in paths.items()}
    for port in the_stage.ports:
        if port.name not in paths:
            if not port.optional:
                raise MaskcastError(
                    f"{the_stage.name}: --{port.name} is missing; pass its {port.direction}put path"
                )
            continue
        path = Path(paths[port.name])
        if port.direction == "in":
            if not path.exists():
                raise MaskcastError(
                    f"{path}: input does not exist (--{port.name} of {the_stage.name}); {_remedy(path)}"
                )
            inputs[port.name] = resolve_reference(path)
        else:
            others = {name: each for name, each in protected.items() if name != f"--{port.name}"}
            check_deletes_none(path, port.name, others)
            outputs[port.name] = path
    return inputs, outputs


def _remedy(missing: Path) -> str:
    """Returns what to do about an input that does not exist."""
    address = re.fullmatch("models:/(?P<name>[^/@]+)[/@](?P<version>[^/@]+)", str(missing))
    if address is None:
        return "run the stage that writes it"
    return (
        f"stages read folders: run `maskcast models --name {address['name']} download {address['version']} "
        "--output start`, and give the folder of the part in it, e.g. start/masker"
    )
