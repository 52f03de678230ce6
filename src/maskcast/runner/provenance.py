"""Where a run comes from: its commit, image, params, and the digests of what it reads and makes, as tags."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from maskcast import __version__
from maskcast.digest import DATA_HASH, DVC_HASH, digest_tree, dvc_hashes
from maskcast.params import params_hash
from maskcast.runner.stage import running_name

OUTPUTS = "maskcast.outputs"  # tag of a run: the digests of what it made, as JSON


def run_tags(stage: str, params: BaseModel, inputs: Mapping[str, Path]) -> dict[str, str]:
    """Returns what is known of where a stage runs: commit, image, group of runs, params and data by digest.

    A commit ends in ``-dirty`` where code differs from it. Changed params do not count: each run has its own.
    """
    commit = os.environ.get("MASKCAST_GIT_SHA") or _git("rev-parse", "HEAD") or "none"  # an image has no git
    group = os.environ.get("KFP_RUN_ID") or os.environ.get("DVC_EXP_NAME") or commit
    changed = _git("status", "--porcelain", "--untracked-files=all", "--", ":(top,glob)**/*.py")
    return {
        "maskcast.stage": stage,
        "maskcast.name": running_name(stage),
        "maskcast.group": group,
        "maskcast.version": __version__,
        "maskcast.git_sha": f"{commit}-dirty" if changed else commit,
        "maskcast.git_folder": _git("rev-parse", "--show-prefix") or "./",
        "maskcast.image": os.environ.get("MASKCAST_IMAGE", "none"),
        "maskcast.params_hash": params_hash(params),
        "mlflow.source.name": f"maskcast {stage}",
        "mlflow.source.git.commit": commit,
        **{f"{DATA_HASH}{name}": digest_tree(path) for name, path in inputs.items()},
        **{f"{DVC_HASH}{name}": found for name, found in dvc_hashes(inputs).items()},
    }


def output_tags(paths: Mapping[str, Path]) -> dict[str, str]:
    """Returns what a stage made, by port, as the tag that leads back from its digests to the run."""
    return {OUTPUTS: json.dumps({name: digest_tree(path) for name, path in paths.items()})}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
