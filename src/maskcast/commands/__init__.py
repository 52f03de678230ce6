"""What people run beside the stages: one module each, called as the command with ``_``.

A module has ``DESCRIPTION`` and ``EPILOG`` of its help, ``add_arguments`` for its flags, and ``run``, which takes
them and returns the exit code. The commands of ``pipeline`` stand in ``pipelines``, which need not be installed.
"""

from importlib import import_module
from typing import Any

COMMANDS = {  # by name: what it does
    "code": "write the modules that each stage imports, by digest, for DVC",
    "completion": "complete words of commands in bash, zsh or tcsh",
    "doctor": "say what is missing on this machine, and how to get it",
    "dry-run": "try a pipeline on a handful of clips: does it run, how long",
    "evaluate-coco": "score detections (boxes or masks) against a COCO ground truth",
    "evaluate-many": "score and measure many maskers on the same clips: one page and CSV",
    "forecast": "forecast any video by a registered model",
    "grid": "run variants of a pipeline by DVC and compare their maskers",
    "init": "look at a folder of your data and write params.yaml for it",
    "labels": "send masks to labelling tools, bring labels back, suggest frames",
    "models": "list, compare, promote, roll back, export and deploy registered models",
    "new": "begin a project of your own: a folder with a pipeline and its params",
    "pipeline": "compile and run the pipelines on Kubeflow, here or on a cluster",
    "segment": "mask a video or a camera frame by frame, and change its background",
    "serve": "answer requests for forecasts over HTTP",
    "summary": "say what a finished run has gained, and what to do next",
    "write-annotations": "write annotations.txt for a folder of clips in the competition layout",
    "write-lmdb": "write masks of two hands as an LMDB",
}


def command_module(name: str) -> Any:
    """Returns the module of a command, and imports no other."""
    return import_module(f"{__name__}.{name.replace('-', '_')}")
