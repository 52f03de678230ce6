"""The way to a Kubeflow Pipelines server: its address and who asks. Nothing of it is stored."""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import kfp
from kfp.client import KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH, TokenCredentialsBase
from kfp_server_api.configuration import Configuration

from maskcast.errors import MaskcastError
from pipelines.client.transport import Transport
from pipelines.cluster import load_cluster

IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
FORWARD_START_S = 30.0

CREDENTIALS = """Who asks: a token from --token-file or KF_PIPELINES_TOKEN (kubectl create token default-editor
--namespace NAMESPACE --audience pipelines.kubeflow.org), a session cookie from KF_PIPELINES_COOKIE
(authservice_session=...), in a pod its service account, or what the kfp client keeps in ~/.config/kfp."""


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Declares the flags that `connect` reads."""
    group = parser.add_argument_group("connection", CREDENTIALS)
    way = group.add_mutually_exclusive_group()
    way.add_argument(
        "--host",
        metavar="URL",
        help="Kubeflow Pipelines, e.g. https://kubeflow.example.com/pipeline "
        "(default: KF_PIPELINES_ENDPOINT; in a pod the cluster's own)",
    )
    way.add_argument(
        "--port-forward",
        metavar="NAMESPACE",
        help="reach it through `kubectl port-forward`; NAMESPACE is where it is installed, e.g. kubeflow",
    )
    group.add_argument("--namespace", help="namespace of the runs (default: that of the cluster file)")
    group.add_argument(
        "--token-file", metavar="FILE", type=Path, help="file with a token; read anew for every request"
    )


class Client(kfp.Client):
    """kfp's client after its first answer from the server. Each call answers, or raises a MaskcastError.

    Args:
        host: address of the API.
        namespace: of the runs; a server for a single user has none, and is asked without.
        ui: address of the UI, None where it has none.
        credentials: refreshes the token for each request; None uses what kfp keeps in ~/.config/kfp.
    """

    def __init__(
        self, host: str, namespace: str, ui: str | None, credentials: TokenCredentialsBase | None
    ) -> None:
        try:
            super().__init__(
                host,
                namespace="-",  # with kfp's own default its constructor asks the server and prints tracebacks
                cookies=os.environ.get("KF_PIPELINES_COOKIE") or None,
                credentials=credentials,
                ssl_ca_cert=os.environ.get("SSL_CERT_FILE"),
            )
        except (ValueError, OSError) as error:
            raise MaskcastError(f"~/.config/kfp: cannot be used ({error}); mend or remove what is in it") from None
        self._ui = ui
        self._run_api.api_client.rest_client = Transport(self._existing_config, namespace)
        self.multi_user = bool(self._healthz_api.healthz_service_get_healthz().multi_user)
        self.namespace = namespace

    def get_user_namespace(self) -> str:
        """Returns the namespace to ask for: kfp's methods call this."""
        return self.namespace if self.multi_user else ""

    def page(self, run_id: str) -> str:
        """Returns where the UI shows a run."""
        return f"{self._ui.rstrip('/')}/#/runs/details/{run_id}" if self._ui else f"run {run_id} in the UI"


@contextmanager
def connect(given: argparse.Namespace) -> Iterator[Client]:
    """Yields a client that the server has answered.

    Args:
        given: the flags of `add_connection` and ``cluster``, the file that names the namespace.

    Raises:
        MaskcastError: when no server is named or it cannot be used, with the remedy.
    """
    namespace = given.namespace or load_cluster(given.cluster).namespace
    named = given.host or os.environ.get("KF_PIPELINES_ENDPOINT")
    ui = os.environ.get("KF_PIPELINES_UI_ENDPOINT")
    with ExitStack() as stack:
        if given.port_forward:
            host = stack.enter_context(_port_forward(given.port_forward))
        elif named:
            host = _checked(named)
            ui = ui or host
        elif "KUBERNETES_SERVICE_HOST" in os.environ:
            host = IN_CLUSTER
        else:
            raise MaskcastError("no server: give --host or --port-forward, or set KF_PIPELINES_ENDPOINT")
        yield Client(host, namespace, ui, _credentials(given.token_file, host == IN_CLUSTER))


class _Token(TokenCredentialsBase):
    """A token that is read anew for every request."""

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
        return _Token(lambda: token)
    # A pod's own token goes to its own cluster, or elsewhere only where the environment says so.
    own = Path(os.environ.get(KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH))
    if own.exists() and (in_cluster or KF_PIPELINES_SA_TOKEN_ENV in os.environ):
        return _Token(partial(_read_token, own))
    return None


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise MaskcastError(f"{path}: the token cannot be read ({error}); name another file") from None
    if not token:
        raise MaskcastError(f"{path}: the token file is empty; write the token into it")
    return token


def _checked(host: str) -> str:
    parts = urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise MaskcastError(f"{host}: no address of a server; write it as https://kubeflow.example.com/pipeline")
    if parts.username or parts.password:
        raise MaskcastError(f"{parts.hostname}: its address holds a password; set KF_PIPELINES_TOKEN instead")
    return host.split("#")[0].rstrip("/")


@contextmanager
def _port_forward(namespace: str) -> Iterator[str]:
    """Yields the address on this machine, forwarded as long as the block lasts."""
    command = ["kubectl", "port-forward", f"--namespace={namespace}", "--address=127.0.0.1"]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "said").open("w+", encoding="utf-8") as said:
        try:
            child = subprocess.Popen([*command, "service/ml-pipeline", ":8888"], stdout=said, stderr=said)
        except OSError as error:
            raise MaskcastError(
                f"--port-forward needs kubectl ({error.strerror}); install it or use --host"
            ) from None
        try:
            yield f"http://127.0.0.1:{_forwarded_port(child, Path(said.name), namespace)}"
        finally:
            child.terminate()
            child.wait()


def _forwarded_port(child: subprocess.Popen[bytes], said: Path, namespace: str) -> int:
    deadline = time.monotonic() + FORWARD_START_S
    while time.monotonic() < deadline:
        ended = child.poll() is not None
        text = said.read_text(encoding="utf-8")
        if "Forwarding from 127.0.0.1:" in text:
            return int(text.split("Forwarding from 127.0.0.1:")[1].split()[0])
        if ended:
            break
        time.sleep(0.1)
    reason = text.strip().splitlines()[-1] if text.strip() else f"no answer within {FORWARD_START_S:.0f} s"
    raise MaskcastError(f"kubectl cannot forward to ml-pipeline in namespace {namespace} ({reason}); mend that")
