"""The command `pipeline`: the project's pipelines on Kubeflow, whose code lies in the project's folder."""

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maskcast.errors import MaskcastError


def pipeline(arguments: Sequence[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
        MaskcastError: the working directory lies in no project, or the command failed.
    """
    with told_what_is_missing("pipeline"):
        code: int = project_module("cli").main(arguments)
    return code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the commands, with the flags of all, as far as the working directory lies in a project."""
    try:
        project_folder()
    except MaskcastError:
        return
    with told_what_is_missing("pipeline"):
        project_module("cli").add_arguments(parser)


def project_folder() -> Path:
    """Returns the nearest folder, from the working directory upwards, that has a dvc.yaml and pipelines.

    Raises:
        MaskcastError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "pipelines" / "cli.py").is_file():
            return folder
    raise MaskcastError(
        f"pipeline: neither {here} nor a folder above it is a project of maskcast (a folder with dvc.yaml and "
        "pipelines/); go to your clone of maskcast and run it there"
    )


@contextmanager
def told_what_is_missing(command: str) -> Iterator[None]:
    """Turns the error of an import into a line that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "maskcast", "pipelines", "components"):
            raise
        raise MaskcastError(
            f"{command}: needs {package}, which is not installed; run `pip install 'maskcast[cluster]'`"
        ) from None


def project_module(name: str) -> Any:
    """Returns a module of the project's ``pipelines``.

    Raises:
        MaskcastError: the working directory lies in no project.
    """
    # Above this package in the layers, and no part of it: every project has its own pipelines.
    folder = project_folder()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(f"pipelines.{name}")
