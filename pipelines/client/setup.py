"""Prints manifests of what a pipeline's pods need in their namespace, for `kubectl apply -f -`.

They are a service account with a role and its binding, and the volume claim of the workspace. The namespace must
exist. With --apply these are applied directly, together with the secrets, whose values are read from environment
variables of the same names and never written to disk. Without it, stderr shows how kubectl creates the secrets
from the environment. Applying again updates only what has changed in the cluster file.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import yaml
from kubernetes import client

from maskcast.errors import MaskcastError
from pipelines.client.kube import call_api, connect, no_namespace
from pipelines.client.manifests import Manifest, manifests, secret
from pipelines.cluster import Cluster, load_cluster
from pipelines.options import add_cluster
from pipelines.variables import is_of_others

MANAGER = "maskcast"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_cluster(parser)
    parser.add_argument("--apply", action="store_true", help="apply everything to kubectl's current cluster")


def run(args: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    cluster = load_cluster(args.cluster)
    if args.apply:
        apply(cluster, os.environ)
    else:
        print(yaml.safe_dump_all(manifests(cluster), sort_keys=False), end="")
        for command in secret_commands(cluster):
            print(f"secret, from the variables in your environment: {command}", file=sys.stderr)
    return 0


def secret_commands(cluster: Cluster) -> list[str]:
    """Returns a command per secret; kubectl reads the values from its environment."""
    return [
        f"printf '%s\\n' {shlex.join(keys)} | kubectl create secret generic {name} -n {cluster.namespace} "
        "--from-env-file=/dev/stdin --dry-run=client -o yaml | kubectl apply -f -"
        for name, keys in cluster.secrets.items()
        if not is_of_others(keys)
    ]


def apply(cluster: Cluster, environment: Mapping[str, str]) -> None:
    """Applies manifests and secrets; prints a line for each.

    Raises:
        MaskcastError: if a secret's variable is missing (before anything is applied), or the API refuses.
    """
    api = connect()
    secrets = [
        secret(cluster, name, {key: environment[key] for key in keys})
        for name, keys in cluster.secrets.items()
        if _given(api, cluster, name, keys, environment)
    ]
    print(f"{api.configuration.host}, namespace {cluster.namespace}")
    for manifest in [*manifests(cluster), *secrets]:
        apply_one(api, manifest)
        print(f"{manifest['kind']}/{manifest['metadata']['name']}: applied")


def _given(api: Any, cluster: Cluster, name: str, keys: Mapping[str, str], environment: Mapping[str, str]) -> bool:
    """Whether the environment has a secret's values; if not, or if others make it, the cluster must have it."""
    missing = [variable for variable in keys if not environment.get(variable)]
    others = is_of_others(keys)
    if not missing and not others:
        return True
    existing = call_api(client.CoreV1Api(api).read_namespaced_secret, name, cluster.namespace)
    if existing is not None and set(keys.values()) <= set(existing.data or {}):
        reason = "made by others" if others else f"{', '.join(missing)} not in the environment"
        print(f"Secret/{name}: kept, {reason}")
        return False
    if others:
        raise MaskcastError(
            f"secret {name}: not in {cluster.namespace} with the keys {', '.join(keys.values())}; make it "
            f"there, or list its variables without keys in {cluster.file}"
        )
    raise MaskcastError(
        f"secret {name}: {', '.join(missing)} not in the environment; set the secret's values there"
    )


def apply_one(api: Any, manifest: Manifest) -> None:
    """Creates or updates an object according to its manifest (server-side apply).

    Raises:
        MaskcastError: if the namespace does not exist, or the API refuses.
    """
    core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
    patch = {
        "ServiceAccount": core.patch_namespaced_service_account,
        "Secret": core.patch_namespaced_secret,
        "PersistentVolumeClaim": core.patch_namespaced_persistent_volume_claim,
        "Role": rbac.patch_namespaced_role,
        "RoleBinding": rbac.patch_namespaced_role_binding,
    }[manifest["kind"]]
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    api.set_default_header("Content-Type", "application/apply-patch+yaml")  # overrides the client's own choice
    try:
        if call_api(patch, name, namespace, manifest, field_manager=MANAGER, force=True) is None:
            raise no_namespace(namespace)
    finally:
        del api.default_headers["Content-Type"]  # else it would stay for later calls
