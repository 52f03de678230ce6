"""Kubernetes manifests of what the pods of a pipeline need in their namespace."""

import base64
from collections.abc import Mapping
from typing import Any

from pipelines.cluster import Cluster

Manifest = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"
LABELS = {"app.kubernetes.io/part-of": "maskcast"}
KFP_STORE = "mlpipeline-minio-artifact"  # secret of KFP's default artifact store


def manifests(cluster: Cluster) -> list[Manifest]:
    """Returns all manifests except the secrets: service account, role, role binding and workspace claim."""
    name = cluster.service_account
    account = service_account(cluster, name)
    # One per account, as each has its own secrets; Kubeflow uses the name of the account for its own bindings.
    role_name = f"maskcast-for-{name}"
    role = _object(cluster, f"{RBAC}/v1", "Role", role_name) | {"rules": rules(cluster)}
    binding = _object(cluster, f"{RBAC}/v1", "RoleBinding", role_name) | {
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": role_name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": cluster.namespace}],
    }
    return [account, role, binding, *_workspace(cluster)]


def service_account(cluster: Cluster, name: str) -> Manifest:
    """Returns a service account whose pods may pull the image."""
    account = _object(cluster, "v1", "ServiceAccount", name)
    if cluster.image_pull_secrets:
        account["imagePullSecrets"] = [{"name": secret} for secret in cluster.image_pull_secrets]
    return account


def rules(cluster: Cluster) -> list[dict[str, list[str]]]:
    """Returns the minimum permissions of the pods' service account for Argo, KFP's launcher and TrainJobs."""
    return [
        # Argo's executor reports the result of a pod, and its agent those of KFP's driver.
        _rule("argoproj.io", "workflowtaskresults", "create", "patch"),
        _rule("argoproj.io", "workflowtasksets", "list", "watch"),
        _rule("argoproj.io", "workflowtasksets/status", "patch"),
        # KFP's launcher reads the address and keys of the artifact store.
        _rule("", "configmaps", "get") | {"resourceNames": ["kfp-launcher"]},
        _rule("", "secrets", "get") | {"resourceNames": store_secrets(cluster)},
        # A stage on several nodes starts a TrainJob and follows its pods.
        _rule("trainer.kubeflow.org", "trainjobs", "create", "delete", "get", "list", "watch"),
        _rule("", "pods", "get", "list"),
        _rule("", "pods/log", "get"),
        _rule("", "events", "list"),
    ]


def store_secrets(cluster: Cluster) -> list[str]:
    """Returns the secrets that may contain the keys of the artifact store."""
    return [KFP_STORE, *s3_secrets(cluster)]


def s3_secrets(cluster: Cluster) -> list[str]:
    """Returns the secrets of the cluster file that contain S3 keys."""
    return [name for name, keys in cluster.secrets.items() if "AWS_ACCESS_KEY_ID" in keys]


def secret(cluster: Cluster, name: str, values: Mapping[str, str]) -> Manifest:
    """Returns a secret with these values."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return _object(cluster, "v1", "Secret", name) | {"type": "Opaque", "data": data}


def _workspace(cluster: Cluster) -> list[Manifest]:
    workspace = cluster.workspace
    if workspace is None:
        return []
    spec: dict[str, Any] = {
        "accessModes": [workspace.access_mode],
        "resources": {"requests": {"storage": workspace.size}},
    }
    if workspace.storage_class is not None:
        spec["storageClassName"] = workspace.storage_class
    claim = _object(cluster, "v1", "PersistentVolumeClaim", workspace.claim) | {"spec": spec}
    claim["metadata"]["labels"] = {**cluster.labels, **LABELS}
    return [claim]


def _object(cluster: Cluster, api_version: str, kind: str, name: str) -> Manifest:
    metadata = {"name": name, "namespace": cluster.namespace, "labels": LABELS}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _rule(group: str, resource: str, *verbs: str) -> dict[str, list[str]]:
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
