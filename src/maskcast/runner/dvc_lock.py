"""What DVC's lock says of the inputs of a stage: their hashes, and the params of the stages that made them."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskcast.params import deep_merge
from maskcast.reading import parsing, read_yaml

LOCK = Path("dvc.lock")
REMEDY = "run `dvc repro` again"
DATA_STAGES = {"fetch_dataset", "prepare_clips", "prepare_detection"}  # they learn and measure nothing: no runs


def dvc_hashes(stages: Sequence[Mapping[str, Any]], inputs: Mapping[str, Path]) -> dict[str, str]:
    """Returns DVC's hashes of those inputs that one of the ``locked_stages`` wrote."""
    with parsing(LOCK, "a lock of DVC", REMEDY):
        outs = [out for each in stages for out in each.get("outs", [])]
        made: dict[str, str] = {out["path"]: out["md5"] for out in outs if "md5" in out}
        return {name: made[path.as_posix()] for name, path in inputs.items() if path.as_posix() in made}


def params_of_data(stages: Sequence[Mapping[str, Any]], inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Returns the params, by section, with which the data that inputs come from were fetched and prepared.

    They are as in the params file, without defaults; of a section of which ``dvc.yaml`` tracks single keys, these.
    The stages that make data have no runs of their own, and are found among the ``locked_stages`` by their
    commands.
    """
    with parsing(LOCK, "a lock of DVC", REMEDY):
        makers = {out["path"]: each for each in stages for out in each.get("outs", [])}
        todo, seen = [path.as_posix() for path in inputs.values()], set[str]()
        found: dict[str, Any] = {}
        while todo:
            path = todo.pop()
            if path in seen or path not in makers:
                continue
            seen.add(path)
            maker = makers[path]
            todo += [each["path"] for each in maker.get("deps", [])]
            if DATA_STAGES & set(str(maker["cmd"]).split()):
                for tracked in maker.get("params", {}).values():
                    for key, value in tracked.items():
                        found = deep_merge(found, _nested(key, value))
        return dict(sorted(found.items()))


def how_to_register() -> str:
    """Returns what to run to register the models of the working directory, as the remedy of an error.

    After ``dvc pull`` the lock has a registration, but the registry is empty; ``dvc repro`` would skip it.
    """
    lock = LOCK.read_text(encoding="utf-8", errors="replace") if LOCK.is_file() else ""
    stages = re.findall(r"^  (register_\w+):", lock, re.MULTILINE)
    return f"run `dvc repro -f -s {' '.join(stages)}`" if stages else "run the pipeline"


def locked_stages() -> list[dict[str, Any]]:
    """Returns the stages of the lock that this ``dvc repro`` writes.

    Empty outside of ``dvc repro``: a run of Kubeflow itself has the params of all stages.
    """
    if "DVC_STAGE" not in os.environ or not LOCK.is_file():
        return []
    content = read_yaml(LOCK, "lock of DVC", REMEDY)
    with parsing(LOCK, "a lock of DVC", REMEDY):
        return list(content["stages"].values())


def _nested(key: str, value: Any) -> dict[str, Any]:
    """Returns a value below its dotted key, as in the params file."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return dict(value)
