"""Provenance of a run, as tags: commit, image, params and digests of inputs and outputs."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import BaseModel

from maskcast import __version__
from maskcast.digest import DATA_HASH, DVC_HASH, digest_json, digest_tree, sha256_of, stamp_tree
from maskcast.installation import CLONE, GitError, git, git_failure, in_repository, run_git, version_and_commit
from maskcast.params import flatten, params_hash
from maskcast.plugins import UNION_MODULES, plugin_files, plugin_packages
from maskcast.progress import say
from maskcast.reading import pluralize
from maskcast.redaction import redacted
from maskcast.runner.code_digests import code_digest
from maskcast.runner.dvc_lock import dvc_hashes, locked_stages, params_of_data
from maskcast.runner.fingerprint import has_digest
from maskcast.runner.stage import running_name

CODE = "maskcast.code"  # tag of a run: version and commit of maskcast, if it did not run in a clone of it
PLUGINS = "maskcast.plugins"  # tag of a run: packages with plugins, their versions and a digest of their files
OUTPUTS = "maskcast.outputs"  # tag of a run: the digests of its outputs, as JSON
CHANGED = "maskcast.inputs_changed"  # tag of a run: the inputs that were replaced while it ran
REGISTERED = "maskcast.registered."  # prefix of tags of a run: model and version of inputs from the registry
DATA_PARAMS = "maskcast.data_params."  # prefix of tags of a run: params of the stages that made its data, as JSON
MAX_TAG = 8000  # characters of a tag of a run, MLflow's limit
RECORD = "registered.json"  # beside folders that were downloaded from the registry: name and version of the model
ERROR = "maskcast.error"  # tag of a failed run: the error, in one line
DEFAULT_TAGS = {  # tags of a run without information, which are left out
    "maskcast.image": "none",
    "maskcast.git_folder": "./",
    CODE: "of that commit",
}
SIZE_KEYS = ("width", "hidden", "encoder")  # keys of a model's config that distinguish models of one architecture


@dataclass(frozen=True)
class Origin:
    """The provenance of a stage's run, as it was before the work began.

    Args:
        stage: the stage.
        params: its params.
        inputs: its inputs by port.
        facts: facts about the run (see ``run_tags``).
        stamps: a value for each input that changes when its files change.
        code: digest of the stage's code.
    """

    stage: str
    params: BaseModel
    inputs: Mapping[str, Path]
    facts: Mapping[str, str]
    stamps: Mapping[str, str]
    code: str

    @classmethod
    def of(cls, stage: str, params: BaseModel, inputs: Mapping[str, Path]) -> "Origin":
        """Collects the provenance; to be called before the work begins."""
        stamps = {name: stamp_tree(path) for name, path in inputs.items()}
        code = code_digest(f"maskcast.stages.{stage}")
        return cls(stage, params, inputs, run_tags(stage, params, inputs), stamps, code)

    @property
    def name(self) -> str:
        """The stage's name in its pipeline."""
        return self.facts["maskcast.name"]

    @property
    def digest(self) -> str:
        """Digest (16 hex digits) of stage, params, inputs and code, equal for equal runs."""
        parts = [self.name, self.facts["maskcast.params_hash"], *sorted(self.data.items()), self.code]
        return digest_json(parts, 16)

    @property
    def data(self) -> dict[str, str]:
        """The digests of the inputs by port."""
        return {name: self.facts[f"{DATA_HASH}{name}"] for name in self.inputs}

    @property
    def title(self) -> str:
        """Title that distinguishes runs of a stage: important params, and the first digits of ``digest``."""
        values = flatten(self.params.model_dump(mode="json"))
        model = [
            str(values[key]) for key in ("model.arch", *(f"model.{size}" for size in SIZE_KEYS)) if values.get(key)
        ]
        epochs = values.get("training.epochs")
        words = [self.name, "-".join(model), pluralize(epochs, "epoch") if epochs else "", self.digest[:4]]
        return " ".join(filter(None, words))

    @property
    def tags(self) -> dict[str, str]:
        """The tags for registered versions."""
        return {name: value for name, value in self.facts.items() if name.startswith("maskcast.")}

    @property
    def run_only_tags(self) -> dict[str, str]:
        """The tags for its run, without digests of inputs, which are recorded with its data sets."""
        return {
            name: value
            for name, value in self.facts.items()
            if not name.startswith((DATA_HASH, DVC_HASH)) and DEFAULT_TAGS.get(name) != value
        }

    def changed(self) -> list[str]:
        """Returns the inputs that have changed since; only those whose files have been written again are read."""
        return [
            name
            for name, path in self.inputs.items()
            if stamp_tree(path) != self.stamps[name] and not has_digest(path, self.data[name])
        ]


