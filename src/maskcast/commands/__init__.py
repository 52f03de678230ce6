"""What people run beside the stages: one module each, called as the command with ``_``.

A module has ``DESCRIPTION`` and ``EPILOG`` of its help, ``add_arguments`` for its flags, and ``run``, which takes
them and returns the exit code. The commands of ``pipeline`` stand in ``pipelines``, which need not be installed.
"""

from importlib import import_module
from typing import Any

GROUPS = {  # by title, as help has them: commands by name, and what they do
    "use a model": {
        "forecast": "forecast any video by a registered model",
        "segment": "mask a video or a camera frame by frame, and change its background",
        "serve": "answer requests for forecasts over HTTP",
        "models": "list, compare, promote, roll back, export and deploy registered models",
    },
    "your data and labels": {
        "init": "look at a folder of your data and write params.yaml for it",
        "labels": "send masks to labelling tools, bring labels back, suggest frames",
        "write-annotations": "write annotations.txt for a folder of clips in the competition layout",
        "write-lmdb": "write masks of two hands as an LMDB",
        "evaluate-coco": "score detections (boxes or masks) against a COCO ground truth",
        "evaluate-many": "score and measure many maskers on the same clips: one page and CSV",
    },
    "pipelines": {
        "new": "begin a project of your own: a folder with a pipeline and its params",
        "doctor": "say what is missing on this machine, and how to get it",
        "check-params": "check the params of all stages of a pipeline before any runs",
        "dry-run": "try a pipeline on a handful of clips: does it run, how long",
        "summary": "say what a finished run has gained, and what to do next",
        "pipeline": "compile and run the pipelines on Kubeflow, here or on a cluster",
        "grid": "run variants of a pipeline by DVC and compare their maskers",
        "code": "write the modules that each stage imports, by digest, for DVC",
    },
    "the shell": {"completion": "complete words of commands in bash, zsh or tcsh"},
}
COMMANDS = {name: summary for commands in GROUPS.values() for name, summary in commands.items()}


def command_module(name: str) -> Any:
    """Returns the module of a command, and imports no other."""
    return import_module(f"{__name__}.{name.replace('-', '_')}")
