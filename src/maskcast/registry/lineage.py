"""The lineage of a version: runs, params, commit, image and data."""

from typing import Any

from maskcast.digest import DATA_HASH, DVC_HASH
from maskcast.registry.audit_trail import decisions
from maskcast.registry.store import Registry, Version
from maskcast.runner.mlflow_run import DVC
from maskcast.runner.provenance import CODE, DEFAULT_TAGS, OUTPUTS, REGISTERED

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
    """Returns the lineage of a version as text.

    Raises:
        MaskcastError: the version does not exist, or has no evaluation.
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
    lines += [f"  {name}: {value}" for name, value in facts.items()]
    runs = upstream_runs(registry, version)
    outputs = " ".join(run.data.tags.get(OUTPUTS, "") for run in runs)
    for run in runs:
        tags = run_facts(run)
        name = tags.get("maskcast.name", tags.get("maskcast.stage", run.info.run_name))
        lines.append(f"{name}: run {run.info.run_id}, params {tags.get('maskcast.params_hash', 'unknown')}")
        lines += [f"  {text}: {tags.get(tag, 'unknown')}" for tag, text in RUN_LABELS.items()]
        lines += [f"  {name}: {value}" for name, value in sorted(run.data.params.items())]
        for each in run.inputs.dataset_inputs:
            dvc = tags.get(f"{DVC_HASH}{each.dataset.name}")
            origin = tags.get(f"{REGISTERED}{each.dataset.name}")
            facts_of_input = [each.dataset.digest, f"DVC {dvc}" if dvc else "", origin or ""]
            if not origin and each.dataset.digest not in outputs:
                facts_of_input.append("made by no run on this server")
            lines.append(f"  input {each.dataset.name}: {', '.join(filter(None, facts_of_input))}")
    for each in decisions(registry.name):
        if each.concerns(version):
            reason = f", reason: {each.reason}" if each.reason else ""
            lines.append(
                f"decision {each.number} by {each.user}: {each.action} {each.version} "
                f"(champion was {each.champion or 'none'}), {each.outcome}{reason}"
            )
    return "\n".join(lines)


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
