"""A Kubeflow Pipelines server as clients see it: it answers the v2beta1 calls, refuses what the real one refuses,
remembers what it was asked, and fails when told to. It runs nothing; a test says how runs go on."""

import json
import re
import ssl
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tests.integration.tls import TlsServer
from tests.servers import Handler, Server

LISTS = {"experiments": "Experiment", "pipelines": "Pipeline", "runs": "Run", "recurringruns": "RecurringRun"}


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class KfpServer:
    """Listens on a port of this machine until `stop`; set the attributes to change how it behaves."""

    def __init__(self) -> None:
        self.multi_user = True
        self.namespaces = {"team"}
        self.health = {"commit_sha": "unknown", "tag_name": "2.17.0", "pipeline_store": "database"}
        self.token: str | None = None
        self.cookie: str | None = None
        self.faults: deque[int | str | bytes] = deque()
        """What the next get instead: a status, a body, `login page`, `redirect`, `cut off` or `hang up`."""
        self.asked: list[str] = []
        self.headers: list[Message] = []
        self.stored: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in [*LISTS, "versions"]}
        self.specs: dict[str, str] = {}
        self.script: deque[dict[str, Any]] = deque()
        """What each reading of a run changes in it, one after another."""
        self.then: Callable[[], None] | None = None
        """Called when the script is played out."""
        self.archive: dict[str, str] = {}
        """What pods printed, by name, kept after they are gone."""
        self.counts: Counter[str] = Counter()
        self._server: Server | None = None
        self.start()

    def start(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        handler = type("Handler", (_Handler,), {"kfp": self})
        server = TlsServer(handler, tls) if tls else Server(handler, port)
        self._server = server.__enter__()
        self.url, self.port = server.url, server.server_port

    def stop(self) -> None:
        if self._server:
            self._server.__exit__()
            self._server = None

    def only(self, kind: str) -> dict[str, Any]:
        (thing,) = self.stored[kind].values()
        return thing

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, content_type: str) -> Any:
        if path == "/healthz":
            return {"multi_user": self.multi_user, **self.health}
        if path == "/pipelines/upload_version":
            return self._upload(query, body, content_type)
        kind, _, rest = path.lstrip("/").partition("/")
        if kind not in LISTS:
            raise RefusedError(404, f"Not Found: {path}")
        identifier, _, verb = rest.partition(":")
        if method == "POST" and not rest:
            return self._create(kind, json.loads(body))
        if method == "GET" and not rest:
            return self._list(kind, query)
        if match := re.fullmatch(r"([^/]+)/versions(?:/([^/]+))?", identifier):
            return self._versions(*match.groups(), query)
        thing = self.stored[kind].get(identifier)
        if thing is None:
            raise RefusedError(404, f"{LISTS[kind]} {identifier} not found")
        if method == "DELETE":
            return self.stored[kind].pop(identifier) and {}
        if verb == "terminate":
            thing["state"] = "CANCELING"
            return {}
        if verb == "retry":
            if thing["state"] != "FAILED":
                raise RefusedError(400, f"Workflow must be Failed/Error to retry, it is {thing['state']}")
            thing["state"] = "RUNNING"
            return {}
        if kind == "runs":
            self._play(thing)
        return thing

    def _play(self, run: dict[str, Any]) -> None:
        if self.script:
            run.update(self.script.popleft())
        elif self.then:
            self.then()

    def _list(self, kind: str, query: dict[str, str]) -> Any:
        if "experiment_id" not in query:
            self._check_namespace(query.get("namespace", ""), shared=kind == "pipelines")
        found = [each for each in self.stored[kind].values() if _matches(each, query)]
        start, size = int(query.get("page_token") or 0), int(query.get("page_size") or 10)  # which is the default
        more = {"next_page_token": str(start + size)} if start + size < len(found) else {}
        page = found[start : start + size]
        return {{"recurringruns": "recurringRuns"}.get(kind, kind): page, "total_size": len(found), **more}

    def _versions(self, pipeline_id: str, version_id: str | None, query: dict[str, str]) -> Any:
        if version_id:
            return self.stored["versions"][version_id]
        of_it = [each for each in self.stored["versions"].values() if each["pipeline_id"] == pipeline_id]
        return {"pipeline_versions": [each for each in of_it if _matches(each, query)]}

    def _create(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        check_model(body, f"V2beta1{LISTS[kind]}")
        if kind in ("experiments", "pipelines"):
            self._check_namespace(body.get("namespace", ""), shared=kind == "pipelines")
        else:
            self._check_run(body)
        if kind == "recurringruns":
            if len(body["trigger"]["cron_schedule"]["cron"].split()) != 6:
                raise RefusedError(400, "Invalid cron expression")
            body = {**body, "status": "ENABLED"}
        identifier = self._identifier(kind)
        names = {"recurringruns": "recurring_run_id"}
        made = {**body, names.get(kind, f"{kind[:-1]}_id"): identifier, "created_at": now()}
        if kind == "runs":
            made["state"] = "PENDING"
        self.stored[kind][identifier] = made
        return made

    def _check_namespace(self, namespace: str, shared: bool) -> None:
        if not self.multi_user and namespace:
            raise RefusedError(400, "In single-user mode, namespace must be empty")
        if self.multi_user and namespace not in self.namespaces and not (shared and not namespace):
            raise RefusedError(403, f"User is not authorized to list in namespace {namespace!r}")

    def _check_run(self, body: dict[str, Any]) -> None:
        if body["experiment_id"] not in self.stored["experiments"]:
            raise RefusedError(404, f"Experiment {body['experiment_id']} not found")
        version = self.stored["versions"][body["pipeline_version_reference"]["pipeline_version_id"]]
        spec = version["pipeline_spec"].get("pipeline_spec", version["pipeline_spec"])
        for name, value in body["runtime_config"]["parameters"].items():
            known = spec["root"]["inputDefinitions"]["parameters"]
            if name not in known or not isinstance(value, dict):
                raise RefusedError(400, f"parameter {name} is not a STRUCT of the pipeline")

    def _upload(self, query: dict[str, str], body: bytes, content_type: str) -> dict[str, Any]:
        if any(each["display_name"] == query["name"] for each in self.stored["versions"].values()):
            raise RefusedError(409, f"The name {query['name']} already exists")
        form = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
        (text,) = (part.get_payload(decode=True).decode() for part in form.get_payload())
        pipeline, *platform = yaml.load_all(text, yaml.CSafeLoader)
        json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
        for each in platform:
            json_format.ParseDict(each, pipeline_spec_pb2.PlatformSpec())
        identifier = self._identifier("versions")
        spec = {"pipeline_spec": pipeline, "platform_spec": platform[0]} if platform else pipeline
        made = {
            "pipeline_id": query["pipelineid"],
            "pipeline_version_id": identifier,
            "display_name": query["name"],
            "pipeline_spec": spec,
        }
        self.stored["versions"][identifier] = made
        self.specs[identifier] = text
        return made

    def _identifier(self, kind: str) -> str:
        self.counts[kind] += 1
        return f"{kind[:-1]}-{self.counts[kind]}"


class _Handler(Handler):
    kfp: KfpServer

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_DELETE = do_GET

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.kfp.asked.append(f"{self.command} {parts.path.removeprefix('/apis/v2beta1')}")
        self.kfp.headers.append(self.headers)
        fault = self.kfp.faults.popleft() if self.kfp.faults else None
        if fault == "hang up":
            return
        if fault == "login page":
            self._send(200, b"<html>Sign in</html>", "text/html")
            return
        if isinstance(fault, bytes):
            self._send(200, fault)
            return
        if fault == "cut off":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"{")
            return
        if fault == "redirect":
            self.send_response(302)
            self.send_header("Location", "https://login.example.com/dex/auth?state=secret")
            self.end_headers()
            return
        try:
            if isinstance(fault, int):
                raise RefusedError(fault, "upstream connect error")
            self._check_credentials()
            if match := re.fullmatch(r"/apis/v1alpha1/runs/[^/]+/nodes/([^/]+)/log", parts.path):
                self._send_log(match[1])
                return
            path = unquote(parts.path).removeprefix("/apis/v2beta1")
            content_type = self.headers.get("Content-Type", "")
            answer = self.kfp.answer(self.command, path, dict(parse_qsl(parts.query)), body, content_type)
            self._send(200, json.dumps(answer).encode())
        except RefusedError as error:
            said = {"code": 0, "message": str(error), "details": []}
            self._send(error.status, json.dumps(said).encode())

    def _check_credentials(self) -> None:
        if self.kfp.token and self.headers.get("Authorization") != f"Bearer {self.kfp.token}":
            raise RefusedError(401, "Unauthenticated: Request header error: there is no user identity header")
        if self.kfp.cookie and self.headers.get("Cookie") != self.kfp.cookie:
            raise RefusedError(401, "Unauthenticated: no session")

    def _send_log(self, pod: str) -> None:
        if pod not in self.kfp.archive:
            raise RefusedError(500, "error getting logs: the server could not find the requested resource")
        self._send(200, self.kfp.archive[pod].encode(), "text/plain; charset=utf-8")

    def _send(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def check_model(body: dict[str, Any], model: str) -> Any:
    """Returns the body as a model of kfp-server-api; a field or type that the API does not know is refused."""
    if "max_concurrency" in body:  # JSON of an int64 is text; servers take numbers, too
        body = {**body, "max_concurrency": str(body["max_concurrency"])}
    client = kfp_server_api.ApiClient()
    parsed = client.deserialize(SimpleNamespace(data=json.dumps(body)), model)
    if client.sanitize_for_serialization(parsed) != body:
        raise RefusedError(400, f"unknown field in {model}: {body}")
    return parsed


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def task(name: str, state: str, start: str = "2026-01-01T00:00:00Z", end: str | None = None) -> dict[str, Any]:
    """Returns a node of a run as the server lists it; one that has not ended ends at the beginning of time."""
    return {
        "display_name": name,
        "state": state,
        "start_time": start,
        "create_time": start,
        "end_time": end or "0001-01-01T00:00:00Z",
    }


def _matches(thing: dict[str, Any], query: dict[str, str]) -> bool:
    predicates = json.loads(query["filter"])["predicates"] if query.get("filter") else []
    wanted = {each["key"]: each["stringValue"] for each in predicates}
    assert all(each["operation"] in (1, "EQUALS") for each in predicates)
    for key in ("namespace", "experiment_id"):
        if query.get(key) and key in thing:
            wanted[key] = query[key]
    return all(thing.get(key) == value for key, value in wanted.items())
