"""Evaluates a registered version again, with its commit, clips and weights, and compares the scores."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from maskcast.digest import DATA_HASH, DVC_HASH, digest_tree
from maskcast.errors import MaskcastError
from maskcast.installation import version_and_commit
from maskcast.progress import log_if_slow, say
from maskcast.registry.artifact import pinned_packages
from maskcast.registry.bundle import read_bundle
from maskcast.registry.evaluations import FORECASTS, EvaluationRecord, read_evaluation
from maskcast.registry.lineage import run_facts, upstream_runs
from maskcast.registry.loading import download
from maskcast.registry.store import Registry
from maskcast.report.tables import format_table
from maskcast.runner.mlflow_uri import TELEMETRY, redacted_uri
from maskcast.runner.provenance import CODE

MACHINE_DEPENDENT = re.compile(r"(seconds_per_clip|peak_memory_mib)")  # scores that depend on the machine
SHOWN = ("jaccard_last", "jaccard_mean", "accuracy_last", "dice_last", "coco_AP", "masker_jaccard")
# environment variables that would redirect the runs
REMOVED_VARIABLES = ("MLFLOW_", "DVC_", "KFP_", "MASKCAST_", "GIT_")


@dataclass(frozen=True)
class Verification:
    """Two evaluations of one version.

    Args:
        title: of the evaluated version.
        registered: the scores in the registry, by name.
        found: the new scores.
        clips_equal: whether clips and their individual scores are equal, too.
    """

    title: str
    registered: Mapping[str, float]
    found: Mapping[str, float]
    clips_equal: bool

    @property
    def differing(self) -> list[str]:
        """Names of scores that differ or exist on one side only."""
        names = sorted({*self.registered, *self.found})
        return [name for name in names if self.registered.get(name) != self.found.get(name)]

    @property
    def equal(self) -> bool:
        """Whether all scores are equal to the last bit."""
        return self.clips_equal and not self.differing

    def __str__(self) -> str:
        names = [name for name in SHOWN if name in self.registered]
        names += [name for name in self.differing if name not in names]
        rows = []
        for name in names:
            values = [scores.get(name) for scores in (self.registered, self.found)]
            rows.append([name, *("-" if value is None else f"{value:.6f}" for value in values)])
            rows[-1].append("no" if name in self.differing else "yes")
        count = len({*self.registered, *self.found})
        if self.equal:
            result = f"equal: all {count} scores, and those of each clip"
        else:
            both = [name for name in self.differing if name in self.registered and name in self.found]
            most = max((abs(self.registered[name] - self.found[name]) for name in both), default=0.0)
            clips = "equal" if self.clips_equal else "not equal"
            result = (
                f"not equal: {len(self.differing)} of {count} scores, by at most {most:.2g}; of each clip: {clips}"
            )
        return f"{format_table(['score', 'registered', 'now', 'equal'], rows, self.title)}\n{result}"


def verify(registry: Registry, which: str, repository: str, clips: Path | None = None) -> Verification:
    """Evaluates the registered weights again, with the code of their commit and this interpreter's environment.

    Everything is done in a temporary folder. The masker masks all clips, unless the context was true masks, then
    `evaluate` scores. Both stages run with the params that the evaluation recorded, but no pictures are drawn.

    Args:
        registry: the registered model, a pipeline.
        which: number or alias.
        repository: Git repository with the commit, and with a DVC remote or cache that has the clips.
        clips: the clip store, if it is available; else DVC fetches it.

    Raises:
        MaskcastError: commit, clips, weights or runs are not available or differ from the registered ones.
    """
    version = registry.find(which)
    title = f"{registry.name} version {version.number}"
    record = registry.evaluation(version)
    if record.measure != FORECASTS:
        stage = record.measure.stage
        raise MaskcastError(
            f"{title}: is not a pipeline, and only these can be verified; run {stage} on its weights"
        )
    if not any(name.startswith("maskcast.part.") for name in version.tags):
        raise MaskcastError(f"{title}: is part of a pipeline; verify the pipeline")
    runs = upstream_runs(registry, version)
    tags = next(run_facts(run) for run in runs if run.info.run_id == version.tags["maskcast.evaluation_run"])
    commit = tags["maskcast.git_sha"]
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise MaskcastError(
            f"{title}: was evaluated with code that is not committed ({commit}); commit, evaluate and register "
            "again"
        )
    with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch:
        folder = Path(scratch)
        weights = download(registry, version, folder)
        read_bundle(weights / "data", version.digest)
        for name, recorded, here in pinned_packages(weights / "requirements.txt"):
            if here != recorded:
                say(f"verify: {name} is {here or 'missing'} here, but {title} was registered with {recorded}")
        top = _git_root(repository)
        _check_out(top, commit, folder / "code")
        _check_code(folder / "code", tags[CODE], title, commit)
        if clips is None:
            clips = _pull(top, _dvc_hash(runs, tags, title), tags["maskcast.git_folder"], folder / "code")
        if digest_tree(clips) != tags[f"{DATA_HASH}clips"]:
            raise MaskcastError(
                f"{clips}: not the clips that {title} was evaluated on; give those ({tags[f'{DATA_HASH}clips']})"
            )
        again = _evaluate(folder, clips.absolute(), weights / "data", _params(runs, record))
    registered, found = (
        {name: value for name, value in each.scores.items() if not MACHINE_DEPENDENT.match(name)}
        for each in (record, again)
    )
    return Verification(f"{title}, commit {commit[:12]}", registered, found, again.digest == record.digest)


def _git_root(repository: str) -> str:
    """Returns the top folder of a local repository; a URL is returned unchanged."""
    if not Path(repository).is_dir():
        return repository
    command = ["git", "-C", repository, "rev-parse", "--show-toplevel"]
    return _run(command, f"{repository}: not a Git repository; give --repository").strip()


def _check_out(repository: str, commit: str, folder: Path) -> None:
    remedy = (
        f"{repository}: commit {commit} cannot be checked out; give a clone or URL that has it as --repository"
    )
    _run(["git", "clone", "--quiet", "--no-checkout", repository, str(folder)], remedy)
    _run(["git", "-C", str(folder), "checkout", "--quiet", "--detach", commit], remedy)
    say(f"verify: checked out {commit} of {repository}")


def _check_code(folder: Path, recorded: str, title: str, commit: str) -> None:
    """Checks that the code to run is the one of the evaluation: that of the commit, or the installed package.

    Raises:
        MaskcastError: the commit is of a project without maskcast's code, and another maskcast is installed here.
    """
    if (folder / "src" / "maskcast").is_dir():
        return
    installed = version_and_commit()
    if recorded != installed or "commit" not in installed or installed.endswith("-dirty"):
        raise MaskcastError(
            f"{title}: commit {commit} has no src/maskcast; give a --repository that has it, or install the "
            f"maskcast that evaluated it ({recorded}; installed is {installed})"
        )
    say(f"verify: maskcast {installed} is installed, as in the evaluation")


def _dvc_hash(runs: Sequence[Any], tags: Mapping[str, str], title: str) -> str:
    """Returns DVC's hash of the clips, which each run of `dvc repro` on them has recorded.

    Raises:
        MaskcastError: none has, or the run of evaluate is not in this registry.
    """
    facts = [tags, *map(run_facts, runs)]
    data, name = f"{DATA_HASH}clips", f"{DVC_HASH}clips"
    if found := [each[name] for each in facts if name in each and each.get(data) == tags[data]]:
        return found[0]
    if all(each.get("maskcast.stage") != "evaluate" for each in facts):
        raise MaskcastError(
            f"{title}: the run of evaluate is not on {redacted_uri()}, so DVC's hash of its clips is not known; "
            "give --clips, or run evaluate and the registration with the same MLFLOW_TRACKING_URI"
        )
    raise MaskcastError(f"{title}: was not made by `dvc repro`, so DVC has no hash of its clips; give --clips")


def _pull(repository: str, dvc_hash: str, subfolder: str, code: Path) -> Path:
    """Fetches the clip store by its DVC hash, from the cache of a local repository or from the remote.

    Args:
        repository: the local repository, or a URL.
        dvc_hash: of the clip store.
        subfolder: of the project in the repository.
        code: the checked out commit.
    """
    remedy = f"clips {dvc_hash}: not found in DVC's cache of {repository} or in its remote; give --clips"
    root, here = (Path(top) / subfolder for top in (code, repository))
    pointer = root / "maskcast-verify" / "clips.dvc"
    pointer.parent.mkdir()
    pointer.write_text(yaml.safe_dump({"outs": [{"md5": dvc_hash, "hash": "md5", "path": "clips"}]}))
    dvc = [sys.executable, "-m", "dvc"]
    if here.is_dir():
        local = here / ".dvc" / "config.local"  # remotes that are not committed
        if local.is_file():
            shutil.copy(local, root / ".dvc")
        cache = _run([*dvc, "cache", "dir"], remedy, here).strip()
        _run([*dvc, "config", "--local", "cache.dir", cache], remedy, root)
    try:
        _run([*dvc, "checkout", "--quiet", str(pointer)], remedy, root)
    except MaskcastError:  # it is not in the cache
        _run([*dvc, "pull", "--quiet", str(pointer)], remedy, root)
    say(f"verify: clips {dvc_hash} from DVC")
    return pointer.with_name("clips")


def _params(runs: list[Any], record: EvaluationRecord) -> dict[str, dict[str, Any]]:
    """Returns the params of the stages to run: of evaluate, and of generate_masks unless the context was true.

    Evaluations of before the key ``params`` recorded some of them as facts.
    """
    recorded = record.facts.get("params", {})
    names = ("split", "context", "context_frames", "horizon", "batch_size", "label_map")
    evaluated = recorded.get("evaluate") or {name: record.facts[name] for name in names if name in record.facts}
    params = {"evaluate": evaluated | {"pictures": 0}}
    if record.facts["mask_store"] != record.facts["clip_store"]:
        params["generate_masks"] = recorded.get("generate_masks") or _mask_params(runs, record)
    return params


def _mask_params(runs: list[Any], record: EvaluationRecord) -> dict[str, Any]:
    """Returns the params of the generated masks from their run, as evaluations once did not record them."""
    for run in reversed(runs):
        if run.data.tags["maskcast.stage"] == "generate_masks":
            params: dict[str, Any] = {}
            for name, text in run.data.params.items():
                *sections, last = name.split(".")
                section = params
                for key in sections:
                    section = section.setdefault(key, {})
                section[last] = _value(text)
            return params
    say("verify: run of generate_masks not found on this server; using defaults for params that evaluate lacks")
    return {name: record.facts[name] for name in ("precision", "consistent_frames") if name in record.facts}


def _value(text: str) -> Any:
    """Parses a param of a run, which MLflow stores as text by ``str``."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _evaluate(
    folder: Path, clips: Path, bundle: Path, params: Mapping[str, Mapping[str, Any]]
) -> EvaluationRecord:
    """Generates masks, if ``params`` has their section, and evaluates, in processes with the commit's code."""
    (folder / "params.yaml").write_text(yaml.safe_dump(dict(params)))
    models = {"masker": str(bundle / "masker")}
    paths = {"clips": str(clips), "masks": "masks", "metrics": "metrics.json"}
    if "generate_masks" in params:
        _stage(folder, "generate_masks", paths | models)
    else:
        paths["masks"] = str(clips)
    models["forecaster"] = str(bundle / "forecaster")
    _stage(folder, "evaluate", paths | models | {"report": "report"})
    return read_evaluation(folder / "report")


