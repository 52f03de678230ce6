"""A small Kubernetes API server: keeps objects, parses what it gets with the client's models, checks schemas."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import kubernetes_validate
import yaml
from kubernetes import client
from tests import servers

VERSION = "1.34.1"
TOKEN = "token-of-alice"
KINDS = {
    "nodes": "V1Node",
    "pods": "V1Pod",
    "events": "CoreV1Event",
    "namespaces": "V1Namespace",
    "secrets": "V1Secret",
    "configmaps": "V1ConfigMap",
    "serviceaccounts": "V1ServiceAccount",
    "persistentvolumeclaims": "V1PersistentVolumeClaim",
    "resourcequotas": "V1ResourceQuota",
    "limitranges": "V1LimitRange",
    "storageclasses": "V1StorageClass",
    "roles": "V1Role",
    "rolebindings": "V1RoleBinding",
}
SERVICES = "inferenceservices"
CRD = f"{SERVICES}.serving.kserve.io"
SCHEMA = Path(__file__).with_name("inferenceservice.schema.json")
_client = client.ApiClient(client.Configuration())


class KubeApi:
    """The state of the server: objects by path, and what it refuses.

    Attributes:
        refused: status codes by `METHOD path` pattern.
        denied: what you may not do, e.g. `get pods/log`.
        kserve: version of KServe, of which 0.20 knows canaries in Standard mode; None where there is none.
        logs: what pods printed, by name; a missing one is gone. What follows the first piece comes 0.3 s later,
            to those who follow.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.refused: dict[str, int] = {}
        self.denied: set[str] = set()
        self.logs: dict[str, list[str]] = {}
        self.kserve: str | None = "0.20"
        self.url = ""

    def put(self, plural: str, name: str, namespace: str | None = None, **fields: Any) -> Any:
        """Keeps an object, made by the client's model, and returns it."""
        made = getattr(client, KINDS[plural])(
            metadata=client.V1ObjectMeta(name=name, namespace=namespace, labels=fields.pop("labels", None)),
            **fields,
        )
        self.objects[path_of(plural, name, namespace)] = made
        return made

    def get(self, plural: str, name: str, namespace: str | None = None) -> Any:
        return self.objects.get(path_of(plural, name, namespace))

    def allows(self, account: str, wanted: Any) -> bool:
        """Tells by the roles of the namespace whether a service account may do something."""
        _, _, namespace, name = account.split(":")
        bound = {
            binding.role_ref.name
            for path, binding in self.objects.items()
            if "/rolebindings/" in path and any(each.name == name for each in binding.subjects)
        }
        resource = "/".join(filter(None, [wanted.resource, wanted.subresource]))
        return any(
            wanted.group in rule.api_groups
            and resource in rule.resources
            and wanted.verb in rule.verbs
            and (not rule.resource_names or wanted.name in rule.resource_names)
            for role in bound
            for rule in self.get("roles", role, wanted.namespace or namespace).rules
        )


def path_of(plural: str, name: str, namespace: str | None = None) -> str:
    groups = {"roles": "rbac.authorization.k8s.io", "rolebindings": "rbac.authorization.k8s.io"}
    group = groups.get(plural, "storage.k8s.io" if plural == "storageclasses" else None)
    base = f"/apis/{group}/v1" if group else "/api/v1"
    return f"{base}{f'/namespaces/{namespace}' if namespace else ''}/{plural}/{name}"


def parse(body: Any, model: str) -> Any:
    """Returns JSON as a model of the client; a field of the wrong type or name fails."""
    parsed = _client.deserialize(SimpleNamespace(data=json.dumps(body)), model)
    assert _client.sanitize_for_serialization(parsed) == body, f"{model} has no place for parts of {body}"
    return parsed


