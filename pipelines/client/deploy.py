"""Deploys a registered version as an InferenceService of KServe (`maskcast models deploy`, `undeploy`)."""

import shlex
from pathlib import Path

import yaml

from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.registry.store import Registry
from pipelines.client.inference_service import (
    Release,
    inference_service,
    release_in,
    release_of,
    storage_account,
    storage_annotations,
    with_all_requests,
    with_canary,
    without_canary,
)
from pipelines.client.kserve import Service
from pipelines.client.kube import connect
from pipelines.client.manifests import Manifest, s3_secrets
from pipelines.client.setup import apply_one
from pipelines.cluster import Cluster, load_cluster
from pipelines.options import cluster_file

SERVER_FIELDS = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid")  # of metadata


def deploy(
    registry: Registry,
    which: str,
    file: Path | None,
    service: str | None,
    canary: int | None,
    *,
    dry_run: bool,
    wait: bool,
) -> None:
    """Routes all requests of a service, or a share of them, to a version.

    Args:
        registry: the registered model.
        which: number or alias of the version.
        file: cluster file; None uses the project's own.
        service: name of the InferenceService; None derives it from the model's name.
        canary: share of the requests in percent; None routes all.
        dry_run: whether to print the objects instead of changing anything; without access to the cluster, those of
            a new service are printed.
        wait: whether to wait until the service is ready.

    Raises:
        MaskcastError: version, KServe or permission is missing, or the service does not become ready.
    """
    cluster = load_cluster(file or cluster_file())
    name = service or service_name(registry.name)
    cluster.check_image()
    release = release_of(registry, registry.find(which), cluster)
    try:
        running = Service(connect(), cluster, name)
        current = running.get()
    except MaskcastError as error:
        if not dry_run or canary is not None:
            raise
        say(f"InferenceService {name}: not read from the cluster, printed as a new one ({error})")
        _print(cluster, release, inference_service(cluster, name, release))
        return
    if current is None and canary is not None:
        raise MaskcastError(
            f"--canary: InferenceService {name} not found in namespace {cluster.namespace}; deploy without "
            "--canary first"
        )
    wanted = _wanted(current, cluster, name, release, canary)
    if dry_run:
        _print(cluster, release, wanted)
        return
    if release.storage is not None:
        running.annotate_secrets(s3_secrets(cluster), storage_annotations(cluster))
        apply_one(running.api, storage_account(cluster))
    running.put(wanted, new=current is None)
    share = "all requests" if canary is None else f"{canary} % of the requests"
    print(f"InferenceService/{name} in {cluster.namespace}: {release.title} gets {share}")
    if wait:
        running.wait()


def undeploy(model: str, file: Path | None, service: str | None, *, canary: bool) -> None:
    """Deletes a service, or only its canary; requests then go to the previous version.

    Raises:
        MaskcastError: the service or canary does not exist, or the permission is missing.
    """
    cluster = load_cluster(file or cluster_file())
    name = service or service_name(model)
    running = Service(connect(), cluster, name)
    current = running.get()
    if current is None:
        raise MaskcastError(
            f"InferenceService {name} not found in namespace {cluster.namespace}; give another with --service"
        )
    if not canary:
        running.delete()
        print(f"InferenceService/{name} in {cluster.namespace}: deleted")
        return
    if not current["spec"].get("canary"):
        raise MaskcastError(f"InferenceService {name} has no canary; omit --canary to delete the service")
    running.put(without_canary(current), new=False)
    kept = release_in(current["spec"]["predictor"])
    print(f"InferenceService/{name} in {cluster.namespace}: canary deleted, {kept} gets all requests")


def service_name(model: str) -> str:
    """Returns a registered model's name as a valid name in Kubernetes."""
    return model.lower().replace("_", "-").replace(".", "-")


def _wanted(
    current: Manifest | None, cluster: Cluster, name: str, release: Release, canary: int | None
) -> Manifest:
    if current is None:
        return inference_service(cluster, name, release)
    if canary is None:
        return with_all_requests(current, cluster, release)
    return with_canary(current, cluster, release, canary)


def _print(cluster: Cluster, release: Release, service: Manifest) -> None:
    """Prints manifests for `kubectl apply -f -`; for changes of secrets, prints commands to stderr."""
    if release.storage is not None:
        notes = [f"{key}={value}" for key, value in storage_annotations(cluster).items()]
        for name in s3_secrets(cluster) if notes else []:
            command = shlex.join(
                ["kubectl", "annotate", "--overwrite", "-n", cluster.namespace, "secret", name, *notes]
            )
            say(f"address of the S3 server for KServe: {command}")
        print(yaml.safe_dump(storage_account(cluster), sort_keys=False), end="---\n")
    metadata = {key: value for key, value in service["metadata"].items() if key not in SERVER_FIELDS}
    applied = {key: value for key, value in service.items() if key != "status"} | {"metadata": metadata}
    print(yaml.safe_dump(applied, sort_keys=False), end="")
