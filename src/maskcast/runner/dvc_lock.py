"""What DVC's lock says of the inputs of a stage: their hashes, and the params of the stages that made them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskcast.reading import parsing, read_yaml

LOCK = Path("dvc.lock")
REMEDY = "run `dvc repro` again"
DATA_STAGES = {"fetch_dataset", "prepare_clips", "prepare_detection"}  # they learn and measure nothing: no runs


def dvc_hashes(inputs: Mapping[str, Path]) -> dict[str, str]:
    """Returns DVC's hashes of those inputs that a stage of this ``dvc repro`` wrote; empty outside of DVC."""
    stages = _locked_stages()
    with parsing(LOCK, "a lock of DVC", REMEDY):
        outs = [out for each in stages for out in each.get("outs", [])]
        made: dict[str, str] = {out["path"]: out["md5"] for out in outs if "md5" in out}
        return {name: made[path.as_posix()] for name, path in inputs.items() if path.as_posix() in made}


def params_of_data(inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Returns the params, by section, with which the data that inputs come from were fetched and prepared.

    They are as in the params file, without defaults. The stages that make data have no runs of their own, and are
    found by their commands. Empty outside of ``dvc repro``: a run of Kubeflow itself has the params of all stages.
    """
    stages = _locked_stages()
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
                for sections in maker.get("params", {}).values():
                    found |= sections
        return dict(sorted(found.items()))


def _locked_stages() -> list[dict[str, Any]]:
    """Returns the stages of the lock that this ``dvc repro`` writes; empty outside of DVC."""
    if "DVC_STAGE" not in os.environ or not LOCK.is_file():
        return []
    content = read_yaml(LOCK, "lock of DVC", REMEDY)
    with parsing(LOCK, "a lock of DVC", REMEDY):
        return list(content["stages"].values())
