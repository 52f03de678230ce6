"""The command `pipeline`: runs the pipelines on Kubeflow; those of a clone take precedence over the installed."""

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
        MaskcastError: the pipelines are not found, or the command failed.
    """
    with missing_package_errors("pipeline"):
        code: int = pipelines_module("cli").main(arguments)
    return code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommands and their flags, if the pipelines and their packages are installed."""
    try:
        with missing_package_errors("pipeline"):
            pipelines_module("cli").add_arguments(parser)
    except MaskcastError:
        return


def pipelines_folder() -> Path:
    """Returns the folder of the pipelines: the clone that contains the working directory, else the installed one.

    Raises:
        MaskcastError: the pipelines are not found.
    """
    folder = Path.cwd()
    clones = (each for each in (folder, *folder.parents) if has_pipelines(each))
    return next(clones, None) or shipped_folder()


@contextmanager
def missing_package_errors(command: str) -> Iterator[None]:
    """Turns an import error of a missing package into a line that names the extra to install."""
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
        MaskcastError: the pipelines are not found.
    """
    # Imported at run time, because a clone may have changed its pipelines, and they are above this package.
    folder = pipelines_folder()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(f"pipelines.{name}")
