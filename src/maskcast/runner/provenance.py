"""Where a run comes from: its commit, image, params, and the digests of what it reads and makes, as tags."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from maskcast import __version__
from maskcast.digest import DATA_HASH, DVC_HASH, digest_tree, dvc_hashes, stamp_tree
from maskcast.installation import CLONE, described, git
from maskcast.params import flatten, params_hash
from maskcast.reading import counted
from maskcast.redaction import redacted
from maskcast.runner.stage import running_name

CODE = "maskcast.code"  # tag of a run: version and commit of maskcast, where the run was in no clone of it
OUTPUTS = "maskcast.outputs"  # tag of a run: the digests of what it made, as JSON
CHANGED = "maskcast.inputs_changed"  # tag of a run: the inputs that were replaced while it worked
PLAIN = {  # tags of a run that say nothing: left out
    "maskcast.image": "none",
    "maskcast.git_folder": "./",
    CODE: "of that commit",
}
SIZES = ("width", "hidden", "encoder")  # keys of a model that tell two of one architecture apart


@dataclass(frozen=True)
class Origin:
    """What a stage starts from, as it was before the work began.

    Args:
        stage: the stage.
        params: its params.
        inputs: its inputs by port.
        known: what is known of where it runs (see ``run_tags``).
        stamps: of each input, what changes when its files do.
    """

    stage: str
    params: BaseModel
    inputs: Mapping[str, Path]
    known: Mapping[str, str]
    stamps: Mapping[str, str]

    @classmethod
    def of(cls, stage: str, params: BaseModel, inputs: Mapping[str, Path]) -> "Origin":
        """Finds out what a stage starts from; call it first of all."""
        stamps = {name: stamp_tree(path) for name, path in inputs.items()}
        return cls(stage, params, inputs, run_tags(stage, params, inputs), stamps)

    @property
    def name(self) -> str:
        """What the stage goes by."""
        return self.known["maskcast.name"]

    @property
    def digest(self) -> str:
        """16 hex digits that name the stage, its params and its inputs: equal runs have equal ones."""
        parts = [self.name, self.known["maskcast.params_hash"], *sorted(self.data.items())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    @property
    def data(self) -> dict[str, str]:
        """The digests of the inputs by port."""
        return {name: self.known[f"{DATA_HASH}{name}"] for name in self.inputs}

    @property
    def title(self) -> str:
        """Tells runs of a stage apart: what differs, and the first digits of ``digest``."""
        values = flatten(self.params.model_dump(mode="json"))
        model = [
            str(values[key]) for key in ("model.arch", *(f"model.{size}" for size in SIZES)) if values.get(key)
        ]
        epochs = values.get("training.epochs")
        words = [self.name, "-".join(model), counted(epochs, "epoch") if epochs else "", self.digest[:4]]
        return " ".join(filter(None, words))

    @property
    def tags(self) -> dict[str, str]:
        """The tags of each version that is registered."""
        return {name: value for name, value in self.known.items() if name.startswith("maskcast.")}

    @property
    def own_tags(self) -> dict[str, str]:
        """The tags of its run: the digests of the inputs stand with its data sets."""
        return {
            name: value
            for name, value in self.known.items()
            if not name.startswith((DATA_HASH, DVC_HASH)) and PLAIN.get(name) != value
        }

    def changed(self) -> list[str]:
        """Returns the inputs that are no longer what they were."""
        return [
            name
            for name, path in self.inputs.items()
            if stamp_tree(path) != self.stamps[name]
            and (not path.exists() or digest_tree(path) != self.data[name])
        ]


def run_tags(stage: str, params: BaseModel, inputs: Mapping[str, Path]) -> dict[str, str]:
    """Returns what is known of where a stage runs: commit, image, group of runs, params and data by digest.

    The commit is that of the folder where the stage runs. It is a clone, or a project of somebody who installed
    maskcast; there ``CODE`` tells maskcast's own. A commit ends in ``-dirty`` where code differs from it. Changed
    params do not count: each run has its own.
    """
    commit = os.environ.get("MASKCAST_GIT_SHA") or git("rev-parse", "HEAD") or "none"  # an image has no git
    group = os.environ.get("KFP_RUN_ID") or os.environ.get("DVC_EXP_NAME") or commit
    changed = git("status", "--porcelain", "--untracked-files=all", "--", ":(top,glob)**/*.py")
    tags = {
        "maskcast.stage": stage,
        "maskcast.name": running_name(stage),
        "maskcast.group": group,
        "maskcast.version": __version__,
        "maskcast.git_sha": f"{commit}-dirty" if changed else commit,
        "maskcast.git_folder": git("rev-parse", "--show-prefix") or "./",
        "maskcast.image": os.environ.get("MASKCAST_IMAGE", "none"),
        "maskcast.params_hash": params_hash(params),
        "mlflow.source.name": f"maskcast {stage}",
        "mlflow.source.git.commit": commit,
        **{f"{DATA_HASH}{name}": digest_tree(path) for name, path in inputs.items()},
        **{f"{DVC_HASH}{name}": found for name, found in dvc_hashes(inputs).items()},
    }
    if not Path.cwd().is_relative_to(CLONE):
        tags[CODE] = described()
    return {name: redacted(value) for name, value in tags.items()}


def output_tags(paths: Mapping[str, Path]) -> dict[str, str]:
    """Returns what a stage made, by port, as the tag that leads back from its digests to the run."""
    return {OUTPUTS: json.dumps({name: digest_tree(path) for name, path in paths.items()})}
