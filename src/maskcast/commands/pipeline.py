"""The command `pipeline`: the project's pipelines on Kubeflow, whose code lies in the project's folder."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from maskcast.errors import MaskcastError


def pipeline(arguments: Sequence[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
        MaskcastError: the working directory lies in no project, or the command failed.
    """
    # Above this package in the layers, and no part of it: every project has its own pipelines.
    if (folder := str(project_folder())) not in sys.path:
        sys.path.insert(0, folder)
    code: int = importlib.import_module("pipelines.cli").main(arguments)
    return code


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
