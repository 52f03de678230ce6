"""Reads and writes InferenceServices of a namespace through the Kubernetes API."""

import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from kubernetes import client
from kubernetes.client import ApiClient, ApiextensionsV1Api, CoreV1Api, CustomObjectsApi

from maskcast.errors import MaskcastError
from maskcast.runner.pod_status import WaitReporter, why_pending
from pipelines.client.inference_service import API_VERSION, GROUP, PLURAL
from pipelines.client.kube import ForbiddenError, call_api, list_warnings, no_namespace
from pipelines.client.manifests import Manifest
from pipelines.cluster import Cluster

POLL_S = 2.0
READY_WITHIN_S = 900.0
STUCK_S = 30.0  # seconds after which the reason why a pod waits is printed


class Service:
    """One InferenceService of a namespace."""

    def __init__(self, api: ApiClient, cluster: Cluster, name: str) -> None:
        self.api, self.cluster, self.name = api, cluster, name
        self.custom = CustomObjectsApi(api)
        self.resource = (GROUP, API_VERSION, cluster.namespace, PLURAL)

    def get(self) -> Manifest | None:
        """Returns the present service, or None if there is none.

        Raises:
            MaskcastError: KServe is not installed.
        """
        service: Manifest | None = call_api(self.custom.get_namespaced_custom_object, *self.resource, self.name)
        if service is None:
            self._check_kserve()
        return service

    def put(self, wanted: Manifest, *, new: bool) -> None:
        """Creates or replaces the service.

        Raises:
            MaskcastError: KServe does not support canaries in Standard mode, the service was changed meanwhile, or
                the API refuses.
        """
        if wanted["spec"].get("canary"):
            self._check_kserve(canary=True)
        if new:
            result = call_api(self.custom.create_namespaced_custom_object, *self.resource, wanted)
        else:
            result = call_api(self.custom.replace_namespaced_custom_object, *self.resource, self.name, wanted)
        if result is None:
            raise no_namespace(self.cluster.namespace)

    def annotate_secrets(self, names: Iterable[str], notes: Mapping[str, str]) -> None:
        """Adds annotations to secrets of the namespace.

        Raises:
            MaskcastError: the secret does not exist, or the permission is missing.
        """
        for name in names if notes else ():
            patch = {"metadata": {"annotations": dict(notes)}}
            if call_api(CoreV1Api(self.api).patch_namespaced_secret, name, self.cluster.namespace, patch) is None:
                raise MaskcastError(
                    f"secret {name} not found in namespace {self.cluster.namespace}; create it with `maskcast "
                    "pipeline setup --apply`"
                )

    def delete(self) -> None:
        """Deletes the service with its pods."""
        call_api(self.custom.delete_namespaced_custom_object, *self.resource, self.name)

    def wait(self) -> None:
        """Waits until the service is ready; prints meanwhile what its pods wait for.

        Raises:
            MaskcastError: it is not ready in time.
        """
        deadline = time.monotonic() + READY_WITHIN_S
        reporter = WaitReporter(f"InferenceService/{self.name} waits", STUCK_S)
        while True:
            service = self.get() or {}
            status = service.get("status", {})
            ready: dict[str, Any] = next(
                (each for each in status.get("conditions", []) if each["type"] == "Ready"), {}
            )
            is_current = status.get("observedGeneration", 0) >= service.get("metadata", {}).get("generation", 0)
            if is_current and ready.get("status") == "True":
                print(
                    f"InferenceService/{self.name}: ready" + (f" at {url}" if (url := status.get("url")) else "")
                )
                return
            reasons = [*self._waits(), *([ready["message"]] if ready.get("message") else [])]
            if time.monotonic() > deadline:
                raise MaskcastError(
                    f"InferenceService {self.name} is not ready after {READY_WITHIN_S / 60:.0f} minutes"
                    + (f": {reasons[0]}" if reasons else "")
                    + "; fix the cause, and the deployment continues"
                )
            reporter.report_new(reasons)
            time.sleep(POLL_S)

    def _waits(self) -> list[str]:
        label = f"{GROUP}/inferenceservice={self.name}"
        api, namespace = CoreV1Api(self.api), self.cluster.namespace
        try:
            pods = call_api(api.list_namespaced_pod, namespace, label_selector=label)
        except ForbiddenError:
            return []
        warnings = partial(list_warnings, api, namespace)
        return [f"{pod.metadata.name}: {why}" for pod in pods.items if (why := why_pending(pod, warnings))]

    def _check_kserve(self, *, canary: bool = False) -> None:
        try:
            crd = call_api(ApiextensionsV1Api(self.api).read_custom_resource_definition, f"{PLURAL}.{GROUP}")
        except ForbiddenError:  # CRDs are cluster-wide and not readable for everyone
            return
        if crd is None:
            raise MaskcastError(
                "KServe is not installed in the cluster (no CRD InferenceService); install it, or use `maskcast "
                "serve`"
            )
        if canary and not any("canary" in _spec_of(each) for each in crd.spec.versions):
            raise MaskcastError(
                "--canary: requires KServe 0.20 or later in Standard mode, and the cluster's is older; upgrade "
                "KServe, or deploy without --canary"
            )


def _spec_of(version: client.V1CustomResourceDefinitionVersion) -> dict[str, object]:
    schema = version.schema and version.schema.open_apiv3_schema
    spec = ((schema and schema.properties) or {}).get("spec")
    return (spec and spec.properties) or {}
