"""Kubernetes with Kubeflow Trainer in small: an API server over TLS that runs the nodes of a TrainJob for real.

A node is a process of this machine. Bodies are checked against the models of Trainer's API, and what Trainer does
to a job is done as its documentation says: torchrun's environment, labels, conditions.
"""

import datetime
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
from tests import servers
from tests.integration.tls import TlsServer, self_signed

TOKEN = "token-of-the-pod"
NAMESPACE = "team"
OWN_POD = f"/api/v1/namespaces/{NAMESPACE}/pods/launcher"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
JOBS = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs"


class Trainer:
    """The state of the cluster.

    Attributes:
        pod: what the API shows as the pod of the test.
        jobs: every TrainJob that was created, in order.
        refused: statuses still to be answered, by `METHOD path prefix`.
        asked: every request as `METHOD path`.
    """

    def __init__(self, pod: dict[str, Any]) -> None:
        self.pod = pod
        self.jobs: list[dict[str, Any]] = []
        self.refused: dict[str, list[int]] = {}
        self.asked: list[str] = []
        self.nodes: list[_Node] = []
        self.name: str | None = None

    def start(self, job: dict[str, Any]) -> None:
        parsed = TrainerV1alpha1TrainJob.from_dict(job)
        assert parsed is not None
        assert json.loads(parsed.to_json()) == job, "the schema of a TrainJob has no place for parts of this one"
        self.jobs.append(job)
        self.name = job["metadata"]["name"]
        trainer = job["spec"]["trainer"]
        (port,) = servers.free_ports(1)
        for rank in range(trainer["numNodes"]):
            torchrun = {
                "PET_NNODES": str(trainer["numNodes"]),
                "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(rank),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
            }
            own = {each["name"]: each["value"] for each in trainer["env"] if "value" in each}
            self.nodes.append(_Node(f"{self.name}-node-0-{rank}", trainer["command"], own | torchrun))

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
        self.nodes, self.name = [], None

    def status(self) -> dict[str, Any]:
        codes = [node.code for node in self.nodes]
        if any(codes):
            return _condition("Failed", "jobset failed due to one or more job failures")
        return _condition("Complete", "") if all(code == 0 for code in codes) else {}


class _Node:
    def __init__(self, name: str, command: list[str], variables: dict[str, str]) -> None:
        self.name, self.lines = name, []
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.process = subprocess.Popen(
            command,
            env={"PATH": path, "HOME": "/tmp", "OMP_NUM_THREADS": "1", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                now = datetime.datetime.now(datetime.UTC)
                self.lines.append(f"{now:%Y-%m-%dT%H:%M:%S.%f}000Z {line}")

    def kill(self) -> None:
        """Kills all of it, as a container's end does; torchrun's workers have sessions of their own."""
        with suppress(psutil.NoSuchProcess):
            node = psutil.Process(self.process.pid)
            node.suspend()  # or it might start a worker that is not among its children yet
            for process in [*node.children(recursive=True), node]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def stop(self) -> None:
        self.kill()
        self.process.wait()
        self.reader.join()

    @property
    def code(self) -> int | None:
        """Its exit code, once its log is whole."""
        return None if self.reader.is_alive() else self.process.wait()

    @property
    def phase(self) -> str:
        return {None: "Running", 0: "Succeeded"}.get(self.code, "Failed")


@contextmanager
def trainer(account: Path, pod: dict[str, Any]) -> Iterator[Trainer]:
    """Runs the server until the block ends; ``account`` becomes the folder that Kubernetes mounts into pods."""
    state = Trainer(pod)

    class Handler(servers.Handler):
        def do_GET(self) -> None:
            if not self._admitted():
                return
            address = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            if address.path == OWN_POD:
                self._answer(200, state.pod)
            elif address.path == f"{JOBS}/{state.name}":
                self._answer(200, state.jobs[-1] | {"status": state.status()})
            elif address.path == PODS:
                wanted = f"jobset.sigs.k8s.io/jobset-name={state.name},jobset.sigs.k8s.io/replicatedjob-name=node"
                assert query["labelSelector"] == wanted
                self._answer(200, {"items": [_pod(rank, node) for rank, node in enumerate(state.nodes)]})
            else:
                assert query.pop("container") == "node"
                self._send_log(address.path.removeprefix(f"{PODS}/").removesuffix("/log"), query)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self._admitted():
                return
            assert self.path == JOBS
            if state.name is None:
                state.start(body)
                self._answer(201, body)
            else:
                self._answer(409, {"kind": "Status", "message": f"trainjobs {state.name!r} already exists"})

        def do_DELETE(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            if not self._admitted():
                return
            address = urlsplit(self.path)
            assert parse_qs(address.query) == {"propagationPolicy": ["Foreground"]}
            if address.path == f"{JOBS}/{state.name}":
                state.stop()
                self._answer(200, {"kind": "Status", "status": "Success"})
            else:
                self._answer(404, {"kind": "Status", "message": "not found"})

        def _send_log(self, name: str, query: dict[str, str]) -> None:
            lines = next(list(node.lines) for node in state.nodes if node.name == name)
            if not lines:
                self._answer(400, {"kind": "Status", "message": 'container "node" is waiting to start'})
                return
            if "sinceSeconds" in query:
                start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(
                    seconds=int(query["sinceSeconds"])
                )
                lines = [line for line in lines if line > f"{start:%Y-%m-%dT%H:%M:%S}"]
            lines = lines[-int(query.get("tailLines", len(lines))) :]
            text = "".join(line if "timestamps" in query else line.partition(" ")[2] for line in lines)
            self._answer(200, text)

        def _admitted(self) -> bool:
            asked = f"{self.command} {urlsplit(self.path).path}"
            state.asked.append(asked)
            if self.headers["Authorization"].lower() != f"bearer {TOKEN}":
                self._answer(401, {"kind": "Status", "message": "Unauthorized"})
                return False
            for pattern, statuses in state.refused.items():
                if asked.startswith(pattern) and statuses:
                    self._answer(statuses.pop(0), {"kind": "Status", "message": f"{asked} is refused"})
                    return False
            return True

        def _answer(self, status: int, content: Any) -> None:
            answer = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    account.mkdir()
    (account / "token").write_text(TOKEN)
    (account / "namespace").write_text(NAMESPACE)
    with TlsServer(Handler, self_signed(account / "ca.crt")) as server:
        os.environ["KUBERNETES_SERVICE_HOST"] = "127.0.0.1"
        os.environ["KUBERNETES_SERVICE_PORT"] = str(server.server_port)
        try:
            yield state
        finally:
            del os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
            state.stop()


def _pod(rank: int, node: _Node) -> dict[str, Any]:
    labels = {"batch.kubernetes.io/job-completion-index": str(rank)}
    metadata = {"name": node.name, "namespace": NAMESPACE, "labels": labels}
    return {"metadata": metadata, "status": {"phase": node.phase}}


def _condition(kind: str, message: str) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    given = {"type": kind, "status": "True", "reason": "JobsSet", "message": message, "lastTransitionTime": now}
    return {"conditions": [given]}
