"""The command `pipeline`: pipelines on Kubeflow: those of the clone it is run in, else the installed ones."""

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maskcast.errors import MaskcastError
from maskcast.installation import has_pipelines, not_installed_message, shipped_folder


def pipeline(arguments: Sequence[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
        MaskcastError: there are no pipelines here, or the command failed.
    """
    with missing_package_errors("pipeline"):
        code: int = pipelines_module("cli").main(arguments)
    return code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the commands, with the flags of all, where there are pipelines here and what they need."""
    try:
        with missing_package_errors("pipeline"):
            pipelines_module("cli").add_arguments(parser)
    except MaskcastError:
        return


def pipelines_folder() -> Path:
    """Returns the nearest folder, from the working directory upwards, that has pipelines of its own: a clone.

    In a project that has none it is the one that comes with maskcast.

    Raises:
        MaskcastError: there is none.
    """
    here = Path.cwd()
    own = (folder for folder in (here, *here.parents) if has_pipelines(folder))
    return next(own, None) or shipped_folder()


@contextmanager
def missing_package_errors(command: str) -> Iterator[None]:
    """Turns the error of an import into a line that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "maskcast", "pipelines", "components"):
            raise
        raise MaskcastError(not_installed_message(command, package, "cluster")) from None


def pipelines_module(name: str) -> Any:
    """Returns a module of ``pipelines``.

    Raises:
        MaskcastError: there are none here.
    """
    # Above this package in the layers, and no part of it: a clone may have changed its pipelines.
    folder = pipelines_folder()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(f"pipelines.{name}")
