"""The commands beside the stages: one module each, named like the command with ``_``.

A module has ``DESCRIPTION`` and ``EPILOG`` of its help, ``add_arguments`` for its flags, and ``run``, which takes
them and returns the exit code. The commands of ``pipeline`` are in ``pipelines``, which need not be installed.
"""

from importlib import import_module
from typing import Any

GROUPS = {  # by title, as help has them: commands by name, and what they do
    "use a model": {
        "forecast": "forecast the masks that follow a video, with a registered model",
        "segment": "mask a video or camera stream frame by frame, or replace its background",
        "serve": "serve a model over HTTP",
        "models": "list, compare, promote, roll back, export and deploy registered models",
    },
    "your data and labels": {
        "init": "inspect a folder of your data and write params.yaml for it",
        "labels": "export masks to labelling tools, import labels, suggest frames to label",
        "write-annotations": "write annotations.txt for a folder of clips in the competition layout",
        "write-lmdb": "write the masks of both hands as an LMDB",
        "evaluate-coco": "score detections (boxes or masks) against COCO ground truth",
        "evaluate-many": "compare the scores and speed of many maskers on the same clips",
    },
    "pipelines": {
        "new": "create a project of your own: a folder with a pipeline and its params",
        "doctor": "report what is missing on this machine, and how to get it",
        "check-params": "check the params of all stages of a pipeline before a run",
        "dry-run": "try a pipeline on a few clips: does it run, with what memory and time",
        "summary": "show the scores of a finished run, and what to do next",
        "pipeline": "compile and run pipelines with Kubeflow, locally or on a cluster",
        "grid": "run variants of a pipeline with DVC and compare their maskers",
        "code": "record the digests of the modules that each stage imports, for DVC",
    },
    "the shell": {"completion": "print a script for tab completion in bash, zsh or tcsh"},
}
COMMANDS = {name: summary for commands in GROUPS.values() for name, summary in commands.items()}


def command_module(name: str) -> Any:
    """Returns the module of a command, and imports no other."""
    return import_module(f"{__name__}.{name.replace('-', '_')}")