def run_tags(stage: str, params: BaseModel, inputs: Mapping[str, Path]) -> dict[str, str]:
    """Returns facts about a run: commit, image, group of runs, and digests of params and data.

    The commit is that of the working directory, which is a clone of maskcast or a project that installed it; in
    the latter case ``CODE`` has maskcast's own version. A commit ends in ``-dirty`` if code differs from it, in
    ``-unknown-dirty`` if Git could not say. Changed params do not count, as they are recorded with each run, and
    those of its data, too.
    """
    commit, dirty = _commit()
    group = os.environ.get("KFP_RUN_ID") or os.environ.get("DVC_EXP_NAME") or commit
    locked = locked_stages()
    tags = {
        "maskcast.stage": stage,
        "maskcast.name": running_name(stage),
        "maskcast.group": group,
        "maskcast.version": __version__,
        "maskcast.git_sha": f"{commit}{dirty}",
        "maskcast.git_folder": git("rev-parse", "--show-prefix") or "./",
        "maskcast.image": os.environ.get("MASKCAST_IMAGE", "none"),
        "maskcast.params_hash": params_hash(params),
        "mlflow.source.name": f"maskcast {stage}",
        "mlflow.source.git.commit": commit,
        **{f"{DATA_HASH}{name}": digest_tree(path) for name, path in inputs.items()},
        **{f"{DVC_HASH}{name}": digest for name, digest in dvc_hashes(locked, inputs).items()},
        **{f"{REGISTERED}{name}": version for name, version in _registered_versions(inputs)},
        # JSON has no dates, which YAML has.
        **{f"{DATA_PARAMS}{k}": json.dumps(v, default=str) for k, v in params_of_data(locked, inputs).items()},
    }
    files = {place: path for module in UNION_MODULES.values() for place, path in plugin_files(module).items()}
    if files:
        digests = {place: sha256_of(path) for place, path in files.items()}
        packages = [f"{name} {version}" for name, version in plugin_packages().items()]
        tags[PLUGINS] = f"{', '.join(packages)}; files {digest_json(digests, 16)}"
    if not Path.cwd().is_relative_to(CLONE):
        tags[CODE] = version_and_commit()
    return {name: redacted(value)[:MAX_TAG] for name, value in tags.items()}


def _commit() -> tuple[str, str]:
    """Returns the commit, or ``none``, and what is appended to it if code differs or may differ from it."""
    given = os.environ.get("MASKCAST_GIT_SHA")  # an image has no git
    if not given and (failure := git_failure()):
        _warn(f"runs and models are recorded without a commit, because Git failed: {failure}")
        return "none", ""
    commit = given or git("rev-parse", "HEAD") or "none"
    try:
        changed = run_git("status", "--porcelain", "--untracked-files=all", "--", ":(top,glob)**/*.py")
    except GitError as error:
        if given or not in_repository():
            return commit, ""
        _warn(f"whether code differs from commit {commit[:12]} is not known, because Git failed: {error}")
        return commit, "-unknown-dirty"
    return commit, "-dirty" if changed else ""


@cache
def _warn(line: str) -> None:
    """Logs a warning, once per process."""
    say(f"warning: {line}")


def _registered_versions(inputs: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """Yields the name of each input that was downloaded from the registry, and its model's name and version.

    The record is beside the folder, because a digest of the folder must not depend on it. A file of this name that
    is no record says nothing.
    """
    for name, path in inputs.items():
        record = path.absolute().parent / RECORD
        with suppress(OSError, ValueError, TypeError, KeyError):
            content = json.loads(record.read_text())
            if path.is_dir():
                yield name, f"{content['name']} version {content['version']}"


def output_tags(paths: Mapping[str, Path]) -> dict[str, str]:
    """Returns the tag with the digests of a stage's outputs by port, from which the run can be found."""
    return {OUTPUTS: json.dumps({name: digest_tree(path) for name, path in paths.items()})}
