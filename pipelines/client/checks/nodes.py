"""Checks that nodes can run the pods, by their capacity rather than free resources, for which pods can wait."""

from collections.abc import Iterator, Mapping
from typing import Any

from kubernetes import client
from kubernetes.utils.quantity import parse_quantity

from maskcast.diagnostics.checks import CheckResult
from maskcast.reading import first_few, pluralize
from pipelines.client.checks import Subject
from pipelines.client.kube import call_api
from pipelines.pod_resources import Pod, Toleration


def nodes(subject: Subject) -> Iterator[CheckResult]:
    """Checks that for the pod of each stage some node has the resources and tolerated taints."""
    every = call_api(client.CoreV1Api(subject.api).list_node).items
    for pod, stages in _group_by_needs(subject.pods):
        misfits = sorted(((unfit_reasons(pod, node), node.metadata.name) for node in every), key=_distance)
        fit = [name for reasons, name in misfits if not reasons]
        if fit:
            yield CheckResult(
                "nodes", "ok", f"{stages}: {len(fit)} of {len(every)} nodes fit ({first_few(fit, 3)})"
            )
            continue
        nearest = "".join(f"; the nearest, {name}, {', '.join(reasons)}" for reasons, name in misfits[:1])
        remedy = "request less in `pods` or `stages` of the cluster file, or add a node"
        yield CheckResult("nodes", "failed", f"{stages}: none of {len(every)} nodes fits{nearest}", remedy)


def quota(subject: Subject) -> Iterator[CheckResult]:
    """Checks that no ResourceQuota or LimitRange of the namespace forbids a pod."""
    core = client.CoreV1Api(subject.api)
    quotas = call_api(core.list_namespaced_resource_quota, subject.namespace).items
    ranges = call_api(core.list_namespaced_limit_range, subject.namespace).items
    limits = [
        (f"ResourceQuota {each.metadata.name}", key.removeprefix("requests.").removeprefix("limits."), limit)
        for each in quotas
        if not each.spec.scopes and not each.spec.scope_selector  # quotas with a scope concern other pods
        for key, limit in (each.spec.hard or {}).items()
    ] + [
        (f"LimitRange {each.metadata.name}", key, limit)
        for each in ranges
        for item in each.spec.limits
        if item.type in ("Container", "Pod")
        for key, limit in (item.max or {}).items()
    ]
    forbidden = False
    for pod, stages in _group_by_needs(subject.pods):
        for quota_name, key, limit in limits:
            requested = resources(pod).get(key)
            if requested is not None and parse_quantity(requested) > parse_quantity(limit):
                forbidden = True
                found = f"{stages}: {quota_name} allows {key} {limit}, requested {requested}"
                yield CheckResult("quota", "failed", found, "request less in the cluster file, or raise the quota")
    if not forbidden:
        found = f"{pluralize(len(quotas), 'quota')} and {pluralize(len(ranges), 'limit range')}"
        yield CheckResult("quota", "ok", f"{found} admit every pod")


def resources(pod: Pod) -> dict[str, str]:
    """Returns the resources of a pod, by their Kubernetes names."""
    gpus = {pod.gpu_resource: str(pod.gpus)} if pod.gpus else {}
    return {"cpu": pod.cpu, "memory": pod.memory} | gpus


def unfit_reasons(pod: Pod, node: Any) -> list[str]:
    """Returns the reasons why a node cannot run a pod; empty if it can."""
    reasons = []
    ready = {condition.type: condition.status for condition in node.status.conditions or []}.get("Ready")
    if ready != "True" or node.spec.unschedulable:
        reasons.append("is unschedulable" if ready == "True" else "is not ready")
    for resource, requested in resources(pod).items():
        has = (node.status.allocatable or {}).get(resource, "0")
        if parse_quantity(has) < parse_quantity(requested):
            reasons.append(f"has {resource} {has}, requested {requested}")
    for label, value in pod.labels.items():
        has = (node.metadata.labels or {}).get(label)
        if has != value:
            reasons.append(f"its label {label} is {has or 'not set'}, requested {value}")
    reasons += [
        f"its taint {taint.key}:{taint.effect} is not tolerated"
        for taint in node.spec.taints or []
        if taint.effect != "PreferNoSchedule" and not any(tolerates(each, taint) for each in pod.tolerations)
    ]
    return reasons


def tolerates(toleration: Toleration, taint: Any) -> bool:
    """Whether a toleration matches a taint, by Kubernetes' rules."""
    if toleration.effect not in (None, taint.effect):
        return False
    if toleration.key not in (None, taint.key):
        return False
    return toleration.operator == "Exists" or (toleration.value or "") == (taint.value or "")


def _distance(misfit: tuple[list[str], str]) -> tuple[bool, int]:
    """Sort key of nodes by their number of misfits; nodes without a requested resource come last."""
    reasons, _ = misfit
    return any(" 0, requested" in reason for reason in reasons), len(reasons)


def _group_by_needs(pods: Mapping[str, Pod]) -> list[tuple[Pod, str]]:
    """Returns the pods with different requirements for nodes, each with the names of its stages."""
    groups: dict[str, tuple[Pod, list[str]]] = {}
    for stage, pod in pods.items():
        key = str((resources(pod), pod.labels, pod.tolerations))
        groups.setdefault(key, (pod, []))[1].append(stage)
    return [(pod, ", ".join(stages)) for pod, stages in groups.values()]
