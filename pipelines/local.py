"""Runs a pipeline on this machine with Kubeflow's own local runner, in processes or in containers.

It prints one line per stage, and at the end the scores and the address of a page for the browser. The output of
stages and runner is kept in `log.txt` of the run's folder.
"""

import argparse
import csv
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
from kfp import local
from kfp.dsl.base_component import BaseComponent

from components._image import IMAGE
from maskcast.errors import MaskcastError
from maskcast.files import tree_files
from maskcast.report.index import write_index
from maskcast.report.tables import format_table
from maskcast.runner.mlflow_client import create_database
from maskcast.stopping import STOP_SIGNALS, Stopped, without_nohup
from pipelines.compile import build, grid_plan, read_values, report, stages_of
from pipelines.dag import names_in
from pipelines.local_docker import docker_runner
from pipelines.local_log import COLOUR, StageLog
from pipelines.options import add_grid, add_pipeline
from pipelines.placement import Placement
from pipelines.values import local_data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_pipeline(parser)
    add_grid(parser)
    parser.add_argument(
        "--docker",
        metavar="IMAGE",
        help="run each stage in a container of this image (`make image` builds it) instead of a process",
    )
    parser.add_argument("--verbose", action="store_true", help="show everything that stages and runner print")
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        default=Path("kfp-local"),
        help="folder in which each run gets a folder of its own (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    values, warnings = read_values(args.pipeline, args.params, args.set)
    mounts = []
    if args.docker and (folder := local_data(values)):
        values["fetch_dataset"]["uri"] = str(folder)
        mounts.append(folder)
    grid = grid_plan(args, values)
    built = build(args.pipeline, values, Placement(args.docker or IMAGE), grid)
    report(warnings)
    total = None if args.verbose else grid.total if grid else len(stages_of(args.pipeline))
    if grid:
        create_database()
    folder = run_local(built, args.out, args.docker, mounts, total, names_in(built))
    variants = [variant.name for variant in grid.variants] if grid else []
    for file in folder.glob("*/report/scores.md"):
        lines = file.read_text(encoding="utf-8").splitlines()
        header, _, *rows = (line.strip("| ").split(" | ") for line in lines)
        print(format_table(header, rows))
    for file in folder.glob("*/report/table.txt"):
        print(file.read_text(encoding="utf-8"), end="")
    for file in folder.glob("evaluate-many/report/scores.csv"):
        header, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
        print(format_table(header, rows))
    print(f"report: {write_pages(folder, variants)}")
    return 0


def write_pages(folder: Path, variants: Sequence[str] = ()) -> Path:
    """Copies the pages of a run to one folder, and returns the index page.

    Args:
        folder: folder of the run.
        variants: variants of a grid, in the order of its loop.
    """
    pages = folder / "pages"
    pages.mkdir()
    for page in (page for page in tree_files(folder) if page.name == "page"):  # artifacts have no file ending
        loop, _, number = page.parent.parent.name.rpartition("-iteration-")
        variant = f"{variants[int(number)]}_" if loop else ""
        shutil.copy2(page, pages / f"{variant}{page.parent.name.replace('-', '_')}.html")
    return write_index(pages) or pages


def run_local(
    built: BaseComponent,
    out: Path,
    image: str | None = None,
    mounts: Sequence[Path] = (),
    total: int | None = None,
    names: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Runs a pipeline in processes, or in containers of ``image``.

    Args:
        built: the pipeline.
        out: folder in which a folder for the run is created.
        image: image of the containers; None uses processes.
        mounts: folders that are mounted read-only in containers, under the same path.
        total: number of stages, to print one line per stage; None prints all output.
        names: see `StageLog`.

    Returns:
        The folder of the run: ``<stage>/<port>``, stages with dashes; a second use of a stage ends in ``-2``.

    Raises:
        MaskcastError: a stage fails, Docker is unreachable, or the image is missing.
    """
    out = out.absolute()
    runner = docker_runner(image, out, mounts) if image else local.SubprocessRunner(use_venv=False)
    log, failure = out / f"log-{os.getpid()}.txt", ""
    try:
        out.mkdir(parents=True, exist_ok=True)
        log.touch()
    except OSError as error:
        raise MaskcastError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None
    before = set(out.iterdir())
    # Components are started as `python3`, which must be the interpreter with maskcast.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    local.init(runner, pipeline_root=str(out))
    warnings.filterwarnings("ignore", "Task .* have no effect in the current local runner")
    with log.open("w", encoding="utf-8") as file:
        stages = StageLog(file, total or 0, names)
        try:
            with nullcontext() if total is None else redirect_stdout(stages), _stages_stop_first():
                built()
        except KeyboardInterrupt as stop:
            stop.add_note(f" in {stages.stage}; full output: {log}" if stages.stage else "")
            raise
        except RuntimeError as error:
            failure = COLOUR.sub("", str(error)) if total is None else f"{stages.stage}: {stages.error or error}"
    # Other runs may be active, too. The output of stages names this run's folder; if it was not captured, use the
    # first new folder, as names end in the start time.
    new = sorted(each for each in set(out.iterdir()) - before if each.name.startswith(built.name))
    printed_text = log.read_text(encoding="utf-8")
    folder = next((each for each in new if each.name in printed_text), new[0])
    log = log.replace(folder / "log.txt")
    if failure:
        details = "see its error above" if total is None else f"full output: {log}"
        raise MaskcastError(f"{failure} ({details})")
    return folder


@contextmanager
def _stages_stop_first() -> Iterator[None]:
    """On ``STOP_SIGNALS``, stops the running stage and reads its output to the end before this process stops."""
    stopped: list[int] = []

    def stop(number: int, _: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends this process at once
        stopped.append(number)
        running = psutil.Process().children()
        for shell in running:
            with suppress(psutil.NoSuchProcess):  # it has just ended
                shell.suspend()  # else it could start the stage in the meantime
                for stage in shell.children():
                    with suppress(psutil.NoSuchProcess):
                        stage.terminate()  # stages ignore a second signal
                shell.terminate()
                shell.resume()
        if not running:
            raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in without_nohup(STOP_SIGNALS)}
    try:
        yield
    except RuntimeError:
        if not stopped:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        raise Stopped(stopped[0])
