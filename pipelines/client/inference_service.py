"""A registered version as an InferenceService of KServe in Standard mode (plain Deployments without Knative).

If weights are in S3, KServe's storage initializer copies them to ``/mnt/models`` before the container starts.
Otherwise the container downloads them from the registry. In both cases the server compares the weights with the
registry's digest. Statements about KServe refer to version 0.20.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from maskcast.errors import MaskcastError
from maskcast.registry.store import Registry, Version
from pipelines.client.manifests import LABELS, Manifest, s3_secrets, service_account
from pipelines.cluster import Cluster

GROUP, API_VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
MOUNT = "/mnt/models"  # KServe copies the content of STORAGE_URI to it
PORT = 8080
SCRAPED = {"prometheus.io/scrape": "true", "prometheus.io/port": str(PORT), "prometheus.io/path": "/metrics"}
CONTAINER = "kserve-container"


@dataclass(frozen=True)
class Release:
    """A version that can be deployed.

    Args:
        name: name of the registered model.
        number: number of the version.
        digest: digest of its bundle.
        storage: S3 address of its artifact; None if only the registry provides it.
    """

    name: str
    number: int
    digest: str
    storage: str | None

    @property
    def title(self) -> str:
        """The name in messages."""
        return f"{self.name} version {self.number}"


def release_of(registry: Registry, version: Version, cluster: Cluster) -> Release:
    """Returns a version with the S3 address of its artifact, if known."""
    source = registry.client.get_model_version_download_uri(registry.name, str(version.number))
    return Release(registry.name, version.number, version.digest, _storage(source, cluster.serving.artifacts))


def inference_service(cluster: Cluster, service: str, release: Release) -> Manifest:
    """Returns an InferenceService that routes all requests to a release."""
    metadata = {
        "name": service,
        "namespace": cluster.namespace,
        "labels": LABELS,
        "annotations": {f"{GROUP}/deploymentMode": "Standard"},
    }
    spec = {"predictor": predictor(cluster, release, _name(release))}
    return {"apiVersion": f"{GROUP}/{API_VERSION}", "kind": "InferenceService", "metadata": metadata, "spec": spec}


def predictor(cluster: Cluster, release: Release, name: str, *, canary: bool = False) -> Manifest:
    """Returns the predictor spec of a release.

    Args:
        cluster: image, environment, secrets and sizes.
        release: the release to serve.
        name: KServe's name for the pods; their Deployment is ``SERVICE-NAME-predictor``.
        canary: whether it is a canary, whose number of pods KServe derives from its share of requests.
    """
    serving = cluster.serving
    annotations = {**cluster.annotations, **SCRAPED}
    spec: Manifest = {"name": name, "annotations": annotations, "timeout": serving.timeout_s}
    if cluster.labels:
        spec["labels"] = dict(cluster.labels)
    if not canary:
        spec |= {"minReplicas": serving.min_replicas, "maxReplicas": serving.max_replicas}
        # New pods must be ready before old ones are stopped.
        rolling = {"maxUnavailable": 0, "maxSurge": 1}
        spec["deploymentStrategy"] = {"type": "RollingUpdate", "rollingUpdate": rolling}
    if release.storage is not None:
        spec["serviceAccountName"] = serving.service_account
    if cluster.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in cluster.image_pull_secrets]
    spec["containers"] = [_container(cluster, release)]
    spec["volumes"] = [{"name": "scratch", "emptyDir": {"sizeLimit": "2Gi"}}]
    for number, files in enumerate(cluster.files.values()):
        volume: Manifest = {"name": f"files-{number}"}
        if files.config_map:
            volume["configMap"] = {"name": files.config_map}
        else:
            volume["secret"] = {"secretName": files.secret}
        spec["volumes"].append(volume)
    return spec


def with_canary(current: Manifest, cluster: Cluster, release: Release, percent: int) -> Manifest:
    """Returns a service that routes a share of the requests to a release, and the rest to the present version.

    Raises:
        MaskcastError: KServe cannot split requests between these two.
    """
    stable = current["spec"]["predictor"]
    for title, storage in ((release_in(stable), _storage_of(stable)), (release.title, release.storage)):
        if storage is None:
            raise MaskcastError(
                f"--canary: requires weights in S3, but those of {title} come from the registry; set "
                "serving.artifacts in the cluster file to the S3 address of the MLflow server's artifacts"
            )
    if release_in(stable) == release.title:
        raise MaskcastError(f"--canary: {release.title} already gets all requests; give another version")
    name = _name(release) if stable.get("name") != _name(release) else f"{_name(release)}-canary"
    canary = {"trafficPercent": percent, "predictor": predictor(cluster, release, name, canary=True)}
    return current | {"spec": current["spec"] | {"canary": [canary]}}


def with_all_requests(current: Manifest, cluster: Cluster, release: Release) -> Manifest:
    """Returns a service that routes all requests to a release; the pods of a running canary are kept."""
    stable = current["spec"]["predictor"]
    name = stable.get("name") or _name(release)
    for canary in current["spec"].get("canary") or []:
        if release_in(canary["predictor"]) == release.title:
            name = canary["predictor"]["name"]
    spec = {key: value for key, value in current["spec"].items() if key != "canary"}
    return current | {"spec": spec | {"predictor": predictor(cluster, release, name)}}


def without_canary(current: Manifest) -> Manifest:
    """Returns a service without canary, so that all requests go to the previous version."""
    return current | {"spec": {key: value for key, value in current["spec"].items() if key != "canary"}}


def release_in(pods: Manifest) -> str:
    """Returns the title of the release that a predictor serves; `another model` if maskcast did not deploy it."""
    arguments = pods.get("containers", [{}])[0].get("args", [])
    for flag, value in pairwise(arguments):
        if flag == "--as" and (match := re.fullmatch(r"(.+)/(\d+)", value)):
            return f"{match[1]} version {match[2]}"
        if flag == "--model" and (match := re.fullmatch(r"models:/(.+)/(\d+)", value)):
            return f"{match[1]} version {match[2]}"
    return "another model"


def storage_account(cluster: Cluster) -> Manifest:
    """Returns the service account with which KServe reads S3."""
    account = service_account(cluster, cluster.serving.service_account)
    account["secrets"] = [{"name": name} for name in s3_secrets(cluster)]
    return account


def storage_annotations(cluster: Cluster) -> dict[str, str]:
    """Returns annotations for the secret of S3 keys, from which KServe reads how to reach the S3 server.

    KServe mounts the ConfigMap of a certificate at the folder of its path, in the container that copies weights.
    """
    notes = {}
    if endpoint := cluster.env.get("AWS_ENDPOINT_URL_S3") or cluster.env.get("AWS_ENDPOINT_URL"):
        address = urlsplit(endpoint)
        notes["s3-endpoint"] = address.netloc
        notes["s3-usehttps"] = "1" if address.scheme == "https" else "0"
    if region := cluster.env.get("AWS_REGION") or cluster.env.get("AWS_DEFAULT_REGION"):
        notes["s3-region"] = region
    authority = cluster.env.get("AWS_CA_BUNDLE", "")
    source = cluster.files.get(str(PurePosixPath(authority).parent))
    if source is not None and source.config_map:
        notes |= {"s3-cabundle": authority, "s3-cabundle-configmap": source.config_map}
    return {f"{GROUP}/{key}": value for key, value in notes.items()}


def _container(cluster: Cluster, release: Release) -> Manifest:
    serving = cluster.serving
    everywhere = "0.0.0.0"  # noqa: S104 (of the container)
    command = ["maskcast", "serve", "--host", everywhere, "--port", str(PORT), "--digest", release.digest]
    env: list[dict[str, Any]] = (
        [{"name": "OMP_NUM_THREADS", "value": serving.cpu}] if serving.cpu.isdigit() else []
    )
    if release.storage is not None:
        command += ["--model", MOUNT, "--as", f"{release.name}/{release.number}"]
        env += [{"name": "STORAGE_URI", "value": release.storage}]
    else:
        command += ["--model", f"models:/{release.name}/{release.number}"]
        env += [{"name": name, "value": value} for name, value in cluster.env.items()]
        env += [
            {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
            for secret, keys in cluster.secrets.items()
            for variable, key in keys.items()
        ]
    live, ready = _probe("live"), _probe("ready")
    size = {"cpu": serving.cpu, "memory": serving.memory}
    return {
        "name": CONTAINER,
        "image": cluster.image,
        "imagePullPolicy": cluster.image_pull_policy,
        "args": command,
        "ports": [{"name": "http1", "containerPort": PORT, "protocol": "TCP"}],
        "env": env,
        "startupProbe": live | {"failureThreshold": 60, "periodSeconds": 5},  # five minutes to load the model
        "readinessProbe": ready,
        "livenessProbe": live | {"timeoutSeconds": 10},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},  # until no more requests are routed here
        "resources": {"requests": size, "limits": size},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/tmp"},
            *(
                {"name": f"files-{number}", "mountPath": path, "readOnly": True}
                for number, path in enumerate(cluster.files)
            ),
        ],
    }


def _probe(what: str) -> Manifest:
    return {"httpGet": {"path": f"/v2/health/{what}", "port": PORT}}


def _storage(source: str, artifacts: str | None) -> str | None:
    """Returns the S3 address of an artifact, or None if only the MLflow server knows it."""
    address = urlsplit(source)
    if address.scheme == "s3":
        return source
    if address.scheme == "mlflow-artifacts" and artifacts is not None:
        return f"{artifacts.rstrip('/')}/{address.path.lstrip('/')}"
    return None


def _storage_of(pods: Manifest) -> str | None:
    env: list[dict[str, Any]] = pods.get("containers", [{}])[0].get("env") or []
    return next((str(each["value"]) for each in env if each["name"] == "STORAGE_URI"), None)


def _name(release: Release) -> str:
    return f"v{release.number}"
