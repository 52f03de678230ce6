"""Where a version comes from: the runs, params, commit, image and data that made it."""

from typing import Any

from maskcast.registry.promotion import decisions
from maskcast.registry.store import Registry

ORIGIN = {
    "maskcast.digest": "digest of weights and configs",
    "maskcast.git_sha": "commit",
    "maskcast.git_dirty": "uncommitted changes",
    "maskcast.image": "image",
    "maskcast.group": "group of runs (Kubeflow run, DVC experiment or commit)",
    "maskcast.clip_store": "clip store",
    "maskcast.mask_store": "mask store",
    "maskcast.data": "clips that were scored",
    "maskcast.evaluation_run": "run that holds the evaluation",
    "maskcast.verdict": "gate",
}


def lineage(registry: Registry, which: str) -> str:
    """Returns what is known of a version's origin, as text.

    The training runs are those of the same group: of each stage the last that was finished before registration.

    Raises:
        MaskcastError: there is no such version.
    """
    version = registry.find(which)
    lines = [
        f"{registry.name} version {version.number} {' '.join(f'@{alias}' for alias in version.aliases)}".strip()
    ]
    facts = {"run that registered it": version.run_id}
    facts |= {text: version.tags.get(tag, "unknown") for tag, text in ORIGIN.items()}
    facts |= {
        name.removeprefix("maskcast.part."): f"version {number}"
        for name, number in version.tags.items()
        if name.startswith("maskcast.part.")
    }
    lines += [f"  {name}: {value}" for name, value in facts.items()]
    for run in _runs_of_group(registry, version.run_id, version.tags.get("maskcast.group", "")):
        lines.append(f"{run.info.run_name}: run {run.info.run_id}, params {run.data.tags['maskcast.params_hash']}")
        lines += [f"  {name}: {value}" for name, value in sorted(run.data.params.items())]
        lines += [f"  input {each.dataset.name}: {each.dataset.digest}" for each in run.inputs.dataset_inputs]
    for each in decisions(registry.name):
        if version.number in (each.version, each.champion):
            reason = f", overruling the gate: {each.reason}" if each.reason else ""
            lines.append(
                f"decision {each.number} by {each.user}: {each.action} {each.version} "
                f"(champion was {each.champion or 'none'}), {each.outcome}{reason}"
            )
    return "\n".join(lines)


def _runs_of_group(registry: Registry, run_id: str, group: str) -> list[Any]:
    """Returns the last finished run of each stage of a group up to a run, the first stage first."""
    last = registry.client.get_run(run_id).info
    found = registry.client.search_runs(
        [last.experiment_id],
        f"tags.`maskcast.group` = '{group}' and attributes.status = 'FINISHED' "
        f"and attributes.start_time <= {last.start_time}",
        order_by=["attributes.start_time ASC"],
    )
    latest = {run.info.run_name: run for run in found}
    return sorted(latest.values(), key=lambda run: run.info.start_time)
