"""The connection to a Kubeflow Pipelines server: address and credentials, neither of which is stored."""

import argparse
import json
import os
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp
from kfp.client import KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH, TokenCredentialsBase
from kfp_server_api.configuration import Configuration
from kfp_server_api.exceptions import ApiException
from kfp_server_api.models import V2beta1Run

from maskcast.errors import MaskcastError, one_line
from pipelines.client.transport import RefusedError, Transport, not_kubeflow
from pipelines.cluster import Cluster, load_cluster
from pipelines.options import add_cluster, cluster_file

IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
FORWARD_START_S = 30.0

CREDENTIALS = """Credentials: a token from --token-file or KF_PIPELINES_TOKEN (kubectl create token default-editor
--namespace NAMESPACE --audience pipelines.kubeflow.org), a session cookie from KF_PIPELINES_COOKIE
(authservice_session=...), in a pod its service account, or the kfp client's credentials in ~/.config/kfp.
A token and a cookie are both sent if both are set."""


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Declares the flags that `connect` reads."""
    group = parser.add_argument_group("connection", CREDENTIALS)
    way = group.add_mutually_exclusive_group()
    way.add_argument(
        "--host",
        metavar="URL",
        help="address of Kubeflow Pipelines, e.g. https://kubeflow.example.com/pipeline "
        "(default: KF_PIPELINES_ENDPOINT; in a pod the cluster's own)",
    )
    way.add_argument(
        "--port-forward",
        metavar="NAMESPACE",
        help="connect with `kubectl port-forward`; the namespace of Kubeflow Pipelines, e.g. kubeflow",
    )
    group.add_argument("--namespace", help="namespace of the runs (default: that of the cluster file)")
    group.add_argument(
        "--token-file", metavar="FILE", type=Path, help="file with a token; read again for every request"
    )


def add_run(parser: argparse.ArgumentParser, *, optional: str | None = None) -> None:
    """Declares the flags for the run of a command, and for the connection.

    Args:
        parser: parser of the command.
        optional: help text for the command without a run; None if a run is required.
    """
    nargs, default = (None, "") if optional is None else ("?", f" (default: {optional})")
    parser.add_argument("run_id", metavar="RUN", nargs=nargs, help=f"id of the run{default}")
    add_cluster(parser)
    add_connection(parser)


class NoServerError(MaskcastError):
    """No server was specified."""


class Client(kfp.Client):
    """kfp's client, connected to a server; each call returns an answer or raises a MaskcastError.

    Args:
        host: address of the API.
        namespace: namespace of the runs; a server for a single user is queried without it.
        ui: address of the UI, or None.
        credentials: refreshes the token for each request; None uses kfp's from ~/.config/kfp.
        flags: flags of this connection, for commands that are printed.
    """

    def __init__(
        self,
        host: str,
        namespace: str,
        ui: str | None,
        credentials: TokenCredentialsBase | None,
        flags: Sequence[str] = (),
    ) -> None:
        cookie = os.environ.get("KF_PIPELINES_COOKIE") or None
        try:
            super().__init__(
                host,
                namespace="-",  # with kfp's default, its constructor queries the server and prints tracebacks
                cookies=_header_value(cookie, "KF_PIPELINES_COOKIE") if cookie else None,
                credentials=credentials,
                ssl_ca_cert=os.environ.get("SSL_CERT_FILE"),
            )
        except (ValueError, OSError) as error:
            raise MaskcastError(f"~/.config/kfp: cannot be used ({error}); fix or remove its content") from None
        self.address, self._ui, self._flags = host, ui, flags
        api = self._run_api.api_client  # which all of kfp's APIs share
        api.rest_client = Transport(self._existing_config, namespace)
        api.deserialize = partial(_deserialized, host, api.deserialize)
        answer = self._get("/apis/v2beta1/healthz")
        self.health: Mapping[str, Any] = json.loads(answer)
        """`multi_user`, `tag_name` (the version) and `pipeline_store`; kfp's own model knows only the first."""
        if not {"multi_user", "tag_name", "commit_sha"} & self.health.keys():
            raise not_kubeflow(host, answer)
        self.multi_user = bool(self.health.get("multi_user"))
        self.namespace = namespace

    def get_user_namespace(self) -> str:
        """Returns the namespace for requests; kfp's methods call this."""
        return self.namespace if self.multi_user else ""

    def page(self, run_id: str) -> str:
        """Returns the address of a run's page in the UI."""
        return f"{self._ui.rstrip('/')}/#/runs/details/{run_id}" if self._ui else f"run {run_id} in the UI"

    def command(self, *words: str) -> str:
        """Returns a pipeline command with the flags of this connection, so that a user can run it as printed."""
        return shlex.join(["maskcast", "pipeline", *words, *self._flags])

    def namespace_of(self, run: V2beta1Run) -> str:
        """Returns the namespace of a run's pods: with several users, that of the run's experiment."""
        if not self.multi_user or not run.experiment_id:
            return self.namespace
        experiment = self._experiment_api.experiment_service_get_experiment(run.experiment_id)
        return str(experiment.namespace or self.namespace)

    def archived_log(self, run_id: str, pod: str) -> str | None:
        """Returns a pod's output from Kubeflow's archive, which exists as long as the run's Workflow; else None.

        Raises:
            MaskcastError: the server is unreachable.
        """
        try:
            return self._get(f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log")
        except RefusedError:  # for a missing log, KFP 2.17 answers with status 500
            return None

    def retry_run(self, run_id: str) -> None:
        """Restarts a failed run: successful stages are kept, and trainings resume from their checkpoints.

        Raises:
            MaskcastError: if the server refuses.
        """
        self._run_api.run_service_retry_run(run_id)

    def _get(self, path: str) -> str:
        answer = self._run_api.api_client.call_api(
            path, "GET", auth_settings=["Bearer"], _preload_content=False, _return_http_data_only=True
        )
        return str(answer.data.decode("utf-8", "replace"))


def cluster_of(args: argparse.Namespace) -> Cluster:
    """Returns the cluster of the flags `--cluster` and `--namespace`.

    Raises:
        MaskcastError: the cluster file is invalid.
    """
    cluster = load_cluster(args.cluster)
    return cluster.model_copy(update={"namespace": args.namespace}) if args.namespace else cluster


@contextmanager
def connect(args: argparse.Namespace) -> Iterator[Client]:
    """Yields a client that is connected to the server.

    Args:
        args: the flags of `add_connection`, and ``cluster``: the file with the namespace.

    Raises:
        MaskcastError: if no server is specified or it cannot be used; names the remedy.
    """
    namespace = args.namespace or cluster_of(args).namespace
    named = args.host or os.environ.get("KF_PIPELINES_ENDPOINT")
    ui = os.environ.get("KF_PIPELINES_UI_ENDPOINT")
    with ExitStack() as stack:
        if args.port_forward:
            host = stack.enter_context(_port_forward(args.port_forward))
        elif named:
            host = _checked_address(named)
            ui = ui or host
        elif "KUBERNETES_SERVICE_HOST" in os.environ:
            host = IN_CLUSTER
        else:
            raise NoServerError("no Kubeflow server: give --host or --port-forward, or set KF_PIPELINES_ENDPOINT")
        yield Client(host, namespace, ui, _credentials(args.token_file, host == IN_CLUSTER), _flags(args))


def _flags(args: argparse.Namespace) -> list[str]:
    """Returns the flags of a connection that differ from their defaults."""
    flags = {
        "--cluster": None if args.cluster == cluster_file() else args.cluster,
        "--host": args.host,
        "--port-forward": args.port_forward,
        "--namespace": args.namespace,
        "--token-file": args.token_file,
    }
    return [word for flag, value in flags.items() if value for word in (flag, str(value))]


def _deserialized(host: str, deserialize: Callable[..., Any], *arguments: Any) -> Any:
    """Returns an answer as kfp's model; one that does not fit it is one line."""
    try:
        return deserialize(*arguments)
    except (ApiException, ValueError, TypeError, AttributeError) as error:
        reason = error.reason if isinstance(error, ApiException) else one_line(error)
        raise MaskcastError(
            f"{host}: kfp cannot read its answer ({reason}); see the logs of the ml-pipeline pods"
        ) from None


class _Token(TokenCredentialsBase):
    """A token that is read again for each request."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        read()

    def refresh_api_key_hook(self, config: Configuration) -> None:
        """Sets the token of the next request."""
        config.api_key["authorization"] = self._read()


def _credentials(token_file: Path | None, in_cluster: bool) -> _Token | None:
    if token_file:
        return _Token(partial(_read_token, token_file))
    if token := os.environ.get("KF_PIPELINES_TOKEN"):
        return _Token(lambda: _header_value(token, "KF_PIPELINES_TOKEN"))
    # A pod's own token is only sent to its own cluster, unless the environment specifies another.
    pod_token = Path(os.environ.get(KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH))
    if pod_token.exists() and (in_cluster or KF_PIPELINES_SA_TOKEN_ENV in os.environ):
        return _Token(partial(_read_token, pod_token))
    return None


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise MaskcastError(f"{path}: the token cannot be read ({error}); give another file") from None
    if not token:
        raise MaskcastError(f"{path}: the token file is empty; write the token into it")
    return _header_value(token, str(path))


def _header_value(secret: str, source: str) -> str:
    """Returns a secret if it is valid in an HTTP header; the error of the HTTP library would show the secret."""
    if not re.fullmatch("[ -~]*", secret):
        raise MaskcastError(f"{source}: contains line breaks or non-ASCII characters; set it again without them")
    return secret


def _checked_address(host: str) -> str:
    parts = urlsplit("")
    with suppress(ValueError):  # brackets that are not IPv6
        parts = urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise MaskcastError(f"{host}: not a server address; use e.g. https://kubeflow.example.com/pipeline")
    if parts.username or parts.password:
        raise MaskcastError(f"{parts.hostname}: the address contains a password; set KF_PIPELINES_TOKEN instead")
    return host.split("#")[0].rstrip("/")


@contextmanager
def _port_forward(namespace: str) -> Iterator[str]:
    """Yields the local address, which is forwarded until the block ends."""
    command = ["kubectl", "port-forward", f"--namespace={namespace}", "--address=127.0.0.1"]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "output").open("w+", encoding="utf-8") as output:
        try:
            child = subprocess.Popen([*command, "service/ml-pipeline", ":8888"], stdout=output, stderr=output)
        except OSError as error:
            raise MaskcastError(
                f"--port-forward: requires kubectl ({error.strerror}); install it, or use --host"
            ) from None
        try:
            yield f"http://127.0.0.1:{_forwarded_port(child, Path(output.name), namespace)}"
        finally:
            child.terminate()
            child.wait()


def _forwarded_port(child: subprocess.Popen[bytes], output: Path, namespace: str) -> int:
    deadline = time.monotonic() + FORWARD_START_S
    while True:
        is_last_read = child.poll() is not None or time.monotonic() > deadline
        text = output.read_text(encoding="utf-8")
        if forwarding := re.search(r"Forwarding from 127\.0\.0\.1:(\d+) ", text):
            return int(forwarding[1])
        if is_last_read:
            break
        time.sleep(0.1)
    reason = text.strip().splitlines()[-1] if text.strip() else f"no answer within {FORWARD_START_S:.0f} s"
    raise MaskcastError(
        f"--port-forward: kubectl cannot forward to ml-pipeline in namespace {namespace} ({reason}); check the "
        "namespace and your permissions"
    )