def check_service(service: Any) -> None:
    """Fails where KServe 0.20 would not take an InferenceService: its schema, its webhook's rules, its pods."""
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    spec = service["spec"]
    jsonschema.validate(spec, json.loads(SCHEMA.read_text()))
    names = [spec["predictor"]["name"], *(each["predictor"]["name"] for each in spec.get("canary", []))]
    assert len(set(names)) == len(names)
    for pods in (spec["predictor"], *(each["predictor"] for each in spec.get("canary", []))):
        if "canary" in spec:
            assert any(each["name"] == "STORAGE_URI" for each in pods["containers"][0]["env"])
        if pods is not spec["predictor"]:
            assert "maxReplicas" not in pods
        own = {"name", "labels", "annotations", "minReplicas", "maxReplicas", "timeout", "deploymentStrategy"}
        pod = {key: value for key, value in pods.items() if key not in own}
        metadata = {"name": "pod", "labels": pods.get("labels", {}), "annotations": pods["annotations"]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}
        kubernetes_validate.validate(body, VERSION, strict=True)


def _is_selected(thing: Any, query: str) -> bool:
    """Whether an event is one that a field selector asks for."""
    (selector,) = parse_qs(query).get("fieldSelector", [""])
    wanted = dict(each.split("=") for each in selector.split(",") if each)
    return not wanted or wanted == {"involvedObject.name": thing.involved_object.name, "type": thing.type}


def _definition(*, canary: bool) -> Any:
    spec: Any = {"type": "object", "properties": {"predictor": {"type": "object"}}}
    if canary:
        spec["properties"]["canary"] = {"type": "array"}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    version = {"name": "v1beta1", "served": True, "storage": True, "schema": schema}
    names = {"kind": "InferenceService", "plural": SERVICES}
    return {
        "metadata": {"name": CRD},
        "spec": {"group": "serving.kserve.io", "names": names, "scope": "Namespaced", "versions": [version]},
    }


