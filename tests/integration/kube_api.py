"""A small Kubernetes API server: keeps objects, parses what it gets with the client's models, checks schemas."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml
from kubernetes import client

VERSION = "1.34.1"
TOKEN = "token-of-alice"
KINDS = {
    "nodes": "V1Node",
    "pods": "V1Pod",
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
_client = client.ApiClient(client.Configuration())


class KubeApi:
    """The state of the server: objects by path, and what it refuses.

    Attributes:
        refused: status codes by `METHOD path` pattern.
        denied: what you may not do, e.g. `get pods/log`.
        logs: what pods printed, by name; a missing one is gone. What follows the first piece comes 0.3 s later,
            to those who follow.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.refused: dict[str, int] = {}
        self.denied: set[str] = set()
        self.logs: dict[str, list[str]] = {}
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


@contextmanager
def kube_api() -> Iterator[KubeApi]:
    """Runs a server until the block ends."""
    state = KubeApi()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self._admitted():
                path = urlsplit(self.path).path.rstrip("/")
                plural = path.rpartition("/")[2]
                if path == "/version":
                    info = dict.fromkeys(client.VersionInfo.openapi_types, "x") | {"git_version": f"v{VERSION}"}
                    self._answer(200, client.VersionInfo(**info))
                elif path in state.objects:
                    self._answer(200, state.objects[path])
                elif plural in KINDS:
                    found = [each for at, each in state.objects.items() if at.rpartition("/")[0] == path]
                    selector = parse_qs(urlsplit(self.path).query).get("labelSelector", [])
                    wanted = dict(each.split("=") for each in selector)
                    found = [each for each in found if wanted.items() <= (each.metadata.labels or {}).items()]
                    self._answer(200, {"items": found})
                elif plural == "log" and (pieces := state.logs.get(path.split("/")[-2])) is not None:
                    self._send_log(pieces if "follow=True" in self.path else pieces[:1])
                else:
                    self._fail(404, f"{plural!r} not found")

        def do_POST(self) -> None:
            if self._admitted():
                kind = self.path.rpartition("/")[2]
                body = self._body()
                if kind == "selfsubjectaccessreviews":
                    review = parse(body, "V1SelfSubjectAccessReview")
                    wanted = review.spec.resource_attributes
                    asked = f"{wanted.verb} {wanted.resource}/{wanted.subresource or ''}".rstrip("/")
                    allowed = asked not in state.denied
                else:
                    review = parse(body, "V1LocalSubjectAccessReview")
                    allowed = state.allows(review.spec.user, review.spec.resource_attributes)
                self._answer(201, body | {"status": {"allowed": allowed}})

        def do_PATCH(self) -> None:
            if self._admitted():
                address = urlsplit(self.path)
                namespace, plural, name = address.path.split("/")[-3:]
                body = self._body()
                assert self.headers["Content-Type"] == "application/apply-patch+yaml"
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
            self.wfile.write(pieces[0].encode())
            for piece in pieces[1:]:
                time.sleep(0.3)
                self.wfile.write(piece.encode())

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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


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