def _stage(folder: Path, name: str, paths: Mapping[str, str]) -> None:
    say(f"verify: {name}")
    flags = [word for port, path in paths.items() for word in (f"--{port}", path)]
    command = [sys.executable, "-m", "maskcast", name, "--params", "params.yaml", *flags]
    source = folder / "code" / "src"
    more = {"PYTHONPATH": str(source)} if source.is_dir() else {}
    _run(command, f"{name} of that commit failed", folder, more)


def _run(
    command: list[str], remedy: str, folder: Path | None = None, more: Mapping[str, str] | None = None
) -> str:
    """Runs a command and returns its output; the error has the remedy and the command's last line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(REMOVED_VARIABLES)}
    # The commit may be older than the code that switches off MLflow's telemetry (see ``mlflow_uri``).
    environment |= {"DVC_NO_ANALYTICS": "1", TELEMETRY: os.environ[TELEMETRY]}
    name = Path(command[0]).name
    try:
        with log_if_slow(f"`{' '.join([name, *command[1:4]])} ...`"):
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment | dict(more or {}),
                capture_output=True,
                text=True,
                check=False,
            )
    except FileNotFoundError:
        raise MaskcastError(f"{name}: not installed, but needed by --verify; install it") from None
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise MaskcastError(f"{remedy} ({reason})")
    return done.stdout