@contextmanager
def kube_api() -> Iterator[KubeApi]:
    """Runs a server until the block ends."""
    state = KubeApi()

    class Handler(servers.Handler):
        def do_GET(self) -> None:
            if self._admitted():
                path = urlsplit(self.path).path.rstrip("/")
                plural = path.rpartition("/")[2]
                if path == "/version":
                    info = dict.fromkeys(client.VersionInfo.openapi_types, "x") | {"git_version": f"v{VERSION}"}
                    self._answer(200, client.VersionInfo(**info))
                elif path in state.objects:
                    self._answer(200, state.objects[path])
                elif plural == CRD and state.kserve is not None:
                    self._answer(200, _definition(canary=state.kserve >= "0.20"))
                elif plural in KINDS:
                    found = [each for at, each in state.objects.items() if at.rpartition("/")[0] == path]
                    selector = parse_qs(urlsplit(self.path).query).get("labelSelector", [])
                    wanted = dict(each.split("=") for each in selector)
                    found = [each for each in found if wanted.items() <= (each.metadata.labels or {}).items()]
                    found = [each for each in found if _is_selected(each, urlsplit(self.path).query)]
                    self._answer(200, {"items": found})
                elif plural == "log" and (pieces := state.logs.get(path.split("/")[-2])) is not None:
                    self._send_log(pieces if "follow=True" in self.path else pieces[:1])
                else:
                    self._fail(404, f"{plural!r} not found")

        def do_POST(self) -> None:
            if self._admitted():
                kind = self.path.rpartition("/")[2]
                body = self._body()
                if kind == SERVICES:
                    assert self.headers["Content-Type"] == "application/json"
                    self._keep_service(f"{self.path}/{body['metadata']['name']}", body, "1")
                    return
                if kind == "selfsubjectaccessreviews":
                    review = parse(body, "V1SelfSubjectAccessReview")
                    wanted = review.spec.resource_attributes
                    asked = f"{wanted.verb} {wanted.resource}/{wanted.subresource or ''}".rstrip("/")
                    allowed = asked not in state.denied
                else:
                    review = parse(body, "V1LocalSubjectAccessReview")
                    allowed = state.allows(review.spec.user, review.spec.resource_attributes)
                self._answer(201, body | {"status": {"allowed": allowed}})

        def do_PUT(self) -> None:
            if self._admitted():
                assert self.headers["Content-Type"] == "application/json"
                body, kept = self._body(), state.objects[self.path]
                if body["metadata"]["resourceVersion"] != kept["metadata"]["resourceVersion"]:
                    self._fail(409, "the object has been modified")
                    return
                self._keep_service(self.path, body, str(int(kept["metadata"]["resourceVersion"]) + 1))

        def do_DELETE(self) -> None:
            if self._admitted():
                self._body()
                self._answer(200, state.objects.pop(self.path))

        def _keep_service(self, path: str, body: Any, version: str) -> None:
            namespace = path.split("/")[-3]
            if path_of("namespaces", namespace) not in state.objects:
                self._fail(404, f'namespaces "{namespace}" not found')
                return
            check_service(body)
            state.objects[path] = body | {"metadata": body["metadata"] | {"resourceVersion": version}}
            self._answer(200, state.objects[path])

        def do_PATCH(self) -> None:
            if self._admitted():
                address = urlsplit(self.path)
                namespace, plural, name = address.path.split("/")[-3:]
                body = self._body()
                if self.headers["Content-Type"] != "application/apply-patch+yaml":
                    assert body.keys() == {"metadata"} and body["metadata"].keys() == {"annotations"}
                    if (kept := state.objects.get(address.path)) is None:
                        self._fail(404, f"{plural} {name!r} not found")
                        return
                    kept.metadata.annotations = (kept.metadata.annotations or {}) | body["metadata"]["annotations"]
                    self._answer(200, kept)
                    return
                assert parse_qs(address.query) == {"fieldManager": ["maskcast"], "force": ["True"]}
                if path_of("namespaces", namespace) not in state.objects:
                    self._fail(404, f'namespaces "{namespace}" not found')
                    return
                kubernetes_validate.validate(body, VERSION, strict=True)
                assert body["metadata"]["name"] == name
                state.objects[address.path] = parse(body, KINDS[plural])
                self._answer(200, body)

        def _send_log(self, pieces: list[str]) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write("".join(pieces).encode())

        def _admitted(self) -> bool:
            asked = f"{self.command} {urlsplit(self.path).path}"
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                self._fail(401, "Unauthorized")
                return False
            for pattern, status in state.refused.items():
                if re.search(pattern, asked):
                    self._body()
                    self._fail(
                        status, f'{asked} is forbidden: User "alice" cannot do that' if status == 403 else "no"
                    )
                    return False
            return True

        def _body(self) -> Any:
            length = int(self.headers["Content-Length"] or 0)
            return json.loads(self.rfile.read(length)) if length else None

        def _fail(self, status: int, message: str) -> None:
            self._answer(status, {"kind": "Status", "status": "Failure", "message": message, "code": status})

        def _answer(self, status: int, content: Any) -> None:
            answer = json.dumps(_client.sanitize_for_serialization(content)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with servers.Server(Handler) as server:
        state.url = server.url
        yield state


def node(api: KubeApi, name: str, allocatable: dict[str, str], **spec: Any) -> None:
    """Adds a node that is ready."""
    ready = client.V1NodeCondition(type="Ready", status="True")
    status = client.V1NodeStatus(allocatable=allocatable, conditions=[ready])
    api.put("nodes", name, spec=client.V1NodeSpec(**spec), status=status)


def small_cluster(api: KubeApi) -> None:
    """Adds the namespace `team`, a node for CPUs and one for GPUs."""
    api.put("namespaces", "team", status=client.V1NamespaceStatus(phase="Active"))
    node(api, "cpu-1", {"cpu": "15890m", "memory": "64Gi"})
    node(api, "gpu-1", {"cpu": "32", "memory": "256Gi", "nvidia.com/gpu": "4"})


def cluster_file(folder: Path, **changes: Any) -> Path:
    """Writes a cluster file that fits `small_cluster`; `changes` replace whole keys."""
    content = {
        "image": "registry.example.com/maskcast@sha256:" + "ab" * 32,
        "namespace": "team",
        "env": {"MLFLOW_TRACKING_URI": "http://mlflow.mlflow.svc:5000"},
        "secrets": {"maskcast-s3": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]},
        "workspace": {"claim": "maskcast-workspace"},
        "pods": {"gpu": {"cpu": "8", "memory": "32Gi", "gpus": 1}},
    }
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


def kubeconfig(url: str, token: str = TOKEN) -> str:
    """Returns a kubeconfig that names the server."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "users": [{"name": "alice", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "alice"}}],
        }
    )
