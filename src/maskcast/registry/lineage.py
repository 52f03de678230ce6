"""The lineage of a version: runs, params, commit, image and data."""

import json
from collections.abc import Sequence
from typing import Any

from maskcast.digest import DATA_HASH, DVC_HASH
from maskcast.params import flatten
from maskcast.registry.audit_trail import decisions
from maskcast.registry.store import Registry, Version
from maskcast.runner.mlflow_run import DVC
from maskcast.runner.provenance import CODE, DATA_PARAMS, DEFAULT_TAGS, OUTPUTS, REGISTERED

RUN_LABELS = {
    "maskcast.git_sha": "commit",
    CODE: "maskcast",
    "maskcast.image": "image",
    "maskcast.group": "group of runs (Kubeflow run, DVC experiment or commit)",
}
VERSION_LABELS = {
    "maskcast.digest": "digest of weights and configs",
    **RUN_LABELS,
    "maskcast.clip_store": "clip store",
    "maskcast.mask_store": "mask store",
    "maskcast.dataset": "detection set",
    "maskcast.data": "clips or images that were scored",
    "maskcast.evaluation_run": "run that holds the evaluation",
    "maskcast.verdict": "gate",
}


def lineage(registry: Registry, which: str) -> str:
    """Returns the lineage of a version as text: the version, then the data, runs and decisions behind it.

    Raises:
        MaskcastError: the version does not exist, or has no evaluation.
    """
    version = registry.find(which)
    runs = upstream_runs(registry, version)
    lines = [summary_of_version(registry, which), *_data_lines(runs), *_run_lines(runs)]
    for each in decisions(registry.name):
        if each.concerns(version):
            reason = f", reason: {each.reason}" if each.reason else ""
            lines.append(
                f"decision {each.number} by {each.user}: {each.action} {each.version} "
                f"(champion was {each.champion or 'none'}), {each.outcome}{reason}"
            )
    return "\n".join(lines)


def summary_of_version(registry: Registry, which: str) -> str:
    """Returns the first lines of the lineage: the version with its tags.

    Raises:
        MaskcastError: the version does not exist.
    """
    version = registry.find(which)
    lines = [
        f"{registry.name} version {version.number} {' '.join(f'@{alias}' for alias in version.aliases)}".strip()
    ]
    facts = {"run that registered it": version.run_id}
    facts |= {text: version.tags[tag] for tag, text in VERSION_LABELS.items() if tag in version.tags}
    facts |= {
        name.removeprefix("maskcast.part."): f"version {number}"
        for name, number in version.tags.items()
        if name.startswith("maskcast.part.")
    }
    return "\n".join([*lines, *(f"  {name}: {value}" for name, value in facts.items())])


def _data_lines(runs: Sequence[Any]) -> list[str]:
    """Returns the params of the stages that made the data of runs, with the runs that have recorded them."""
    users: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        for tag, value in run.data.tags.items():
            if tag.startswith(DATA_PARAMS):
                users.setdefault((tag.removeprefix(DATA_PARAMS), value), []).append(_name(run))
    lines = []
    for (name, value), names in sorted(users.items()):
        lines.append(f"{name}: made data of {', '.join(names)}, has no run of its own")
        try:
            params = json.loads(value)
        except ValueError:  # longer than a tag may be
            lines.append(f"  {value} ...")
        else:
            if isinstance(params, dict):
                lines += [f"  {key}: {each}" for key, each in sorted(flatten(params).items())]
            else:  # of a key at the top of the params file
                lines.append(f"  {params}")
    return lines


def _run_lines(runs: Sequence[Any]) -> list[str]:
    """Returns the runs with their params and inputs; of each input that no run has made, this is said once."""
    known = " ".join(run.data.tags.get(OUTPUTS, "") for run in runs)
    lines = []
    for run in runs:
        tags = run_facts(run)
        lines.append(f"{_name(run)}: run {run.info.run_id}, params {tags.get('maskcast.params_hash', 'unknown')}")
        lines += [f"  {text}: {tags.get(tag, 'unknown')}" for tag, text in RUN_LABELS.items()]
        lines += [f"  {name}: {value}" for name, value in sorted(run.data.params.items())]
        for each in run.inputs.dataset_inputs:
            dvc = tags.get(f"{DVC_HASH}{each.dataset.name}")
            origin = tags.get(f"{REGISTERED}{each.dataset.name}")
            facts_of_input = [each.dataset.digest, f"DVC {dvc}" if dvc else "", origin or ""]
            if not origin and each.dataset.digest not in known:
                facts_of_input.append(
                    "made by no run on this server (stages that fetch and prepare data have none)"
                )
                known += each.dataset.digest
            lines.append(f"  input {each.dataset.name}: {', '.join(filter(None, facts_of_input))}")
    return lines


def _name(run: Any) -> str:
    tags = run.data.tags
    return str(tags.get("maskcast.name", tags.get("maskcast.stage", run.info.run_name)))


def upstream_runs(registry: Registry, version: Version) -> list[Any]:
    """Returns the runs that led to a version, first stage first, in any experiment and group of runs.

    Runs have the digests of their inputs and outputs as tags (see ``provenance``). Each input digest leads to the
    last run with that output before the version was evaluated. If there is none, it leads to the first one after,
    because the clocks of machines differ. Stages that neither train nor evaluate have no runs; their outputs
    appear as inputs of others.
    """
    last = registry.client.get_run(registry.evaluation_run(version))
    runs = {last.info.run_id: last}
    open_digests = {value for name, value in version.tags.items() if name.startswith(DATA_HASH)} | _inputs(last)
    experiments = [each.experiment_id for each in registry.client.search_experiments()]
    seen: set[str] = set()
    while open_digests:
        digest = open_digests.pop()
        seen.add(digest)
        for when, order in (("<=", "DESC"), (">", "ASC")):
            producers = registry.client.search_runs(
                experiments,
                f"tags.`{OUTPUTS}` LIKE '%{digest}%' and attributes.status = 'FINISHED' "
                f"and attributes.start_time {when} {last.info.start_time}",
                order_by=[f"attributes.start_time {order}"],
                max_results=1,
            )
            for run in producers:
                runs[run.info.run_id] = run
                open_digests |= _inputs(run) - seen
            if producers:
                break
    return sorted(runs.values(), key=lambda run: run.info.start_time)


def run_facts(run: Any) -> dict[str, str]:
    """Returns the facts of a run as in ``provenance.run_tags``, from its tags and data sets."""
    facts = {**DEFAULT_TAGS, **run.data.tags}
    for each in run.inputs.dataset_inputs:
        facts[f"{DATA_HASH}{each.dataset.name}"] = each.dataset.digest
        facts |= {f"{DVC_HASH}{each.dataset.name}": tag.value for tag in each.tags if tag.key == DVC}
    return facts


def _inputs(run: Any) -> set[str]:
    """Returns the digests of a run's inputs."""
    return {each.dataset.digest for each in run.inputs.dataset_inputs}
