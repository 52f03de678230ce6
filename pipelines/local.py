"""run-local: a pipeline on this machine, by Kubeflow's own local runner: in processes, or in containers."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp import local
from kfp.dsl.base_component import BaseComponent

from components._image import IMAGE
from maskcast.errors import MaskcastError
from pipelines.cluster import Placement
from pipelines.compile import build, stages_of
from pipelines.options import add_pipeline
from pipelines.values import load_values, local_data

PASSED_ON = re.compile(r"(AWS|MLFLOW|OMP|DVC)_")  # environment that a container gets, too


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_pipeline(parser)
    parser.add_argument(
        "--docker",
        metavar="IMAGE",
        help="run each stage in a container of this image (`make image` builds it) instead of a process",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        default=Path("kfp-local"),
        help="each run gets a folder of its own in it (default: %(default)s)",
    )


def run(given: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    overrides = list(given.set)
    mounts = []
    if given.docker and (folder := local_data(load_values(given.params, overrides, stages_of(given.pipeline)))):
        overrides.append(f"fetch_dataset.uri={folder}")
        mounts.append(folder)
    built = build(given.pipeline, given.params, overrides, Placement(given.docker or IMAGE))
    folder = run_local(built, given.out, given.docker, mounts)
    for name in ("scores.md", "table.txt"):
        for table in folder.glob(f"*/report/{name}"):
            print(table.read_text(encoding="utf-8"), end="")
    for page in sorted(folder.glob("*/page")):
        print(f"page: {page}")
    return 0


def run_local(built: BaseComponent, out: Path, image: str | None = None, mounts: Sequence[Path] = ()) -> Path:
    """Runs a pipeline in processes, or in containers of ``image``.

    Args:
        built: the pipeline.
        out: folder that gets a new folder for the run.
        image: image of the containers; None runs processes.
        mounts: folders that containers see, read-only, under the same path.

    Returns:
        The folder of the run: ``<stage>/<port>``, stages spelled with dashes; a stage's second use ends in ``-2``.

    Raises:
        MaskcastError: when a stage fails (its own line stands above) or no Docker Engine answers.
    """
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    before = set(out.iterdir())
    runner = _docker_runner(out, mounts) if image else local.SubprocessRunner(use_venv=False)
    # Components are started as `python3`: it must be the interpreter that has maskcast.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    local.init(runner, pipeline_root=str(out))
    try:
        built()
    except RuntimeError as error:
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        raise MaskcastError(f"{text} Its own error stands above; mend that and run again.") from None
    (folder,) = (new for new in set(out.iterdir()) - before if new.name.startswith(built.name))
    return folder


def _docker_runner(out: Path, mounts: Sequence[Path]) -> Any:
    import docker

    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        raise MaskcastError(
            f"no Docker Engine answers at {os.environ.get('DOCKER_HOST', 'its default socket')} ({error}); "
            "start it, or leave --docker out to run in processes"
        ) from None
    return local.DockerRunner(
        environment={name: value for name, value in os.environ.items() if PASSED_ON.match(name)},
        mounts=[docker.types.Mount(str(path), str(path), type="bind", read_only=True) for path in mounts],
        network_mode="host",  # MLflow and S3 servers of this machine keep their addresses
        read_only=True,
        tmpfs={"/tmp": ""},
        user=f"{os.getuid()}:{os.getgid()}",
        working_dir=str(out),  # mlflow.db appears there
    )
